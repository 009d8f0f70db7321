"""The layers of parallel spiking neurons, and that they are those of SpikingJelly where it is installed."""

import copy
import pickle

import pytest
import torch

from deal_kernels.psn import PSN, MaskedPSN, SlidingPSN, psn, sliding_psn

X = torch.randn(6, 3, 37, generator=torch.Generator().manual_seed(0))
LAMBDAS = (0.0, 0.3, 1.0, 1.5)
LAYERS = {
    "PSN": lambda: PSN(6),
    "MaskedPSN": lambda: MaskedPSN(3, 6, lambda_init=0.5),
    "SlidingPSN": lambda: SlidingPSN(3, exp_init=False),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def made(name, seed=0):
    torch.manual_seed(seed)
    return LAYERS[name]()


def test_first_weights():
    weight = SlidingPSN(4).weight
    assert weight.tolist() == [0.125, 0.25, 0.5, 1.0] and SlidingPSN(4).bias.item() == -1
    for layer, bound in ((made("PSN"), 6**-0.5), (made("MaskedPSN"), 6**-0.5), (made("SlidingPSN"), 3**-0.5)):
        assert 0.3 * bound < layer.weight.abs().max() <= bound and (layer.bias == -1).all()


@each_layer
def test_names_in_the_state_dict(name):
    shapes = {key: tuple(value.shape) for key, value in made(name).state_dict().items()}
    assert (
        shapes
        == {
            "PSN": {"weight": (6, 6), "bias": (6, 1)},
            "MaskedPSN": {"weight": (6, 6), "bias": (6, 1), "_lambda_": (), "mask0": (6, 6), "mask1": (6, 6)},
            "SlidingPSN": {"weight": (3,), "bias": ()},
        }[name]
    )


@pytest.mark.parametrize("share", LAMBDAS)
def test_masked_weights(share):
    layer = made("MaskedPSN")
    layer.lambda_ = share
    band = torch.ones(6, 6).tril().triu(-2)
    kept = band + (1 - min(share, 1.0)) * (1 - band)
    torch.testing.assert_close(layer.masked_weight(), layer.weight * kept)
    assert torch.equal(layer(X), psn(X, layer.masked_weight(), layer.bias))
    layer(X).sum().backward()
    assert (layer.weight.grad != 0).all() if share < 1 else not layer.weight.grad[band == 0].any()


def test_a_loaded_lambda_counts():
    sharp = MaskedPSN(3, 6, lambda_init=1.0)
    for layer in (sharp, made("MaskedPSN", 1)):
        other = MaskedPSN(3, 6, lambda_init=0.0 if layer is sharp else 1.0)
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(X), layer(X)) and other.lambda_ == layer.lambda_
        assert torch.equal(other(X), psn(X, other.masked_weight(), other.bias))


@each_layer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(name, copied):
    layer = made(name)
    assert torch.equal(copied(layer)(X), layer(X))


@each_layer
def test_learns(name):
    layer = made(name)
    before = {key: value.clone() for key, value in layer.named_parameters()}
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    (layer(X).mean() - 0.9).square().backward()
    optimiser.step()
    assert all((value != before[key]).any() for key, value in layer.named_parameters())


def test_a_stateful_layer_continues():
    layer = SlidingPSN(4, stateful=True)
    expected = sliding_psn(X, layer.weight, layer.bias)
    for _ in range(2):
        assert torch.equal(torch.cat([layer(step[None]) for step in X]), expected)
        assert torch.equal(layer.before, X[3:])
        layer.reset()
    layer(X)
    assert copy.deepcopy(layer).before is None and layer.double().before.dtype == torch.float64


