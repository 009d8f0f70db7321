"""How `swap` fuses the layers of SpikingEDN, with layers written here."""

import copy
import math
import sys

import pytest
import torch
from torch import nn

from deal_kernels.compat import handwritten, norms, spikingedn, swap
from deal_kernels.compat.fingerprint import fingerprint
from deal_kernels.compat.handwritten import adaptive_tangent, tangent
from deal_kernels.compat.spikingedn import ADAPTIVE, FIXED, Layer, SteppedLayer

HERE = sys.modules[__name__]
Function = torch.autograd.Function
decay, thresh = 0.3, 0.5


def slope(u, h, b):
    return b / 2 / math.tanh(b / 2) / torch.cosh(b * u) ** 2 * ((h > 0) & (h < 1))


class Fire(Function):
    @staticmethod
    def forward(ctx, h, b):
        ctx.save_for_backward(h)
        ctx.b = b
        return (h > thresh).to(h.dtype)

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return grad * slope(h - thresh, h, ctx.b), None


class FireAbove(Function):
    @staticmethod
    def forward(ctx, h, b, threshold):
        ctx.save_for_backward(h, threshold)
        ctx.b = b
        return (h > threshold).to(h.dtype)

    @staticmethod
    def backward(ctx, grad):
        h, threshold = ctx.saved_tensors
        grad = grad * slope(h - threshold, h, ctx.b)
        return grad, None, -grad


class Stepping(nn.Module):
    def __init__(self):
        super().__init__()
        self.mem, self.b, self.act_fun = None, 3, Fire.apply
        self.conv1, self.bn, self.pooling = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(3)

    def fired(self, current, first, share):
        if first or self.mem is None:
            self.mem = torch.zeros_like(current)
        h = self.mem + current
        spikes = self.act_fun(h, self.b)
        self.mem = h * share * (1 - spikes)
        return spikes


class Alone(Stepping):
    def forward(self, x, is_first):
        spikes = self.fired(x, is_first, decay)
        self.sparsity = spikes.sum() / spikes.numel()
        return spikes


class Convolved(Stepping):
    def forward(self, x, is_first):
        return self.fired(self.conv1(x), is_first, decay)


class Normed(Stepping):
    share = 0.6

    def forward(self, x, is_first):
        return self.fired(spikingedn.normed(self, x), is_first, self.share)


class MaybeNormed(Stepping):
    withbn = 0

    def forward(self, x, is_first):
        current = self.conv1(x) if self.training and self.withbn == 0 else spikingedn.normed(self, x)
        return self.fired(current, is_first, decay)


class Pooled(Stepping):
    def forward(self, x, is_first):
        if not is_first and self.mem is None:
            raise TypeError("there is no state")
        return self.fired(self.pooling(x), is_first, decay)


class Adapting(nn.Module):
    def __init__(self):
        super().__init__()
        self.mem, self.a, self.b, self.act_fun, self.thresh, self.beta = None, None, 3.0, FireAbove.apply, 0.3, 0.2
        self.rho = nn.Parameter(torch.tensor([0.2, 0.9, 1.0, 3.0]).reshape(-1, 1, 1))

    def forward(self, x, is_first):
        if is_first:
            self.mem, self.a = torch.zeros_like(x), torch.zeros_like(x)
            self.rho.data.clamp_(0.5, 2.0)
        h = self.mem + x
        spikes = self.act_fun(h, self.b, self.thresh + self.beta * self.a)
        self.mem, self.a = h * decay * (1 - spikes), torch.exp(-1 / self.rho) * self.a + spikes
        return spikes


class Named(Adapting):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x, given):
        current = spikingedn.normed(self, x)
        return current if given["mixed_at_mem"] else Adapting.forward(self, current, given["is_first"])


