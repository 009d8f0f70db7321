"""`swap` on SpikingJelly's own neurons, of three versions. tests/peers/install puts them into a folder."""

import copy
import os
import pickle

import pytest
import torch
from torch import nn

from deal_kernels.compat import swap
from deal_kernels.compat.fused import Fused

PEERS = os.environ.get("DEAL_TEST_PEERS")
pytestmark = pytest.mark.skipif(PEERS is None, reason="set DEAL_TEST_PEERS to the folder of tests/peers/install")


def activation_based(spikingjelly, version):
    for name in ("functional", "layer", "neuron", "surrogate"):
        spikingjelly(version, f"spikingjelly.activation_based.{name}")
    return spikingjelly(version, "spikingjelly.activation_based")


@pytest.fixture
def jelly(spikingjelly):
    return activation_based(spikingjelly, "0.0.0.0.14")


@pytest.fixture
def jelly_2(spikingjelly):
    return activation_based(spikingjelly, "2.0.0")


def network(jelly):
    node = jelly.neuron.LIFNode
    return nn.Sequential(
        jelly.layer.Linear(6, 8, step_mode="m"), node(tau=3.0, step_mode="m"), jelly.neuron.QIFNode(step_mode="m")
    )


def test_the_report_names_what_was_replaced_and_what_was_left(jelly):
    model = network(jelly)
    report = swap(model, dry_run=True)
    assert not isinstance(model[1], Fused)
    assert str(report).splitlines() == [
        "1 of 2 neurons replaced",
        "replaced  1  LIFNode",
        "left      2  QIFNode  QIFNode has no fused form",
    ]
    assert swap(model) == report and isinstance(model[1], Fused)
    assert swap(model).replaced == []


def test_everything_else_of_the_module_stays(jelly):
    node = jelly.neuron.ParametricLIFNode(init_tau=3.0, step_mode="m", store_v_seq=True)
    calls, w, keys = [], node.w, list(node.state_dict())
    node.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(4, 2, 6)
    with torch.no_grad():
        node(x)
    v, before = node.v, copy.deepcopy(node)
    model = nn.Sequential(node)
    swap(model)
    assert model[0] is node and isinstance(node, jelly.neuron.ParametricLIFNode)
    assert node.w is w and list(node.state_dict()) == keys and node.v is v
    assert torch.equal(node(x), before(x)) and len(calls) == 3  # the copy has the hook, too
    assert torch.equal(node.v_seq, before.v_seq)
    jelly.functional.set_step_mode(model, "s")
    assert torch.equal(node(x[0]), before(x[0][None])[0])
    jelly.functional.reset_net(model)
    assert node.v == 0.0 and node.v_seq is None


def test_settings_can_change_after_the_swap(jelly):
    theirs = jelly.neuron.LIFNode(step_mode="m")
    ours = copy.deepcopy(theirs)
    swap(ours)
    for node in (theirs, ours):
        node.v_threshold, node.tau, node.surrogate_function = 0.4, 3.0, jelly.surrogate.ATan()
    x = torch.randn(5, 3, 7, requires_grad=True)
    gradients = [torch.autograd.grad(node(x).sum(), x)[0] for node in (theirs, ours)]
    torch.testing.assert_close(*gradients)
    ours.surrogate_function.spiking = False
    jelly.functional.reset_net(ours)
    assert set(ours(x).detach().unique().tolist()) - {0.0, 1.0}  # the smooth function, by SpikingJelly's own code


def test_another_shape_starts_anew(jelly):
    node = jelly.neuron.LIFNode(step_mode="m")
    swap(node)
    node(torch.ones(3, 2, 6))
    x = torch.randn(3, 5, 6)
    assert torch.equal(node(x), jelly.neuron.LIFNode(step_mode="m")(x))


def test_subclasses(jelly):
    class Renamed(jelly.neuron.LIFNode):
        def __init__(self):
            super().__init__(tau=4.0, step_mode="m")

        def describe(self):
            return "mine"

    class Another(jelly.neuron.LIFNode):
        def neuronal_charge(self, x):
            self.v = self.v + x

    model = nn.ModuleList([Renamed(), Another()])
    report = swap(model)
    assert [each.kind for each in report.replaced] == ["Renamed"] and model[0].describe() == "mine"
    assert [each.note for each in report.left] == ["Another overrides neuronal_charge"]
    again = copy.deepcopy(model[0])
    assert isinstance(again, Fused) and again.tau == 4.0


def test_pickle(jelly):
    node = jelly.neuron.LIFNode(tau=3.0, step_mode="m")
    swap(node)
    again, x = pickle.loads(pickle.dumps(node)), torch.randn(4, 2, 6)
    assert isinstance(again, Fused) and torch.equal(again(x), node(x))


def test_surrogates(jelly):
    nodes = [
        jelly.neuron.LIFNode(surrogate_function=each)
        for each in (jelly.surrogate.Sigmoid(spiking=False), lambda u: (u >= 0).float(), lambda u: u.clamp(0, 1))
    ]
    report = swap(nn.ModuleList(nodes))
    assert [each.name for each in report.replaced] == ["1"]
    assert "spiking=False" in report.left[0].note and "not a step function" in report.left[1].note


def test_input_of_whole_numbers_runs_as_in_the_library(jelly_2):
    kinds = "IFNode", "LIFNode", "ParametricLIFNode", "ILIFNode", "HalfThresholdIFNode", "SLTTLIFNode", "OTTTLIFNode"
    theirs = nn.ModuleList(getattr(jelly_2.neuron, kind)() for kind in kinds)
    ours = copy.deepcopy(theirs)
    assert len(swap(ours).replaced) == len(kinds)
    for pair in zip(theirs, ours, strict=True):
        for _ in range(2):
            torch.testing.assert_close(*(node(torch.tensor([[0, 1, 3]])) for node in pair), rtol=0, atol=0)
        torch.testing.assert_close(*(node.v for node in pair), rtol=0, atol=0)
