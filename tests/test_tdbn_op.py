"""The norm and its fusion as torch operations: schema checks, compile, export."""

import pytest
import torch

from deal_kernels.lif.neuron import Neuron, flat
from deal_kernels.surrogate import ATan
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn, tdbn_lif

NEURON = Neuron("decay_input", 2.0, 1.0, "hard", 0.0, False, ATan(), "ge", 1)
OPS = torch.ops.deal_kernels


def channels(count, device):
    return [torch.rand(3, device=device) + 0.5 for _ in range(count)]


@pytest.mark.parametrize(("shape", "axis"), [((4, 2, 3, 5), 2), ((4, 3, 5, 2), 1)])
def test_opcheck_norm(backend, device, shape, axis):
    x, grad = (torch.randn(shape, device=device) for _ in range(2))
    mean, *others = channels(4, device)
    check = torch.library.opcheck
    check(OPS.tdbn_moments.default, (x, axis, backend))
    check(OPS.tdbn_normalise.default, (x, mean, *others[:2], axis, backend))
    check(OPS.tdbn_gradient_sums.default, (grad, x, mean, axis, backend))
    check(OPS.tdbn_gradient.default, (grad, x, mean, *others, axis, backend))


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("output", ["spikes", "mean", "packed"])
def test_opcheck_fused(backend, device, output, full, steps):
    x = torch.randn(4, 2, 3, 5, device=device) if steps is None else torch.randn(2, 3, 5, device=device)
    row = x if steps else x[0]
    norm = *channels(3, device), torch.randn_like(x) if full else None
    inputs = x, *norm, *((torch.randn_like(row), *channels(2, device)) if full else (None, None, None)), *flat(NEURON)
    torch.library.opcheck(OPS.tdbn_lif.default, (*inputs, output, steps, full, backend))
    if output != "packed":
        grad = torch.randn(row.shape if output == "mean" else (steps or 4, *row.shape), device=device)
        grad_v = torch.randn_like(row) if full else None
        wanted = [full] * 3
        torch.library.opcheck(OPS.tdbn_lif_backward.default, (grad, grad_v, *inputs, output, steps, wanted, backend))


def network(training):
    torch.manual_seed(0)
    layers = TDBatchNorm2d(3), TDBNLIF(3, alpha=None, surrogate="atan"), SpikingConv(3, 4, 3, padding=1, reduce="mean")
    return torch.nn.Sequential(*layers).train(training)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("training", [False, True])
def test_compile(compiler, training):
    torch._dynamo.reset()
    eager, other = network(training), network(training)
    compiled = torch.compile(other, backend=compiler, fullgraph=True)
    for seed in range(2):
        x = torch.randn(4, 2, 3, 6, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        expected, result = eager(x), compiled(x)
        torch.testing.assert_close(result, expected)
        leaves, other_leaves = [x, *eager.parameters()], [x, *other.parameters()]
        grads = torch.autograd.grad(expected.square().sum(), leaves)
        for one, two in zip(torch.autograd.grad(result.square().sum(), other_leaves), grads, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, eager.state_dict()[name])


def test_export():
    x = torch.randn(4, 2, 3, 6, 5)
    program = torch.export.export(network(training=False), (x,))
    assert "deal_kernels.tdbn_lif.default" in str(program.graph)
    assert torch.equal(program.module()(x), network(training=False)(x))


def test_meta_and_fake_tensors():
    x = torch.empty(4, 2, 3, 5, 5, device="meta")
    assert tdbn(x, training=True).shape == x.shape and tdbn_lif(x, training=True).device.type == "meta"
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(4, 2, 3, 5, 5, dtype=torch.bfloat16, requires_grad=True)
        spikes, v = tdbn_lif(x, training=True, return_state=True)
        spikes.sum().backward()
    assert spikes.dtype == torch.bfloat16 and v.dtype == torch.float32 and x.grad.shape == x.shape


def test_second_backward_is_refused(backend, device):
    x = torch.randn(4, 2, 3, 5, device=device, requires_grad=True)
    for run in (tdbn, tdbn_lif):
        (grad,) = torch.autograd.grad(run(x, training=True, backend=backend).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError):
            grad.sum().backward()
