"""`swap` on neurons like snnTorch's; and on snnTorch's own, which tests/peers/install puts into a folder."""

import itertools
import math
import pickle

import foreign_neurons
import pytest
import torch
from foreign_neurons import Lapicque, Leaky, Step, Synaptic, bell
from torch import nn

from deal_kernels.compat import over_time, swap, swapping
from deal_kernels.compat.fused import Derivative, Fused
from deal_kernels.compat.snntorch import surrogates
from deal_kernels.compat.snntorch import swap as snntorch
from deal_kernels.surrogate import ATan, FastSigmoid, StraightThrough

T, B, N = 7, 3, 5


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for name in ("Leaky", "Lapicque", "Synaptic"):
        monkeypatch.setitem(swapping.ADAPTERS, f"{foreign_neurons.__name__}.{name}", getattr(snntorch, name))


def pair(kind, *arguments, **named):
    """A neuron, and the same one swapped."""
    neuron, other = kind(*arguments, **named), kind(*arguments, **named)
    assert len(swap(other).replaced) == 1 and isinstance(other, Fused)
    return neuron, other


def run(neuron, inputs, passed):
    """What the neuron returns at all steps; with `passed`, its state goes through the caller's hands."""
    results, states = [], ()
    for x in inputs:
        found = neuron(x, *states)
        found = found if isinstance(found, tuple) else (found,)
        states = found[1:] if passed else ()
        results.append(found)
    return [torch.stack(each) for each in zip(*results, strict=True)]


def agree(neuron, other, x, passed=False, tolerance=3e-6):
    found = []
    for each in (neuron, other):
        inputs = x.clone().requires_grad_()
        outputs = run(each, inputs, passed)
        total = sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outputs)
        parameters = [p for p in each.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, [inputs, *parameters], allow_unused=True)
        found.append((outputs, gradients))
    (outputs, gradients), (ours, our_gradients) = found
    for mine, theirs in zip(ours, outputs, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    for mine, theirs in zip(our_gradients, gradients, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1)


RESETS = [each for each in itertools.product(("subtract", "zero", "none"), (True, False)) if each != ("zero", False)]


@pytest.mark.parametrize(("reset", "delay"), RESETS)
@pytest.mark.parametrize("form", [{}, {"init_hidden": True}, {"init_hidden": True, "output": True}])
@pytest.mark.parametrize("learnt", [True, False])
@pytest.mark.parametrize("shape", [(), (N,), (B, 1), (B, N)])
def test_leaky(reset, delay, form, learnt, shape):
    torch.manual_seed(0)
    values = {"threshold": torch.rand(shape) * 0.5 + 0.5, "graded_spikes_factor": 0.7}
    settings = {"reset_mechanism": reset, "reset_delay": delay, "learnt": learnt, **form}
    neuron, other = pair(Leaky, torch.rand(shape) * 0.4 + 0.5, **values, **settings)
    agree(neuron, other, torch.randn(T, B, N) * 1.5, passed=not form)
    assert other.own_steps == 0


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize(("R", "C", "time_step"), [(1, 9.5, 1), (5, 3, 1), (2.0, 3.0, 0.5)])
def test_lapicque(reset, R, C, time_step):
    torch.manual_seed(0)
    neuron, other = pair(Lapicque, R, C, time_step, reset_mechanism=reset, threshold=0.4)
    agree(neuron, other, torch.randn(T, B, N) * 4, passed=True)
    assert other.own_steps == 0


@pytest.mark.parametrize(("reset", "delay"), RESETS)
@pytest.mark.parametrize("shape", [(), (N,), (B, N)])
def test_synaptic(reset, delay, shape):
    torch.manual_seed(0)
    settings = {"reset_mechanism": reset, "reset_delay": delay, "learnt": True}
    alpha, beta, threshold = torch.rand(shape), torch.rand(()), torch.rand(shape) + 0.5
    neuron, other = pair(Synaptic, alpha, beta, threshold=threshold, **settings)
    agree(neuron, other, torch.randn(T, B, N) * 1.5, passed=True)
    assert other.own_steps == 0
    other(torch.randn(B, N).half())
    assert other.own_steps == 1  # its current stays in half precision


@pytest.mark.parametrize("shape", [(), (6,), (2, 4, 4, 4), (2, 4, 3, 5)])
def test_parameters_broadcast_from_the_right(shape):
    """A vector is one value per position of the last dimension, not per channel."""
    torch.manual_seed(0)
    for p in {(), shape[-1:], (*shape[1:2], 1, 1), shape}:
        if len(p) <= len(shape):
            neuron, other = pair(Leaky, torch.rand(p) * 0.9, threshold=torch.rand(p) + 0.3, learnt=True)
            agree(neuron, other, torch.randn(T, *shape) * 1.5, passed=True)
            assert other.own_steps == 0


def test_a_parameter_larger_than_the_input_needs_the_own_step():
    neuron, other = pair(Leaky, torch.full((B, N), 0.5))
    x = torch.randn(2, N)
    for step in x:
        assert torch.equal(other(step)[0], neuron(step)[0])
    assert other.own_steps == 2 and other.mem.shape == (B, N)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("reset", "delay"), RESETS)
