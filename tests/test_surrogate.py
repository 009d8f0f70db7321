"""Surrogate derivatives: their formulas, their gradients on every backend, and functions of the caller's."""

import math

import oracle
import pytest
import torch

from deal_kernels import surrogate
from deal_kernels.lif import LIF, lif

EACH = [
    surrogate.Sigmoid(3.0), surrogate.ATan(1.5), surrogate.Triangle(0.8), surrogate.Rectangle(1.2),
    surrogate.FastSigmoid(slope=10.0, height=0.5), surrogate.Erf(1.4),
]  # fmt: skip


def primitive(each, u):
    """The smoothed step whose derivative a surrogate is, up to a constant."""
    a = each.alpha
    if each.kind == "sigmoid":
        return torch.sigmoid(a * u)
    if each.kind == "atan":
        return torch.atan(math.pi / 2 * a * u) / math.pi
    if each.kind == "triangle":
        return torch.where(u.abs() < 1 / a, a * u - a * a / 2 * u.abs() * u, u.sign() / 2)
    if each.kind == "rectangle":
        return (a * u).clamp(-0.5, 0.5)
    if each.kind == "fast_sigmoid":
        return each.height * u / (1 + a * u.abs())
    return torch.erf(a * u) / 2


@pytest.mark.parametrize("each", EACH, ids=lambda each: each.kind)
def test_is_the_derivative_of_its_primitive(each):
    u = torch.linspace(-2, 2, 400, dtype=torch.float64).add(1e-3).requires_grad_()
    (expected,) = torch.autograd.grad(primitive(each, u).sum(), u)
    torch.testing.assert_close(each(u.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("each", EACH, ids=lambda each: each.kind)
def test_gradient_against_float64(backend, device, each):
    """Float32 gradients are those of float64 to 1e-6 of the largest, away from the threshold."""
    x = torch.randn(5, 2, 3, 7, generator=torch.Generator().manual_seed(3)).to(device)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).to(device)
    ours, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    spikes, expected = lif(ours, surrogate=each, backend=backend), oracle.lif(wide, surrogate=each)[0]
    assert torch.equal(spikes, expected.float())
    (grad,), (exact,) = torch.autograd.grad(spikes, ours, g), torch.autograd.grad(expected, wide, g.double())
    assert oracle.close(grad.double(), exact, 2e-6)


def test_names_have_their_usual_sharpness():
    for name, default in surrogate.DEFAULTS.items():
        x = torch.randn(4, 50, requires_grad=True)
        grads = [torch.autograd.grad(lif(x, surrogate=each).sum(), x)[0] for each in (name, default)]
        assert default.kind == name and torch.equal(*grads)


def test_a_function_is_the_derivative():
    x = torch.randn(4, 50, requires_grad=True)
    layer = LIF(surrogate=lambda u: torch.exp(-u.abs()), v_reset=None)
    spikes = layer(x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert torch.equal(spikes, lif(x, v_reset=None, backend="torch"))
    calls = []
    lif(x, surrogate=lambda u: calls.append(u.shape) or torch.zeros_like(u)).sum().backward()
    assert calls == [(50,)] * 4 and torch.equal(x.grad, torch.zeros_like(x))
    atan = torch.autograd.grad(lif(x, surrogate=surrogate.ATan().__call__).sum(), x)[0]
    assert torch.equal(atan, torch.autograd.grad(lif(x, surrogate="atan", backend="torch").sum(), x)[0])
    assert grad.abs().max() > 0


def test_a_function_compiles():
    torch._dynamo.reset()
    x = torch.randn(4, 20, requires_grad=True)

    def layer(x):
        return lif(x * 2, surrogate=lambda u: 1 / (1 + u * u)).sum(0)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    expected, result = layer(x), compiled(x)
    assert torch.equal(result, expected)
    grads = [torch.autograd.grad(each.sum(), x)[0] for each in (result, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("named", ["cuda", "triton", "cpp"])
def test_other_backends_say_so(named):
    with pytest.raises(RuntimeError, match=f"backend '{named}' cannot run a surrogate given as a function"):
        lif(torch.zeros(2, 3), surrogate=torch.ones_like, backend=named)