LAYERS = {
    Alone: Layer(spikingedn.itself, counts=True),
    Convolved: Layer(spikingedn.convolved),
    Normed: Layer(spikingedn.normed, FIXED._replace(beta="self.share")),
    MaybeNormed: Layer(spikingedn.normed_if_wanted),
    Pooled: Layer(spikingedn.pooled, begins=False),
    Adapting: Layer(spikingedn.itself, ADAPTIVE, begins=False, rho=(0.5, 2.0)),
    Named: Layer(spikingedn.normed, ADAPTIVE, begins=False, rho=(0.5, 2.0), named=True),
}
X = torch.randn(6, 2, 4, 7, 5, generator=torch.Generator().manual_seed(0)) * 1.5  # [T, B, C, H, W]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The layers of this file, of any size."""
    monkeypatch.setattr(spikingedn, "SMALLEST", {True: 0, False: 0})
    monkeypatch.setitem(handwritten.SPIKES, fingerprint(Fire.forward, Fire.backward), tangent())
    monkeypatch.setitem(handwritten.SPIKES, fingerprint(FireAbove.forward, FireAbove.backward), adaptive_tangent())
    for kind, layer in LAYERS.items():
        monkeypatch.setitem(spikingedn.LAYERS, fingerprint(kind.forward), layer)
    yield
    handwritten._spike_of_class.cache_clear()


@pytest.fixture
def fused(monkeypatch):
    """The settings of the calls of `alif`."""
    calls = []

    def alif(x, *states, **settings):
        calls.append(settings)
        return real(x, *states, **settings)

    real = spikingedn.alif
    monkeypatch.setattr(spikingedn, "alif", alif)
    return calls


def both(kind, train=True):
    """A layer as it is, and swapped."""
    torch.manual_seed(0)
    layer = kind().train(train)
    again = copy.deepcopy(layer)
    assert [each.note for each in swap(again).replaced] == ["the neuron of SpikingEDN"]
    assert isinstance(again, SteppedLayer) and isinstance(again, kind)
    return layer, again


def when(layer, first):
    return {"is_first": first, "mixed_at_mem": False} if isinstance(layer, Named) else first


def run(layer, x, firsts=(0, 3)):
    """The spikes of all steps, the states after them, and the gradients of x and of the parameters."""
    x = x.clone().requires_grad_()
    spikes = torch.stack([layer(each, when(layer, int(t in firsts))) for t, each in enumerate(x)])
    states = [layer.mem, layer.a] if isinstance(layer, Adapting) else [layer.mem]
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
    loss = (spikes * weights).sum() + sum((0.3 * state).sum() for state in states)
    wanted = [p for p in layer.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, [x, *wanted], allow_unused=True)
    return spikes, states, grads


def check_the_same(layer, again, x=X, firsts=(0, 3)):
    spikes, states, grads = run(layer, x, firsts)
    ours, our_states, our_grads = run(again, x, firsts)
    assert torch.equal(ours, spikes) and 0.05 < spikes.mean() < 0.95
    for state, expected in zip(our_states, states, strict=True):
        assert torch.equal(state, expected)
    of_x, *of_parameters = zip(our_grads, grads, strict=True)
    check_gradients([of_x])
    check_gradients(of_parameters)


def check_gradients(pairs):
    """They agree to 1e-6 of the largest: that of a bias in front of a norm is rounding alone."""
    assert all((grad is None) == (expected is None) for grad, expected in pairs)
    pairs = [(grad, expected) for grad, expected in pairs if grad is not None]
    for grad, expected in pairs:
        assert (grad - expected).abs().max() <= 1e-6 * max(each.abs().max() for _, each in pairs)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_fused_form_has_the_same_spikes_states_and_gradients(kind, train, fused):
    layer, again = both(kind, train)
    check_the_same(layer, again)
    assert len(fused) == len(X)
    assert not hasattr(layer, "sparsity") or torch.equal(layer.sparsity, again.sparsity)
    assert not hasattr(layer, "rho") or torch.equal(layer.rho, again.rho)
    with torch.no_grad():
        for t, each in enumerate(X):
            first = when(layer, t == 0)
            assert torch.equal(layer(each, first), again(each, first))


