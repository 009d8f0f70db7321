"""Layers, firing rates, passes and what a monitor leaves behind."""

import gc
import weakref

import pytest
import torch
from monitoring import by_ones, report_of, spikes
from torch import nn
from torch.utils.checkpoint import checkpoint

from deal_kernels.lif import LIF, lif
from deal_kernels.monitor import monitor
from deal_kernels.tdbn import TDBNLIF, SpikingConv, TDBatchNorm2d, tdbn_lif


def network():
    torch.manual_seed(0)
    body = nn.Sequential(TDBNLIF(4, alpha=None), nn.Flatten(0, 1), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 2))
    return nn.ModuleDict({"stem": nn.Conv2d(1, 4, 3, padding=1), "body": body})


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = network()

    def forward(self, x):
        """x [T, B, 1, 6, 6]."""
        return self.parts["body"](self.parts["stem"](x.flatten(0, 1)).unflatten(0, x.shape[:2]))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("train", [True, False])
def test_a_nested_network(context, train):
    model, x = Network().train(train), 8 * torch.rand(3, 2, 1, 6, 6)
    with context():
        fired = nn.Sequential(model.parts["stem"], nn.Unflatten(0, (3, 2)), model.parts["body"][0])(x.flatten(0, 1))
        expected = model(x)
    if train:
        model = Network()
    with context(), monitor(model) as report:
        result = model(x)
    assert torch.equal(result, expected)
    stem, neuron, conv, linear = report.layers
    assert [each.name for each in report.layers] == ["parts.stem", *(f"parts.body.{i}" for i in (0, 2, 4))]
    assert [each.type for each in report.layers] == ["Conv2d", "TDBNLIF", "Conv2d", "Linear"]
    assert stem.macs == stem.dense == 9 * 4 * 36 * 6 and stem.input_rate is None
    assert neuron.rate == conv.input_rate == fired.double().mean().item() > 0
    assert (neuron.spikes, neuron.neuron_steps) == (fired.sum(), fired.numel())
    assert conv.accumulations == by_ones(model.parts["body"][2], fired.flatten(0, 1)) and conv.macs == 0
    assert linear.macs == 96 * 2 * 6
    assert report.energy() == pytest.approx(0.9 * conv.accumulations + 4.6 * (stem.macs + linear.macs))
    assert report.energy(mac=1, ac=0) == report.macs == stem.macs + linear.macs
    assert report.energy(mac=0, ac=2) == 2 * report.accumulations


def test_backward_is_not_counted():
    model, x = Network(), torch.rand(3, 2, 1, 6, 6)
    model.eval()
    forward = report_of(model, x)
    with monitor(model) as report:
        model(x).sum().backward()
    assert report.layers == forward.layers
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_counts_once(reentrant):
    model, x = Network().eval(), torch.rand(3, 2, 1, 6, 6, requires_grad=True)
    with monitor(model) as report:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    assert report.layers == report_of(model, x).layers


def test_passes_and_steps_add_up():
    model, x = nn.Sequential(LIF(stateful=True), nn.Linear(4, 3)), 2 * torch.rand(5, 2, 4)
    together = report_of(model, x)
    model[0].reset()
    with monitor(model) as report:
        for step in x:
            model(step[None])
    assert report.layers == together.layers


def test_what_runs_outside_of_the_model_is_not_counted():
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    with monitor(model) as report:
        other(torch.ones(2, 4)), torch.ones(2, 2) @ torch.ones(2, 2), lif(torch.ones(2, 2))
    assert report.layers == [] and report.energy() == 0


def test_a_layer_under_two_names_has_one():
    shared = nn.Linear(4, 4)
    report = report_of(nn.Sequential(shared, shared), torch.ones(1, 4))
    assert [each.name for each in report.layers] == ["0"]
    assert (report["0"].accumulations, report["0"].macs) == (16, 16)


class Threshold(nn.Module):
    """A neuron of someone else's, which returns its state, too."""

    def __init__(self):
        super().__init__()
        self.v_threshold = 1.0
        self.surrogate_function = nn.Identity()

    def forward(self, x):
        return self.surrogate_function((x >= self.v_threshold).float()), x


class Unknown(nn.Module):
    def forward(self, x):
        return (x >= 1).float()


def test_neurons_of_others():
    x = torch.tensor([[0.5, 1.5, 2.0, 0.0]])
    assert report_of(Threshold(), x)[""].rate == 0.5
    assert report_of(Unknown(), x).layers == []
    assert report_of(Unknown(), x, neurons=[Unknown])[""].rate == 0.5


def test_what_is_no_neuron():
    class Block(nn.Module):
        v_threshold = 1.0

        def __init__(self):
            super().__init__()
            self.layer, self.neuron = nn.Linear(4, 4), Unknown()

        def forward(self, x):
            return self.neuron(self.layer(x))

    names = [each.name for each in report_of(Block(), torch.ones(2, 4), neurons=[Unknown]).layers]
    assert names == ["layer", "neuron"]
    assert report_of(TDBatchNorm2d(4).eval(), torch.zeros(2, 3, 4)).layers == []


@pytest.mark.parametrize("arguments", [{"output": "v"}, {"output": "h"}, {"pack": True}], ids=str)
def test_outputs_that_are_no_spikes(arguments):
    assert report_of(LIF(**arguments), torch.zeros(4, 8)).layers == []


class Functional(nn.Module):
    def forward(self, x):
        weight, bias = torch.ones(2), torch.zeros(2)
        return lif(x), tdbn_lif(x, weight, bias, training=True), lif(x[0], steps=3, reduce="mean")


