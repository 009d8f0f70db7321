"""Surrogate derivatives: their formulas, their gradients on every backend, and functions of the caller's."""

import math

import oracle
import pytest
import torch

from deal_kernels import surrogate
from deal_kernels.lif import LIF, lif

EACH = [
    surrogate.Sigmoid(3.0), surrogate.ATan(1.5), surrogate.Triangle(0.8), surrogate.Rectangle(1.2),
    surrogate.FastSigmoid(slope=10.0, height=0.5), surrogate.Erf(1.4), surrogate.Exponential(slope=3.0, height=0.7),
    surrogate.PiecewiseLeakyReLU(width=0.7, leak=0.2), surrogate.LeakyReLU(slope=0.9, leak=0.3),
    surrogate.StraightThrough(), surrogate.Window(-0.3, 0.8), surrogate.Sigmoid(6.0, height=1.7),
]  # fmt: skip
NAMES = [type(each).__name__ for each in EACH]


def primitive(each, u):
    """The smoothed step whose derivative a surrogate is, up to a constant."""
    a, height, outside = each.numbers
    if each.kind == "sigmoid":
        return 4 * height / a * torch.sigmoid(a * u)
    if each.kind == "atan":
        return torch.atan(math.pi / 2 * a * u) / math.pi
    if each.kind == "triangle":
        return torch.where(u.abs() < 1 / a, a * u - a * a / 2 * u.abs() * u, u.sign() / 2)
    if each.kind == "rectangle":
        inside = u.clamp(-a, a)
        return height * inside + outside * (u - inside)
    if each.kind == "fast_sigmoid":
        return height * u / (1 + a * u.abs())
    if each.kind == "exponential":
        return height / a * u.sign() * (1 - torch.exp(-a * u.abs()))
    if each.kind == "sides":
        return height * u.clamp(min=0) + outside * u.clamp(max=0)
    if each.kind == "window":
        return u.clamp(a, height)
    return torch.erf(a * u) / 2


@pytest.mark.parametrize("each", EACH, ids=NAMES)
def test_is_the_derivative_of_its_primitive(each):
    u = torch.linspace(-2, 2, 400, dtype=torch.float64).add(1e-3).requires_grad_()
    (expected,) = torch.autograd.grad(primitive(each, u).sum(), u)
    torch.testing.assert_close(each(u.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("each", EACH, ids=NAMES)
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


def test_a_function_is_the_derivative(backend, device):
    """It is called once, with u of all steps."""
    x = torch.randn(4, 50, device=device, requires_grad=True)
    calls = []
    layer = LIF(surrogate=lambda u: calls.append(u.shape) or torch.zeros_like(u), v_reset=None, backend=backend)
    spikes = layer(x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert torch.equal(spikes, lif(x, v_reset=None, backend=backend))
    assert calls == [(4, 50)] and torch.equal(grad, torch.zeros_like(x))
    for built_in in (surrogate.ATan(), surrogate.Triangle(1.3)):
        grads = [
            torch.autograd.grad(lif(x, surrogate=each, backend=backend).sum(), x)[0]
            for each in (built_in, built_in.__call__)
        ]
        assert oracle.close(*grads)


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
