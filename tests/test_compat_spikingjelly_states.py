"""`swap` on SpikingJelly's neurons with two states and on its parallel ones, of version 2.0.0.

tests/peers/install puts it into a folder; the grid of settings is in tests/peers.
"""

import copy
import functools
import os

import pytest
import torch
from torch import nn

from deal_kernels.compat import over_time, swap
from deal_kernels.compat.spikingjelly import multistate, psn

pytestmark = pytest.mark.skipif(
    os.environ.get("DEAL_TEST_PEERS") is None, reason="set DEAL_TEST_PEERS to the folder of tests/peers/install"
)


@pytest.fixture
def jelly(spikingjelly):
    for name in ("functional", "layer", "neuron", "surrogate"):
        spikingjelly("2.0.0", f"spikingjelly.activation_based.{name}")
    return spikingjelly("2.0.0", "spikingjelly.activation_based")


@pytest.fixture
def fused(monkeypatch):
    """The names of the kernels that were called."""
    calls = []

    def counted(function):
        @functools.wraps(function)
        def counted(*args, **named):
            calls.append(function.__name__)
            return function(*args, **named)

        return counted

    for module, names in ((multistate, ("cuba", "clif")), (psn, ("psn", "sliding_psn"))):
        for name in names:
            monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return calls


def current(jelly, **settings):
    node = jelly.neuron.CUBALIFNode(**settings)
    node.step_mode = "m"
    return node


def pair(node):
    other = copy.deepcopy(node)
    assert len(swap(other).replaced) == 1
    return node, other


def test_the_report(jelly):
    never = lambda u: (u > 0).to(u)  # noqa: E731
    model = nn.Sequential(
        jelly.neuron.CUBALIFNode(), jelly.neuron.ComplementaryLIFNode(), jelly.neuron.PSN(4),
        jelly.neuron.MaskedPSN(2, 4), jelly.neuron.SlidingPSN(2), jelly.neuron.PSN(4, never),
        jelly.neuron.PSN(4, jelly.surrogate.ATan(spiking=False)),
    )  # fmt: skip
    keys = list(model.state_dict())
    report = swap(model)
    assert [each.kind for each in report.replaced] == [
        "CUBALIFNode", "ComplementaryLIFNode", "PSN", "MaskedPSN", "SlidingPSN"
    ]  # fmt: skip
    assert "sigmoid" in report.replaced[1].note and "single steps" in report.replaced[3].note
    assert "does not fire at its threshold" in report.left[0].note and "spiking=False" in report.left[1].note
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("kernel", ["cuba", "clif"])
def test_the_state_goes_on_through_both_step_modes(jelly, fused, kernel):
    theirs, ours = pair(current(jelly) if kernel == "cuba" else jelly.neuron.ComplementaryLIFNode(step_mode="m"))
    x = torch.randn(6, 4, 8)
    for mode, some in (("m", x[:3]), ("s", x[3]), ("s", x[4]), ("m", x[5:])):
        theirs.step_mode = ours.step_mode = mode
        assert torch.equal(ours(some), theirs(some))
        for mine, other in zip(ours.memories(), theirs.memories(), strict=True):
            assert torch.equal(mine, other)
    assert fused == [kernel] * 4
    assert torch.equal(ours(x[:2, :3]), theirs(x[:2, :3]))  # another shape starts anew
    jelly.functional.reset_net(ours)
    assert list(ours.memories()) == [0.0, 0.0]


def test_v_seq_is_computed_when_it_is_asked_for(jelly, fused):
    theirs, ours = pair(current(jelly, v_reset=None))
    theirs.store_v_seq = ours.store_v_seq = True
    x = torch.randn(5, 2, 3)
    assert torch.equal(ours(x), theirs(x)) and fused == ["cuba"]
    assert torch.equal(ours.v_seq, theirs.v_seq) and fused == ["cuba", "cuba"]


def test_calls_that_no_kernel_has_are_the_librarys(jelly, fused):
    x = torch.randn(4, 2, 8)
    for name, value in (("c_decay", torch.rand(8)), ("v_threshold", torch.rand(8)), ("v_decay", torch.tensor(0.3))):
        theirs, ours = pair(current(jelly))
        setattr(theirs, name, value)
        setattr(ours, name, value)
        assert torch.equal(ours(x), theirs(x))
    slope = jelly.surrogate.ATan()
    theirs, ours = pair(jelly.neuron.ComplementaryLIFNode(surrogate_function=slope, step_mode="m"))
    theirs.surrogate_function.spiking = ours.surrogate_function.spiking = False
    assert torch.equal(ours(x), theirs(x))
    theirs, ours = pair(jelly.neuron.SlidingPSN(2))
    for step in x:
        assert torch.equal(ours(step), theirs(step))
    for mine, other in zip(ours.queue, theirs.queue, strict=True):
        assert torch.equal(mine, other)
    _, ours = pair(jelly.neuron.PSN(4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ours(x[:3])
    assert fused == []


def test_half_precision(jelly, fused):
    for node in (current(jelly), jelly.neuron.ComplementaryLIFNode(step_mode="m"), jelly.neuron.PSN(4).bfloat16()):
        theirs, ours = pair(node)
        x = torch.randn(4, 2, 8).bfloat16()
        spikes = ours(x)
        assert spikes.dtype == torch.bfloat16 and (spikes == theirs(x)).float().mean() > 0.9
    assert fused == ["cuba", "clif", "psn"]


def test_a_mask_that_is_sharpened_after_the_swap(jelly, fused):
    theirs, ours = pair(jelly.neuron.MaskedPSN(2, 6, step_mode="m"))
    x = torch.randn(6, 3, 5)
    for share in (0.0, 0.5, 1.0):
        theirs.lambda_ = ours.lambda_ = share
        assert torch.equal(ours(x), theirs(x))
    assert fused == ["psn"] * 3
    ours(x).sum().backward()
    band = torch.ones(6, 6).tril().triu(-1)
    assert not ours.weight.grad[band == 0].any() and ours.weight.grad[band == 1].all()


def test_over_time(jelly, fused):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 8)
            self.first, self.second = jelly.neuron.CUBALIFNode(), jelly.neuron.ComplementaryLIFNode()

        def forward(self, x):
            return self.second(self.first(self.a(x)))

    theirs = Network()
    ours = over_time(copy.deepcopy(theirs), exact=True)
    x = torch.randn(5, 4, 6)
    assert torch.equal(ours(x), torch.stack([theirs(step) for step in x])) and fused == ["cuba", "clif"]