@pytest.mark.parametrize("grad", [False, True])
def test_neurons_that_are_functions(grad):
    x = (2 * torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))).requires_grad_(grad)
    first, second, mean = Functional()(x)
    layer = report_of(Functional(), x)[""]
    assert layer.spikes == round((first.sum() + second.sum() + 3 * mean.sum()).item()) > 0
    assert layer.neuron_steps == 2 * 24 + 3 * 6


def test_a_surrogate_that_is_a_function():
    """Such a neuron is no operation of torch's."""
    layer, x = LIF(surrogate=lambda u: torch.exp(-u * u)), 2 * torch.rand(4, 3, 2)
    assert report_of(layer, x)[""].rate == layer(x).mean().item() > 0


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("reduce", [None, "mean"])
@pytest.mark.parametrize("settings", [{}, {"levels": 4, "v_reset": None, "beta": 0.5}], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_the_spiking_convolution(train, reduce, settings, mode):
    """With the mean over time it runs one convolution, and the hardware adds the spikes of every step."""
    torch.manual_seed(0)
    block = SpikingConv(2, 3, 3, padding=1, padding_mode=mode, reduce=reduce, **settings).train(train)
    x = 4 * torch.rand(5, 2, 2, 6, 6)
    fired = block.neuron(x)
    report = report_of(block, x)
    assert report.accumulations == by_ones(block.conv, fired.flatten(0, 1)) and report.macs == 0
    assert sum(each.spikes for each in report.layers) == fired.sum()
    assert sum(each.neuron_steps for each in report.layers) == fired.numel()


def test_spikes_with_a_scale():
    model = nn.Sequential(
        LIF(levels=4, v_reset=None, scale=0.25), nn.Flatten(0, 1), nn.MaxPool2d(2), nn.Conv2d(2, 3, 1)
    )
    x = 5 * torch.rand(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    pooled = 4 * model[2](model[0](x).flatten(0, 1))
    report = report_of(model, x)
    assert report["3"].accumulations == 3 * pooled.sum() and report["0"].spikes == 4 * model[0](x).sum()


def test_scaled_spikes_that_happen_to_be_whole_numbers():
    """Each neuron fires the largest spike, 4, which is returned as 1."""
    model = nn.Sequential(LIF(levels=4, v_reset=None, scale=0.25), nn.Linear(5, 3))
    report = report_of(model, torch.full((2, 5), 99.0))
    assert report["1"].accumulations == 4 * 10 * 3 and report["0"].rate == 4


def test_a_unit_of_ones_own():
    x = 0.25 * spikes(3, 4, largest=4)
    assert report_of(nn.Linear(4, 7), x).macs == 84
    assert report_of(nn.Linear(4, 7), x, unit=0.25).accumulations == 7 * 4 * x.sum()
    thirds = spikes(50, 40, largest=6) / 3
    assert report_of(nn.Linear(40, 7), thirds, unit=1 / 3).accumulations == round(7 * 3 * thirds.sum().item())


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_nothing_is_left_behind():
    model, x = Network(), torch.rand(3, 2, 1, 6, 6)
    state = set(vars(model))
    with monitor(model) as report:
        assert hooks(model) > 0
        model(x)
    before = [vars(each).copy() for each in report.layers]
    model(x)
    assert hooks(model) == 0 and set(vars(model)) == state
    assert [vars(each) for each in report.layers] == before
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("no")


def test_an_error_in_the_model():
    model = nn.Sequential(nn.Linear(4, 3), Fails())
    with pytest.raises(RuntimeError, match="no"), monitor(model) as report:
        model(torch.ones(2, 4))
    assert hooks(model) == 0 and report["0"].accumulations == 24
    with monitor(model) as report:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no"):
                model(torch.ones(2, 4))
        torch.ones(2, 2) @ torch.ones(2, 2)  # outside of the model again
    assert report["0"].accumulations == 2 * 24 and len(report.layers) == 1


def test_monitors_inside_each_other():
    model, x = Network().eval(), torch.rand(3, 2, 1, 6, 6)
    with monitor(model) as outer, monitor(model.parts["body"]) as inner:
        model(x)
    assert outer.layers == report_of(model, x).layers
    assert [each.name for each in inner.layers] == ["0", "2", "4"]
    assert inner.accumulations == outer.accumulations


def test_the_table():
    text = str(report_of(nn.Sequential(LIF(), nn.Linear(4, 300)), torch.full((2, 5, 4), 3.0)))
    assert text.splitlines() == [
        "layer  type    firing rate  input rate  accumulations  MACs  dense MACs",
        "0      LIF           1.000           -              0     0           0",
        "1      Linear            -       1.000         12,000     0      12,000",
        "total                                          12,000     0      12,000",
        "energy: 10.8 nJ",
    ]
    alone = str(report_of(nn.Linear(4, 3), torch.rand(1, 4))).splitlines()
    assert alone[1].startswith("(model)  Linear") and alone[-1] == "energy: 55.2 pJ"


def test_errors():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module; got function"), monitor(lif):
        pass
    with pytest.raises(TypeError, match=r"neurons must be classes of torch.nn.Module; got \('LIF',\)"):
        report_of(nn.Linear(1, 1), torch.ones(1, 1), neurons=["LIF"])
    with pytest.raises(ValueError, match=r"unit must be positive; got 0"):
        report_of(nn.Linear(1, 1), torch.ones(1, 1), unit=0)
