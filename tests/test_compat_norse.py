"""`swap` on neurons like Norse's; and on Norse's own, which tests/peers/install puts into a folder."""

import foreign_neurons
import pytest
import torch
from foreign_neurons import FUNCTIONAL, IAF, BoxState, IAFCell, IAFState, LIFBoxCell, LIFCell, LSNNCell, Parameters
from torch import nn

from deal_kernels.compat import norse, over_time, swap, swapping
from deal_kernels.compat.fused import Fused

T, B, N = 7, 3, 5
METHODS = ("super", "tanh", "heaviside")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(norse, "functional", FUNCTIONAL.__getitem__)
    for name in ("IAF", "IAFCell", "LIFBoxCell", "LIFCell", "LSNNCell"):
        monkeypatch.setitem(swapping.ADAPTERS, f"{foreign_neurons.__name__}.{name}", getattr(norse, name))


def pair(kind, p):
    neuron, other = kind(p), kind(p)
    assert len(swap(other).replaced) == 1 and isinstance(other, Fused)
    return neuron, other


def run(neuron, x, state=None):
    """Spikes and the state after each step."""
    if isinstance(neuron, IAF):
        return neuron(x, state)
    results = []
    for step in x:
        z, state = neuron(step, state)
        results.append((z, *(each.expand(step.shape) for each in state)))
    spikes, *states = (torch.stack(each) for each in zip(*results, strict=True))
    return spikes, type(state)(*states)


def agree(neuron, other, x, state=None, learnt=(), tolerance=3e-6):
    found = []
    for each in (neuron, other):
        inputs = x.clone()
        if x.is_floating_point():
            inputs.requires_grad_()
        z, after = run(each, inputs, state)
        total = (z * torch.linspace(-1, 1, z.numel()).view(z.shape)).sum() + sum(each.sin().sum() for each in after)
        wanted = [inputs, *learnt] if x.is_floating_point() else [*learnt]
        found.append((z, after, torch.autograd.grad(total, wanted, allow_unused=True) if wanted else ()))
    (z, after, gradients), (our_z, ours, our_gradients) = found
    assert type(ours) is type(after)
    assert our_z.dtype == z.dtype and torch.equal(our_z, z) and our_z.requires_grad == z.requires_grad
    for mine, theirs in zip(ours, after, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    for mine, theirs in zip(our_gradients, gradients, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1)


def drawn(shape, low, high):
    return torch.rand(shape) * (high - low) + low


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (N,), (B, N)])
@pytest.mark.parametrize("v_reset", [0.0, -0.2])
@pytest.mark.parametrize("learnt", [False, True])
def test_integrate_and_fire(method, shape, v_reset, learnt):
    torch.manual_seed(0)
    v_th = nn.Parameter(drawn(shape, 0.5, 2.0)) if learnt else drawn(shape, 0.5, 2.0)
    p = Parameters(v_th=v_th, v_reset=torch.tensor(v_reset), method=method, alpha=torch.tensor(2.0))
    x = torch.randn(T, B, N)
    for kind in (IAFCell, IAF):
        for state in (None, IAFState(torch.randn(B, N))):
            neuron, other = pair(kind, p)
            agree(neuron, other, x, state, [v_th] if learnt else [])
            assert other.own_steps == 0
    neuron, other = pair(IAF, p)
    neuron.record_states = other.record_states = True
    agree(neuron, other, x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (N,), (B, N)])
@pytest.mark.parametrize("reset", ["reset_value", "reset_subtract"])
@pytest.mark.parametrize("learnt", [False, True])
def test_box(method, shape, reset, learnt):
    torch.manual_seed(0)
    tensors = [drawn(shape, 0.4, 1.0), drawn(shape, 100.0, 300.0), drawn(shape, -0.3, 0.3)]
    tensors = [nn.Parameter(each) for each in tensors] if learnt else tensors
    settings = {"v_reset": torch.tensor(-0.2), "method": method, "reset_method": getattr(FUNCTIONAL["reset"], reset)}
    p = Parameters(**dict(zip(("v_th", "tau_mem_inv", "v_leak"), tensors, strict=True)), **settings)
    for state in (None, BoxState(torch.randn(B, N))):
        neuron, other = pair(LIFBoxCell, p)
        agree(neuron, other, torch.randn(T, B, N) * 4, state, tensors if learnt else [])
        assert other.own_steps == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (N,), (B, N)])