def test_dtypes(dtype, tolerance, reset, delay):
    """Spikes are float32 whatever the input is, and so is the gradient that passes through them."""
    torch.manual_seed(0)
    neuron, other = pair(Leaky, 0.9, reset_mechanism=reset, reset_delay=delay, graded_spikes_factor=0.7)
    agree(neuron, other, torch.randn(T, B, N).to(dtype), passed=True, tolerance=tolerance)
    own = T if dtype != torch.float64 and reset == "none" else 0  # its state stays in half precision
    assert other.own_steps == own


def test_a_state_of_another_dtype_or_whole_numbers_need_the_own_step():
    neuron, other = pair(Leaky, 0.9)
    for x, mem in ((torch.randn(B, N), torch.rand(B, N).double()), (torch.ones(B, N, dtype=torch.int64), None)):
        for mine, theirs in zip(other(x, mem), neuron(x, mem), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert other.own_steps == 2


def test_a_state_of_another_shape_starts_anew():
    neuron, other = pair(Leaky, 0.9, init_hidden=True)
    for x in (torch.randn(B, N), torch.randn(B, N), torch.randn(2, N)):
        assert torch.equal(other(x), neuron(x)) and torch.equal(other.mem, neuron.mem)


def test_a_neuron_that_keeps_its_state_refuses_one_but_has_stored_it():
    _, other = pair(Leaky, 0.9, init_hidden=True)
    mem = torch.rand(B, N)
    with pytest.raises(TypeError, match="keeps mem; they cannot be passed"):
        other(torch.randn(B, N), mem)
    assert other.mem is mem


def test_surrogate_disable_has_no_gradient_of_spikes():
    neuron, other = pair(Leaky, 0.9, surrogate_disable=True, learnt=True, graded_spikes_factor=0.7)
    agree(neuron, other, torch.randn(T, B, N), passed=True)
    neuron, other = pair(Leaky, 0.9, surrogate_disable=True)
    assert not other(torch.randn(B, N, requires_grad=True))[0].requires_grad


def test_any_spike_function_can_be_used_and_changed():
    neuron, other = pair(Leaky, 0.9, spike_grad=bell)
    agree(neuron, other, torch.randn(T, B, N), passed=True)
    neuron.spike_grad = other.spike_grad = foreign_neurons.spike
    agree(neuron, other, torch.randn(T, B, N), passed=True)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        return (u > 0).float()

    @staticmethod
    def backward(ctx, grad):
        return grad**2


class Learnt(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = nn.Parameter(torch.ones(()))

    def forward(self, u):
        return Step.apply(u, lambda u: self.width / (1 + u.abs()))


def broken(u, missing):
    return u


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"inhibition": True}, "inhibition lets one neuron of a layer fire"),
        ({"state_quant": lambda v: v}, "its state is quantised"),
        ({"reset_mechanism": "zero", "reset_delay": False}, "'zero' with reset_delay=False has no fused form"),
        ({"spike_grad": torch.sigmoid}, "sigmoid is not a step function"),
        ({"spike_grad": broken}, "its spike_grad broken is not a step function"),
        ({"spike_grad": Squared.apply}, "does not multiply gradients by a function of the potential alone"),
        ({"spike_grad": Learnt()}, "its spike_grad Learnt has parameters"),
        ({"spike_grad": lambda u: Step.apply(u, torch.rand_like)}, "does not multiply gradients by a function"),
    ],
)
def test_what_is_left(settings, reason):
    neuron = Leaky(0.9, **settings)
    report = swap(nn.Sequential(neuron))
    assert report.replaced == [] and reason in report.left[0].note and type(neuron) is Leaky


def test_settings_that_change_after_the_swap():
    neuron, other = pair(Leaky, 0.9, reset_delay=False)
    for each in (neuron, other):
        each.reset_mechanism_val = torch.tensor(1)  # half of the reset is another one now
    agree(neuron, other, torch.randn(T, B, N), passed=True)
    assert other.own_steps == T
    other.inhibition = True
    other(torch.randn(B, N))
    assert other.own_steps == T + 1


