"""How `swap` recognises neurons that networks wrote themselves, with neurons written here."""

import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from deal_kernels.compat import handwritten, norms, swap
from deal_kernels.compat.fingerprint import fingerprint
from deal_kernels.compat.handwritten import HARD, SOFT, Handwritten, Written
from deal_kernels.surrogate import ATan

HERE = sys.modules[__name__]
LEAK, LIMIT, RADIUS, STEPS = 0.2, 0.7, 0.4, 5
Function = torch.autograd.Function


class Fire(Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return (h > LIMIT).to(h.dtype)

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return grad * ((h - LIMIT).abs() < RADIUS) / (2 * RADIUS)


class Other(Function):
    @staticmethod
    def forward(ctx, h):
        return (h > LIMIT).to(h.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Scaled(Function):
    @staticmethod
    def forward(ctx, u, width):
        ctx.save_for_backward(u)
        ctx.width = width
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (1 - u.abs() / ctx.width).relu() / ctx.width, None


class Count(nn.Module):
    class Rounding(Function):
        @staticmethod
        def forward(ctx, h):
            ctx.save_for_backward(h)
            return h.clamp(0, 3).round()

        @staticmethod
        def backward(ctx, grad):
            (h,) = ctx.saved_tensors
            return grad * (h >= 0) * (h <= 3)

    def forward(self, h):
        return self.Rounding.apply(h)


fire = Fire.apply


class Leaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.smooth = False

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for t in range(STEPS):
            v = v * LEAK + x[t]
            s = v.sigmoid() if self.smooth else fire(v)
            v = v * (1 - s.detach())
            spikes.append(s)
        return torch.stack(spikes)


class SameLeaky(nn.Module):
    """The same source to a hash."""

    smooth = False

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        """With other names, types and comments."""
        state, out = torch.zeros_like(current[0]), []
        for step in range(STEPS):
            state: torch.Tensor = state * LEAK + current[step]  # charge
            fired = (
                state.sigmoid()
                if self.smooth
                else fire(state)
            )  # fmt: skip
            state = state * (1 - fired.detach())
            out.append(fired)
        return torch.stack(out)


class ChangedLeaky(nn.Module):
    smooth = False

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for t in range(STEPS):
            v = v * LEAK + x[t]
            s = v.sigmoid() if self.smooth else fire(v)
            v = v - s.detach()
            spikes.append(s)
        return torch.stack(spikes)


class BatchFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.limit, self.leak, self.width, self.fire = 0.8, 0.6, 1.5, Scaled.apply

    def forward(self, x):
        v, spikes = torch.zeros_like(x[:, 0]), []
        for current in x.unbind(1):
            v = v * self.leak + current
            s = self.fire(v - self.limit, self.width)
            v = v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes, 1)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.count = Count()

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v * LEAK + current
            s = self.count(v)
            v = v - s.detach()
            spikes.append(s)
        return torch.stack(spikes)


class Once(nn.Module):
    def __init__(self):
        super().__init__()
        self.count = Count()

    def forward(self, x):
        return self.count(x)


SPIKES = {
    (Fire.forward, Fire.backward): handwritten.rectangle("LIMIT", "RADIUS"),
    (Scaled.forward, Scaled.backward): handwritten.triangle(),
    (Count.forward, Count.Rounding.forward, Count.Rounding.backward): handwritten.levels(3),
}
NEURONS = {
    Leaky: Written("A", "fire", "rectangle", "LEAK", HARD, steps="STEPS", off=("self.smooth",)),
    BatchFirst: Written(
        "B", "self.fire", "triangle", "self.leak", {"v_reset": 0.0}, threshold="self.limit", width="self.width", axis=1
    ),
    Counting: Written("C", "self.count", "levels", "LEAK", SOFT),
    Once: Written("D", "self.count", "levels", "LEAK", SOFT, axis=None),
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The neurons of this file, among those that swap knows."""
    for functions, spike in SPIKES.items():
        monkeypatch.setitem(handwritten.SPIKES, fingerprint(*functions), spike)
    for kind, written in NEURONS.items():
        monkeypatch.setitem(handwritten.NEURONS, fingerprint(kind.forward), written)
    yield
    handwritten._spike_of_class.cache_clear()


@pytest.fixture
def fused(monkeypatch):
    """The settings of the calls of `lif`."""
    calls = []

    def lif(x, **settings):
        calls.append(settings)
        return real(x, **settings)

    real = handwritten.lif
    monkeypatch.setattr(handwritten, "lif", lif)
    return calls


def check_the_same(neuron, original, fused, x):
    """Same spikes and gradients, in one call of the kernel."""
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes, expected = neuron(ours), original(theirs)
    assert len(fused) == 1
    assert torch.equal(spikes, expected) and spikes.is_contiguous()
    assert 0.05 < (expected > 0).float().mean() < 0.95
    cotangent = torch.randn_like(expected)
    spikes.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", [*NEURONS, SameLeaky])
def test_the_fused_form_has_the_same_spikes_and_gradients(kind, train, fused):
    neuron = kind().train(train)
    original = copy.deepcopy(neuron)
    report = swap(neuron)
    assert [each.note for each in report.replaced] == [f"the neuron of {NEURONS.get(kind, NEURONS[Leaky]).network}"]
    assert isinstance(neuron, Handwritten) and isinstance(neuron, kind)
    check_the_same(neuron, original, fused, torch.randn(STEPS, STEPS, 7, 3) * 2)


@pytest.mark.parametrize(("name", "value"), [("LEAK", 0.9), ("LIMIT", 0.1), ("RADIUS", 2), ("STEPS", 3)])
def test_constants_are_read_at_each_call(name, value, monkeypatch, fused):
    neuron = Leaky()
    swap(neuron)
    monkeypatch.setattr(HERE, name, value)
    check_the_same(neuron, Leaky(), fused, torch.randn(STEPS, 7, 3))


@pytest.mark.parametrize(("name", "value"), [("leak", 0.9), ("limit", 0.1), ("width", 2)])
def test_so_are_those_of_the_neuron(name, value, fused):
    neuron, original = BatchFirst(), BatchFirst()
    swap(neuron)
    setattr(neuron, name, value)
    setattr(original, name, value)
    check_the_same(neuron, original, fused, torch.randn(4, 6, 7))


@pytest.mark.parametrize("name", ["leak", "limit", "width"])
def test_a_learnt_constant_is_no_number(name):
    neuron = BatchFirst()
    delattr(neuron, name)
    setattr(neuron, name, nn.Parameter(torch.ones(())))
    assert [each.note for each in swap(neuron).left] == [f"self.{name} is no number"]


@pytest.mark.parametrize(
    ("x", "changes"),
    [
        (torch.randn(STEPS, 4, dtype=torch.float64), {}),
        (torch.randn(STEPS, 4, dtype=torch.bfloat16), {}),
        (torch.randn(STEPS + 2, 4), {}),
        (torch.randn(STEPS, 4), {"LEAK": torch.tensor(0.5)}),
        (torch.randn(STEPS, 4), {"RADIUS": -1.0}),
        (torch.randn(STEPS, 4), {"fire": Other.apply}),
        (torch.randn(STEPS, 4), {"fire": ATan().spike}),
    ],
)
def test_other_calls_run_as_they_were_written(x, changes, monkeypatch, fused):
    neuron = Leaky()
    swap(neuron)
    for name, value in changes.items():
        monkeypatch.setattr(HERE, name, value)
    assert torch.equal(neuron(x), Leaky()(x)) and fused == []


def test_a_switch_is_read_at_each_call(fused):
    neuron, original, x = Leaky(), Leaky(), torch.randn(STEPS, 4)
    swap(neuron)
    neuron.smooth = original.smooth = True
    assert torch.equal(neuron(x), original(x)) and fused == []
    neuron.smooth = original.smooth = False
    assert torch.equal(neuron(x=x), original(x)) and fused == []
    assert torch.equal(neuron(x), original(x)) and len(fused) == 1


def test_hooks_of_the_spike_function_are_called(fused):
    neuron, seen = Counting(), []
    swap(neuron)
    neuron.count.register_forward_hook(lambda module, inputs, spikes: seen.append(spikes))
    spikes = neuron(torch.randn(STEPS, 4))
    assert torch.equal(torch.stack(seen), spikes) and fused == []


def test_another_source_is_another_neuron():
    report = swap(nn.Sequential(ChangedLeaky(), nn.Linear(3, 3)))
    assert report.replaced == report.left == []


def refused(neuron):
    report = swap(neuron)
    assert report.replaced == [] and not isinstance(neuron, Handwritten)
    return [each.note for each in report.left]


def test_why_a_neuron_is_left(monkeypatch):
    class Calling(Leaky):
        def __call__(self, x):
            return super().__call__(x) * 2

    patched, smooth = Leaky(), Leaky()
    patched.forward = lambda x: x
    smooth.smooth = True
    assert refused(Calling()) == ["Calling overrides __call__"]
    assert refused(patched) == ["its forward is its own, not that of its class"]
    assert refused(smooth) == ["self.smooth is True"]
    monkeypatch.setattr(HERE, "fire", Other.apply)
    assert refused(Leaky()) == ["fire is an unknown spike function"]
    monkeypatch.delattr(HERE, "fire")
    assert refused(Leaky()) == ["fire does not exist"]


def test_a_known_spike_function_must_belong_to_the_neuron(monkeypatch):
    monkeypatch.setattr(HERE, "fire", Count())
    assert refused(Leaky()) == ["fire is an unknown spike function"]


def test_constants_in_an_enclosing_function(monkeypatch, fused):
    leak = 0.5

    class Enclosed(nn.Module):
        def forward(self, x):
            v, spikes = torch.zeros_like(x[0]), []
            for current in x:
                v = v * leak + current
                s = fire(v)
                v = v * (1 - s.detach())
                spikes.append(s)
            return torch.stack(spikes)

    written = Written("E", "fire", "rectangle", "leak")
    monkeypatch.setitem(handwritten.NEURONS, fingerprint(Enclosed.forward), written)
    neuron = Enclosed()
    swap(neuron)
    leak = 0.75
    check_the_same(neuron, Enclosed(), fused, torch.randn(4, 7, 3))
    assert fused[0]["beta"] == 0.75


def test_copies_and_the_state_dict(fused):
    model = nn.Sequential(nn.Linear(3, 3), Leaky(), Counting())
    before = list(model.state_dict())
    assert len(swap(model).replaced) == 2 and list(model.state_dict()) == before
    x = torch.randn(STEPS, 4, 3)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
    assert len(fused) == 6


def test_a_compiled_neuron_runs_as_it_was_written_and_notices_changes(monkeypatch, fused):
    neuron, x = Leaky(), torch.randn(STEPS, 4)
    swap(neuron)
    compiled = torch.compile(neuron, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), Leaky()(x))
    monkeypatch.setattr(HERE, "LEAK", 0.9)
    assert torch.equal(compiled(x), Leaky()(x)) and fused == []


@pytest.mark.parametrize("kind", [Leaky, BatchFirst, Counting])
def test_a_norm_in_front(kind, monkeypatch):
    monkeypatch.setattr(norms, "SMALLEST", 0)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.neuron = nn.BatchNorm2d(4), kind()

        def forward(self, x):
            return self.neuron(self.norm(x.flatten(0, 1)).view(x.shape))

    network, x = Network(), torch.randn(STEPS, STEPS, 4, 3, 2)
    again = copy.deepcopy(network)
    report = swap(again, norms=True)
    spikes, ours = network(x), again(x)
    assert report.norms[0].uses.fused == 1 and spikes.mean() > 0 and (spikes != ours).float().mean() < 0.01
    torch.testing.assert_close(again.norm.running_var, network.norm.running_var)