@pytest.mark.parametrize("kind", [LIFCell, LSNNCell])
@pytest.mark.parametrize("learnt", [False, True])
def test_current_based(method, shape, kind, learnt):
    torch.manual_seed(0)
    tensors = {"v_th": drawn(shape, 0.2, 0.5), "tau_mem_inv": drawn(shape, 100.0, 300.0)}
    tensors |= {"tau_syn_inv": drawn(shape, 150.0, 350.0), "tau_adapt_inv": drawn(shape, 20.0, 50.0)}
    tensors = {name: nn.Parameter(each) for name, each in tensors.items()} if learnt else tensors
    settings = {"v_reset": torch.tensor(-0.2), "v_leak": torch.tensor(-0.1), "method": method}
    neuron, other = pair(kind, Parameters(**tensors, **settings))
    used = [tensors[name] for name in tensors if kind is LSNNCell or name != "tau_adapt_inv"] if learnt else []
    agree(neuron, other, torch.randn(T, B, N) * 4, learnt=used)
    assert other.own_steps == 0


@pytest.mark.parametrize(("dtype", "own"), [(torch.float64, 0), (torch.int64, 0), (torch.float16, T)])
def test_dtypes(dtype, own):
    """A state in half precision needs the library's own step."""
    x = (torch.randn(T, B, N) * 3).to(dtype)
    for kind in (IAFCell, LIFBoxCell):
        neuron, other = pair(kind, Parameters(reset_method=FUNCTIONAL["reset"].reset_value))
        agree(neuron, other, x)
        assert other.own_steps == own


def test_states_that_need_the_own_step():
    neuron, other = pair(IAFCell, Parameters())
    x = torch.randn(B, N)
    for v in (torch.randn(2, B, N), torch.randn(B, N).double()):
        for mine, theirs in zip(other(x, IAFState(v)), neuron(x, IAFState(v)), strict=True):
            mine, theirs = (each if isinstance(each, torch.Tensor) else each.v for each in (mine, theirs))
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert other.own_steps == 2


def test_the_state_may_be_of_one_value():
    neuron, other = pair(IAFCell, Parameters())
    agree(neuron, other, torch.randn(T, B, N), IAFState(torch.tensor(0.3)))
    assert other.own_steps == 0


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (IAFCell, {"method": "logistic"}, "method='logistic' has no fused form"),
        (IAFCell, {"v_reset": nn.Parameter(torch.zeros(()))}, "v_reset is learnt or has several values"),
        (IAFCell, {"v_reset": torch.tensor([0.0, 1.0])}, "v_reset is learnt or has several values"),
        (LIFBoxCell, {"reset_method": lambda *_: None}, "its reset_method is not one of Norse"),
    ],
)
def test_what_is_left(kind, changes, reason):
    p = Parameters(**{"reset_method": FUNCTIONAL["reset"].reset_value, **changes})
    assert swap(kind(p)).left[0].note == reason


def test_another_step_is_left():
    neuron = IAFCell(Parameters())
    neuron.activation = foreign_neurons.lif_box_feed_forward_step
    assert swap(neuron).left[0].note == "it computes lif_box_feed_forward_step"


def test_a_v_reset_of_equal_values_is_one_number():
    neuron, other = pair(IAFCell, Parameters(v_reset=torch.full((N,), -0.1)))
    agree(neuron, other, torch.randn(T, B, N))
    assert other.own_steps == 0


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.first, self.b, self.second = (
            nn.Linear(4, N),
            LIFBoxCell(box),
            nn.Linear(N, 3),
            IAFCell(Parameters()),
        )

    def forward(self, x, first=None, second=None):
        z, first = self.first(self.a(x), first)
        z, second = self.second(self.b(z) + first.v.mean(-1, keepdim=True), second)
        return z, first, second


box = Parameters(v_th=torch.tensor(0.3), reset_method=foreign_neurons.reset_value)


def test_over_time():
    torch.manual_seed(0)
    network, other = Network(), Network()
    other.load_state_dict(network.state_dict())
    fast = over_time(other, exact=True)
    x, states, spikes = torch.randn(T, B, 4) * 3, (None, None), []
    for step in x:
        z, *states = network(step, *states)
        spikes.append(z)
    found, *last = fast(x)
    assert torch.equal(found, torch.stack(spikes))
    for mine, theirs in zip(last, states, strict=True):
        assert type(mine) is type(theirs) and torch.equal(mine.v, theirs.v)
    assert other.first.own_steps == other.second.own_steps == 0


def test_a_cell_without_a_state_starts_anew_in_every_step():
    class Forgetting(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = IAFCell(Parameters())

        def forward(self, x):
            return self.cell(x)[0]

    fast = over_time(Forgetting())
    assert torch.equal(fast(torch.full((T, B, N), 0.6)), torch.zeros(T, B, N))
