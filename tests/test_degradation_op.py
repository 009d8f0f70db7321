"""The mixture as a torch operation: schema checks, compile, export, what autograd keeps, processes that fork."""

import subprocess
import sys

import pytest
import torch
from degradation_oracle import case, output_gradient, result_and_gradients
from torch.utils.data import DataLoader, Dataset

import deal_kernels
from deal_kernels.degradation import DEAL_OPS, Mixture, apply, mixture

OPS = torch.ops.deal_kernels
BACKENDS = [name for name, state in deal_kernels.info()["backends"].items() if state == "live" and name != "triton"]
SOME = ("sharpness_0.7", "contrast_0.5", "posterize_5", "gaussian_blur", "average_pool_resize_2", "noise")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.mark.parametrize(("stages", "dtype"), [(1, torch.float32), (3, torch.bfloat16)], ids=str)
def test_opcheck(backend, device, stages, dtype):
    x, weights, params = case(2, 3, 9, 11, ops=SOME, stages=stages, dtype=dtype, device=device)
    settings = list(SOME), False, backend
    tensors = x.contiguous(memory_format=torch.channels_last), weights, list(params.values())
    check = torch.library.opcheck
    for keep in (False, True):
        check(OPS.degradation.default, (*tensors, *settings, keep))
    _, inputs = OPS.degradation.default(*tensors, *settings, True)
    for wanted in ([True, True], [False, True], [True, False]):
        check(OPS.degradation_backward.default, (torch.ones_like(x), inputs, *tensors, *settings, wanted))


@pytest.mark.parametrize(("compiler", "grad"), [("aot_eager", False), ("inductor", True)])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_compile(compiler, grad, checkpoint):
    torch._dynamo.reset()
    x, weights, params = case(2, 1, 9, 11, ops=SOME)
    x, weights = x.requires_grad_(grad), weights.requires_grad_(grad)

    def network(x, weights, params):
        return mixture(torch.relu(x * 1.5), weights.softmax(-1), SOME, params, checkpoint=checkpoint).square()

    expected = network(x, weights, params)
    result = torch.compile(network, backend=compiler, fullgraph=True)(x, weights, params)
    torch.testing.assert_close(result, expected)
    if grad:
        grads = (torch.autograd.grad(each.sum(), (x, weights)) for each in (result, expected))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other)


def test_compile_of_a_module_that_draws():
    torch._dynamo.reset()
    layer = Mixture(DEAL_OPS)
    x, weights, _ = case(2, 1, 9, 11, ops=DEAL_OPS)
    result = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, weights)
    assert result.shape == x.shape and not torch.equal(result, x)


def test_export():
    x, weights, params = case(2, 3, 9, 11, ops=SOME)
    program = torch.export.export(Mixture(SOME), (x, weights, params))
    assert "deal_kernels.degradation.default" in str(program.graph)
    assert torch.equal(program.module()(x, weights, params), Mixture(SOME)(x, weights, params))


def test_meta_and_fake_tensors():
    x, weights = torch.empty(2, 3, 20, 30, device="meta"), torch.empty(2, 4, 2, device="meta")
    assert mixture(x, weights, ["identity", "contrast_0.5"]).device.type == "meta"
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(2, 3, 20, 30, dtype=torch.float16, requires_grad=True)
        weights = torch.empty(2, 4, 2, requires_grad=True)
        mixture(x, weights, ["identity", "contrast_0.5"]).sum().backward()
    assert x.grad.shape == x.shape and x.grad.dtype == x.dtype and weights.grad.shape == weights.shape


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


def test_backward_twice_through_a_kept_graph(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, device=device)
    x.requires_grad_()
    for checkpoint in (False, True):
        total = mixture(x, weights, SOME, params, checkpoint=checkpoint, backend=backend).sum()
        first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
        first.zero_()
        assert second.abs().max() > 0 and torch.equal(torch.autograd.grad(total, x)[0], second)


def test_second_derivatives_are_refused(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, device=device)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(mixture(x, weights, SOME, params, backend=backend).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_weights_of_another_type_get_gradients_of_it(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, dtype=torch.float16, device=device)
    weights = weights.half().requires_grad_()
    (grad,) = torch.autograd.grad(mixture(x, weights, SOME, params, backend=backend).float().sum(), weights)
    assert grad.dtype == torch.float16


def test_dispatch_modes_see_the_operation():
    seen = []

    class Listener(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x, weights, params = case(2, 1, 9, 11, ops=SOME)
    x.requires_grad_()
    with Listener():
        result = mixture(x, weights, SOME, params)
        torch.autograd.grad(result, x, output_gradient(result))
    assert "deal_kernels.degradation.default" in seen
    assert "deal_kernels.degradation_backward.default" in seen


def test_same_input_same_bits(backend, device):
    x, weights, params = case(3, 3, 40, 50, ops=SOME, device=device)
    runs = [result_and_gradients(mixture, x, weights, SOME, params, backend=backend) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


def test_autocast_takes_images_as_they_are(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, device=device)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        assert torch.equal(
            mixture(x, weights, SOME, params, backend=backend), mixture(x, weights, SOME, params, backend=backend)
        )
        assert mixture(x, weights, SOME, params, backend=backend).dtype == torch.float32


def test_inference_mode(backend, device):
    x, weights, params = case(2, 1, 9, 11, ops=SOME, device=device)
    expected = mixture(x, weights, SOME, params, backend=backend)
    with torch.inference_mode():
        assert torch.equal(mixture(x, weights, SOME, params, backend=backend), expected)


def test_a_forked_child_computes_too():
    code = """
import os, torch
from deal_kernels.degradation import mixture
torch.set_num_threads(2)
x, weights = torch.rand(2, 1, 128, 128), torch.rand(2, 2, 2)
run = lambda: mixture(x, weights, ["contrast_0.5", "max_pool_resize_4"])
expected = run()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(run(), expected) else 1)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


class Blurred(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        x, _, _ = case(1, 1, 60, 75, ops=["identity"], seed=index)
        return apply("gaussian_blur_1.2", x)[0]


def test_dataloader_workers():
    apply("gaussian_blur_1.2", torch.rand(4, 1, 128, 128))
    loader = DataLoader(Blurred(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.stack([Blurred()[index] for index in range(8)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graph_replays_the_same_bits():
    x, weights, params = case(2, 3, 70, 90, ops=DEAL_OPS, device="cuda")
    x.requires_grad_()

    def step():
        result = mixture(x, weights, DEAL_OPS, params, backend="cuda")
        return result.detach(), torch.autograd.grad(result.sum(), x)[0]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.rand_like(x))
    graph.replay()
    for replayed, expected in zip(captured, step(), strict=True):
        assert torch.equal(replayed, expected)