def test_a_derivative_of_its_window_alone(fused):
    """At 0, 1 and beyond it is 0, and next to them it is not."""
    layer, again = both(Alone)
    edges = torch.tensor([-0.1, 0.0, 1e-9, 1e-3, 0.5, 1 - 1e-7, 1.0, 1.1], requires_grad=True)
    grads = [torch.autograd.grad(each(edges, 1).sum(), edges)[0] for each in (layer, again)]
    assert (grads[1] > 0).tolist() == [False, False, True, True, True, True, False, False]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [Alone, Adapting])
def test_constants_are_read_at_each_call(kind, monkeypatch, fused):
    layer, again = both(kind)
    monkeypatch.setattr(HERE, "decay", 0.8)
    for name, value in (("b", 1.5), ("thresh", 0.6), ("beta", 0.4)):
        for each in (layer, again):
            setattr(each, name, value)
    check_the_same(layer, again)
    assert len(fused) == len(X)


def test_steps_as_written_and_fused_take_turns(fused):
    """A state that either form left is one for the other."""
    layer, again = both(Adapting)
    with torch.no_grad():
        for t, each in enumerate(X):
            expected = layer(each, t == 0)
            assert torch.equal(again(x=each, is_first=t == 0) if t % 2 else again(each, t == 0), expected)
    assert len(fused) == 3


@pytest.mark.parametrize("kind", [Alone, Adapting])
def test_few_neurons_run_as_they_were_written(kind, monkeypatch, fused):
    monkeypatch.setattr(spikingedn, "SMALLEST", {True: X[0].numel() + 1, False: 0})
    layer, again = both(kind)
    check_the_same(layer, again)
    assert fused == []
    with torch.no_grad():
        assert torch.equal(layer(X[0], 1), again(X[0], 1))
    assert len(fused) == 1


def test_other_calls_run_as_they_were_written(monkeypatch, fused):
    layer, again = both(Alone)
    assert torch.equal(again(X[0].double(), 1), layer(X[0].double(), 1))
    again.mem = layer.mem = None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(again(X[0], 1), layer(X[0], 1))
    assert torch.equal(again(X[0], torch.tensor(True)), layer(X[0], True))
    named, named_again = both(Named)
    given = {"is_first": True, "mixed_at_mem": True}
    assert torch.equal(named_again(X[0], given), named(X[0], given))
    for kind in (Pooled, Adapting):
        with pytest.raises(TypeError):
            both(kind)[1](X[0], 0)
    monkeypatch.setattr(HERE, "thresh", 0.4)
    assert torch.equal(again(X[0], 1), layer(X[0], 1))
    assert fused == []


def test_another_batch_needs_a_first_step():
    _, again = both(Alone)
    again(X[0], 1)
    with pytest.raises(ValueError, match="v0 must have the shape of one step"):
        again(X[0][:1], 0)
    assert again(X[0][:1], 1).shape == X[0][:1].shape


def test_why_a_layer_is_left(monkeypatch):
    monkeypatch.setattr(HERE, "thresh", 0.4)
    assert [each.note for each in swap(Alone()).left] == ["thresh is not 0.5, which its derivative is for"]
    other = Adapting()
    other.act_fun = Fire.apply
    assert [each.note for each in swap(other).left] == ["self.act_fun is an unknown spike function"]


def test_names_of_the_layer_stay(fused):
    layer, again = both(Adapting)
    assert list(again.state_dict()) == list(layer.state_dict()) == ["rho"]
    third = copy.deepcopy(again)
    assert torch.equal(third(X[0], 1), layer(X[0], 1)) and len(fused) == 1


def test_a_norm_in_front(monkeypatch):
    """A deferred result is computed for the neuron."""
    monkeypatch.setattr(norms, "SMALLEST", 0)
    layer, again = both(Normed)
    swap(again, norms=True)
    check_the_same(layer, again)
