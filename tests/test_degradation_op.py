"""The mixture as a torch operation: what autograd keeps, and a module that draws."""

import pytest
import torch
from degradation_oracle import case

import deal_kernels
from deal_kernels.degradation import DEAL_OPS, Mixture, mixture

BACKENDS = [name for name, state in deal_kernels.info()["backends"].items() if state == "live"]
SOME = ("sharpness_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "average_pool_resize_2", "noise")


THERMAL = ("wide_blur", "row_gain", "tone", "dead", "glow", "shading", "partial_stripe", "quantise_8", "clip")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.mark.parametrize("ops", [DEAL_OPS, THERMAL], ids=["released", "thermal"])
def test_compile_of_a_module_that_draws(ops):
    torch._dynamo.reset()
    layer = Mixture(ops)
    x, weights, _ = case(2, 1, 10, 11, ops=ops)
    result = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, weights)
    assert result.shape == x.shape and not torch.equal(result, x)


def test_kept_for_backward(backend, device):
    """The images and what S - 1 stages read; with a checkpoint the images alone."""
    x, weights, params = case(2, 1, 9, 11, ops=SOME, stages=4, device=device)
    x.requires_grad_()

    def kept(checkpoint):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
            mixture(x, weights, SOME, params, checkpoint=checkpoint, backend=backend)
        return found

    given = [x, weights, *params.values()]
    addresses = [t.data_ptr() for t in given]
    assert [t.data_ptr() for t in kept(True)] == addresses
    *others, inputs = kept(False)
    assert [t.data_ptr() for t in others] == addresses and inputs.shape == (3, *x.shape)


def test_weights_of_another_type_get_gradients_of_it(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, dtype=torch.float16, device=device)
    weights = weights.half().requires_grad_()
    (grad,) = torch.autograd.grad(mixture(x, weights, SOME, params, backend=backend).float().sum(), weights)
    assert grad.dtype == torch.float16