@pytest.mark.parametrize("k", [1, 2, 4, 6, 9])
@pytest.mark.parametrize("part", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_masked_layer_takes_its_steps_in_parts(k, part, dtype):
    whole, layer = (MaskedPSN(k, 6, lambda_init=1.0, stateful=stateful).to(dtype) for stateful in (False, True))
    layer.load_state_dict(whole.state_dict())
    x = X.to(dtype).requires_grad_()
    layer(x[:2])
    assert copy.deepcopy(layer).done == 0
    layer.reset()
    parts, expected = torch.cat([layer(some) for some in x.split(part)]), whole(x)
    assert torch.equal(parts, expected) and layer.done == 6
    grad = torch.randn_like(x)
    for ours, other in zip(
        torch.autograd.grad(parts, [x, *layer.parameters()], grad),
        torch.autograd.grad(expected, [x, *whole.parameters()], grad), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, other)


def test_what_a_masked_layer_refuses_in_parts():
    layer = MaskedPSN(3, 6, lambda_init=0.5, stateful=True)
    with pytest.raises(ValueError, match="a stateful MaskedPSN needs lambda_ >= 1; at 0.5 a step sees later ones"):
        layer(X[:1])
    layer.lambda_ = 1.0
    layer(X[:4])
    with pytest.raises(ValueError, match=r"x has 3 steps, and 2 of 6 are left: call reset\(\)"):
        layer(X[:3])
    with pytest.raises(ValueError, match=r"a step must have the shape \(3, 37\) of those before it; got \(2, 37\)"):
        layer(X[4:5, :2])
    assert torch.equal(layer(X[4:]), psn(X, layer.masked_weight(), layer.bias, band=3)[4:])


def test_the_gradient_between_calls():
    for detach in (False, True):
        layer, first = SlidingPSN(4, stateful=True, detach_state=detach), X[:3].clone().requires_grad_()
        layer(first)
        assert layer(X[3:]).sum().requires_grad
        layer.reset()
        layer(first)
        (grad,) = torch.autograd.grad(layer(X[3:]).sum(), first, allow_unused=True)
        assert (grad is None) == detach
    layer(first)
    layer.detach_()
    assert not layer.before.requires_grad


def test_what_is_shown():
    assert repr(PSN(6)) == "PSN(steps=6, surrogate='atan')"
    assert repr(MaskedPSN(3, 6)) == "MaskedPSN(k=3, steps=6, surrogate='atan')"
    assert repr(SlidingPSN(3)) == "SlidingPSN(k=3, surrogate='atan')"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PSN(0), ValueError, "steps must be an integer of at least 1; got 0"),
        (lambda: MaskedPSN(0, 4), ValueError, "k must be an integer of at least 1; got 0"),
        (lambda: MaskedPSN(2, 4, lambda_init="1"), TypeError, "lambda_init must be a number; got str"),
        (lambda: SlidingPSN(2.0), ValueError, "k must be an integer of at least 1; got 2.0"),
        (lambda: PSN(4, surrogate="step"), ValueError, "surrogate must be one of"),
        (lambda: setattr(MaskedPSN(2, 4), "lambda_", None), TypeError, "lambda_ must be a number; got NoneType"),
        (lambda: PSN(4)(X), ValueError, r"weight must have the shape \[6, 6\]; got \[4, 4\]"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["MaskedPSN", "SlidingPSN"])
def test_single_steps_as_in_spikingjelly(spikingjelly, name):
    """In float64: its single step adds in another order, so that in float32 its spikes differ from its own at once."""
    jelly = spikingjelly("2.0.0", "spikingjelly.activation_based.neuron")
    if name == "MaskedPSN":
        layer = MaskedPSN(3, 6, lambda_init=1.0, stateful=True)
        theirs = jelly.MaskedPSN(3, 6, lambda_init=1.0, step_mode="s")
    else:
        layer, theirs = SlidingPSN(3, stateful=True), jelly.SlidingPSN(3, step_mode="s")
    layer.load_state_dict(theirs.state_dict())
    layer, theirs, x = layer.double(), theirs.double(), X.double().requires_grad_()
    spikes, expected = torch.cat([layer(step[None]) for step in x]), torch.stack([theirs(step) for step in x])
    assert torch.equal(spikes, expected)
    grad = torch.randn_like(x)
    found, other = (
        torch.autograd.grad(s, [x, *each.parameters()], grad) for s, each in ((spikes, layer), (expected, theirs))
    )
    for ours, reference in zip(found, other, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-12)


@each_layer
@pytest.mark.parametrize("share", LAMBDAS)
def test_as_in_spikingjelly(spikingjelly, name, share):
    """State, spikes and, in float64, gradients. That its product of matrices adds in the order of the steps, each
    product with one rounding, is a property of the library behind torch.addmm, which may differ elsewhere."""
    jelly = spikingjelly("2.0.0", "spikingjelly.activation_based.neuron")
    layer = made(name)
    make = {"PSN": lambda: jelly.PSN(6), "SlidingPSN": lambda: jelly.SlidingPSN(3, step_mode="m")}
    theirs = make.get(name, lambda: jelly.MaskedPSN(3, 6, lambda_init=share, step_mode="m"))()
    layer.load_state_dict(theirs.state_dict())
    assert torch.equal(layer(X), theirs(X))
    x = X.double().requires_grad_()
    layer, theirs, grad = layer.double(), theirs.double(), torch.randn_like(x)
    found, expected = (torch.autograd.grad(each(x), [x, *each.parameters()], grad) for each in (layer, theirs))
    for ours, other in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-12)