def closure(maker, **values):
    """A spike function that looks like one of snnTorch's."""
    value = next(iter(values.values()), None)

    def inner(u):
        return u if value is None else value

    inner.__qualname__, inner.__module__ = f"{maker}.<locals>.inner", "snntorch.surrogate"
    return inner


def test_surrogates_of_the_library_are_those_of_the_kernels():
    assert surrogates.formula(closure("atan", alpha=3.0)) == ATan(3.0)
    assert surrogates.formula(closure("fast_sigmoid", slope=25)) == FastSigmoid(25, 1.0)
    assert surrogates.formula(closure("atan", alpha=torch.tensor(2.0))) is None
    assert surrogates.formula(closure("atan", alpha=-1.0)) is None
    assert surrogates.formula(closure("SSO", mean=1.0)) is None
    assert surrogates.formula(bell) is None
    bare = closure("straight_through_estimator")
    bare.__closure__[0].cell_contents = 1.0
    assert surrogates.formula(bare) == StraightThrough()
    found = surrogates.spike_settings(bell)
    assert isinstance(found["surrogate"], Derivative) and found["fire"] == "gt"


class Network(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.a, self.first = nn.Linear(4, N), Leaky(0.9, init_hidden=True, **settings)
        self.b, self.second = nn.Linear(N, 3), Leaky(0.8, learnt=True, **settings)

    def forward(self, x, mem):
        return self.second(self.b(self.first(self.a(x))), mem)


@pytest.mark.parametrize(("reset", "delay"), RESETS)
@pytest.mark.parametrize("held", [True, False])
def test_over_time(reset, delay, held):
    torch.manual_seed(0)
    network = Network(reset_mechanism=reset, reset_delay=delay)
    other = Network(reset_mechanism=reset, reset_delay=delay)
    other.load_state_dict(network.state_dict())
    fast = over_time(other, exact=True)
    for _ in range(2):
        x, mem, spikes = torch.randn(*([] if held else [T]), B, 4) * 3, torch.zeros(0), []
        for step in [x] * T if held else x:
            spike, mem = network(step, mem)
            spikes.append(spike)
        found, last = fast(x, torch.zeros(0), steps=T) if held else fast(x, torch.zeros(0))
        assert torch.equal(found, torch.stack(spikes)) and torch.equal(last, mem)
        assert torch.equal(other.first.mem, network.first.mem)
    assert other.first.own_steps == other.second.own_steps == 0


def test_membranes_over_time():
    layers = lambda: nn.Sequential(Leaky(0.9, init_hidden=True, output=True))  # noqa: E731
    network, fast = layers(), over_time(layers())
    x = torch.randn(T, B, N)
    spikes, mem = fast(x)
    expected = run(network[0], x, False)
    assert torch.equal(spikes, expected[0]) and torch.equal(mem, expected[1])


def test_a_reset_that_also_clears_the_input_runs_step_by_step():
    layers = lambda: nn.Sequential(Lapicque(5, 3, init_hidden=True, reset_mechanism="zero", threshold=0.4))  # noqa: E731
    network, fast = layers(), over_time(layers())
    x = torch.randn(T, B, N) * 4
    assert torch.equal(fast(x), run(network[0], x, False)[0])
    assert torch.equal(fast(x[0], steps=T), run(network[0], x[:1].expand(T, B, N), False)[0])


def atan(alpha):
    """A spike function as snnTorch makes it."""

    def inner(u):
        return Step.apply(u, lambda u: alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2))

    inner.__qualname__, inner.__module__ = "atan.<locals>.inner", "snntorch.surrogate"
    return inner


def test_a_known_spike_function_has_the_gradients_of_the_library():
    neuron, other = pair(Leaky, 0.9, spike_grad=atan(3.0), learnt=True)
    assert other.firing()["surrogate"] == ATan(3.0)
    agree(neuron, other, torch.randn(T, B, N), passed=True)


@pytest.mark.skipif(torch.__version__.startswith("2.9."), reason="its compiler takes no name of a method as a key")
def test_a_step_compiles_as_one_graph():
    neuron, other = pair(Leaky, 0.9, spike_grad=atan(2.0), learnt=True)
    found = torch.compile(other, fullgraph=True, backend="eager")(torch.ones(B, N))
    for mine, theirs in zip(found, neuron(torch.ones(B, N)), strict=True):
        assert torch.equal(mine, theirs)


def test_it_can_be_pickled():
    _, other = pair(Leaky, 0.9)
    again = pickle.loads(pickle.dumps(other))
    x = torch.randn(B, N)
    assert isinstance(again, Fused) and torch.equal(again(x)[0], other(x)[0])
