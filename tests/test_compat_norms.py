"""Batch norms fused into the neuron behind them by `swap(model, norms=True)`, in networks that know nothing of it.

The network as it was is the oracle for spikes, gradients and statistics.
"""

import copy
import pickle
from functools import partial

import pytest
import torch
from normed_networks import B, C, Flat, H, T, W, assert_agree, drawn, pair, run, spiking, uses
from torch import nn

from deal_kernels.compat import norms, swap
from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d
from deal_kernels.compat.spikingjelly.standin.activation_based import layer, neuron
from deal_kernels.compat.spikingjelly.standin.functional import reset_net
from deal_kernels.tdbn import TDBatchNorm2d


@pytest.fixture(autouse=True)
def also_small_inputs(monkeypatch):
    monkeypatch.setattr(norms, "SMALLEST", 0)


class Direct(Flat):
    """The norm takes time itself."""

    def forward(self, x):
        return self.neuron(self.norm(x))


class Tokens(Flat):
    """As in Spikformer, from a linear layer."""

    shape = T, B, H, C

    def __init__(self):
        super().__init__(nn.BatchNorm1d(C))

    def forward(self, x):
        steps, batch, tokens, channels = x.shape
        y = self.norm(x.flatten(0, 1).transpose(-1, -2)).transpose(-1, -2)
        return self.neuron(y.reshape(steps, batch, tokens, channels).contiguous())


class Sequence(Flat):
    """As in Spikformer, from a convolution over tokens."""

    shape = T * B, C, H

    def __init__(self):
        super().__init__(nn.BatchNorm1d(C))

    def forward(self, x):
        return self.neuron(self.norm(x).reshape(T, B, C, H).contiguous())


class Rows(Flat):
    """Without an axis of the batch in front of the channels, and with other views on the way."""

    shape = T, C

    def __init__(self):
        super().__init__(nn.BatchNorm1d(C))

    def forward(self, x):
        y = self.norm(x).unsqueeze(1).squeeze(1).view(T, -1)
        return self.neuron(torch.movedim(y.permute(1, 0), 0, 1))


def step_mode_m(size):
    return layer.BatchNorm2d(size, step_mode="m")


NETWORKS = {
    "flat": Flat,
    "volumes": lambda: Flat(nn.BatchNorm3d(C)),
    "tokens": Tokens,
    "sequence": Sequence,
    "rows": Rows,
    "step mode m": lambda: Direct(step_mode_m(C)),
    "container": lambda: Direct(layer.SeqToANNContainer(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C))),
    "integrate and fire": lambda: Flat(fire=neuron.IFNode(step_mode="m")),
    "learnt decay": lambda: Flat(fire=neuron.ParametricLIFNode(step_mode="m")),
    "momentum None": lambda: Flat(nn.BatchNorm2d(C, momentum=None)),
    "no affine": lambda: Flat(nn.BatchNorm2d(C, affine=False)),
    "no running statistics": lambda: Flat(nn.BatchNorm2d(C, track_running_stats=False)),
    "TDBN": lambda: Direct(TDBatchNorm2d(C, alpha=1.5, v_threshold=1.2)),
    "SpikingJelly's TDBN": lambda: Direct(ThresholdDependentBatchNorm2d(0.7, 1.0, C)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_in_training_and_evaluation(name):
    before, after, report = pair(NETWORKS[name])
    x = drawn((T, B, C, 2, H, W) if name == "volumes" else before.shape)
    for k, training in enumerate((True, True, False)):
        before.train(training), after.train(training)
        assert_agree(before, after, x + k)
        assert run(after, x)[0].mean() not in (0, 1)
        run(before, x)
    assert uses(report) == [(6, 0)]


def test_any_layout_of_the_input():
    before, after, report = pair(Flat)
    x = drawn((T, B, C, H, W))
    for each in (x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (T, B)), x[..., ::2], x.mT):
        assert_agree(before, after, each)
    assert uses(report) == [(3, 0)]


def test_the_state_goes_on_and_is_recorded():
    before, after, _ = pair(lambda: Flat(fire=spiking(store_v_seq=True)))
    for seed in range(2):
        x = drawn(Flat.shape, seed)
        with torch.no_grad():
            assert torch.equal(before(x), after(x))
        torch.testing.assert_close(after.neuron.v, before.neuron.v, rtol=0, atol=1e-12)
        torch.testing.assert_close(after.neuron.v_seq, before.neuron.v_seq, rtol=0, atol=1e-12)
    reset_net(after)
    x = drawn(Flat.shape).requires_grad_()
    after(x)
    (gradient,) = torch.autograd.grad(after.neuron.v_seq.square().sum(), x)
    reset_net(before)
    y = before.norm(x.flatten(0, 1)).unflatten(0, (T, B))
    before.neuron(y)
    torch.testing.assert_close(gradient, *torch.autograd.grad(before.neuron.v_seq.square().sum(), x))


def test_a_single_step():
    class Loop(Flat):
        def forward(self, x):
            return torch.stack([self.neuron(self.norm(each)) for each in x])

    before, after, report = pair(lambda: Loop(fire=spiking(step_mode="s")))
    assert_agree(before, after, drawn(Flat.shape))
    assert uses(report) == [(T, 0)]


def test_names_copies_and_pickle():
    before, after, _ = pair(Flat)
    norm = after.norm
    assert isinstance(norm, nn.BatchNorm2d) and repr(norm).startswith("FusedBatchNorm2d")
    assert list(after.state_dict()) == list(before.state_dict())
    for again in (copy.deepcopy(after), pickle.loads(pickle.dumps(after))):
        assert type(again.norm) is type(norm)
        assert_agree(copy.deepcopy(before), again, drawn(Flat.shape))
    assert swap(before, norms=True, dry_run=True).norms[0].name == "norm" and type(before.norm) is nn.BatchNorm2d


def test_left_alone():
    network = nn.Sequential(nn.SyncBatchNorm(C), nn.LazyBatchNorm2d(), nn.InstanceNorm2d(C), nn.GroupNorm(2, C))
    assert swap(network, norms=True).norms == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    before, after, report = pair(Flat)
    before.to(dtype), after.to(dtype)
    x = drawn(Flat.shape).to(dtype)
    spikes = before(x), after(x)
    assert spikes[1].dtype == spikes[0].dtype == dtype and uses(report) == [(1, 0)]
    assert (spikes[0] != spikes[1]).double().mean() < 0.02
    torch.testing.assert_close(after.norm.running_mean, before.norm.running_mean, rtol=2e-2, atol=1e-2)


def test_autocast():
    class Net(Flat):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)))

    _, after, report = pair(Net)
    after.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert after(drawn(Flat.shape).float()).dtype == torch.bfloat16
    assert uses(report) == [(1, 0)]


def test_less_is_kept_for_the_backward_pass():
    kept = []
    for network in pair(Flat)[:2]:
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(drawn(Flat.shape).requires_grad_())
        kept.append(sum(each.nbytes() for each in storages.values()))
    size = T * B * C * H * W * 8
    assert kept[0] >= 2 * size and size <= kept[1] < 1.2 * size


def test_the_report():
    report = swap(nn.Sequential(Flat(), nn.BatchNorm1d(C)), norms=True)
    assert str(report).splitlines() == [
        "0 of 0 neurons replaced, 0 of 2 norms fused so far",
        "norm  0.norm  BatchNorm2d  fused in 0 calls",
        "norm  1       BatchNorm1d  fused in 0 calls",
    ]


def library_network(spikingjelly, version):
    """Layers of SpikingJelly in the forms in which public networks call them."""
    package = "clock_driven" if version == "0.0.0.0.12" else "activation_based"
    found = {
        name: spikingjelly(version, f"spikingjelly.{package}.{name}") for name in ("functional", "layer", "neuron")
    }
    if version == "0.0.0.0.12":
        kinds = found["neuron"].MultiStepLIFNode, found["neuron"].MultiStepIFNode
        norm = found["layer"].SeqToANNContainer(nn.BatchNorm2d(C))
    else:
        kinds = (partial(getattr(found["neuron"], kind), step_mode="m") for kind in ("LIFNode", "IFNode"))
        norm = found["layer"].BatchNorm2d(C, step_mode="m")
    leaky, plain = kinds
    container = found["layer"].SeqToANNContainer(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C))
    network = nn.Sequential(norm, leaky(detach_reset=True), container, plain(detach_reset=True))
    return network, found["functional"].reset_net


@pytest.mark.parametrize("version", ["0.0.0.0.12", "0.0.0.0.14", "2.0.0"])
def test_in_networks_of_spikingjelly(spikingjelly, version):
    network, reset = library_network(spikingjelly, version)
    before, after, report = pair(lambda: network)
    assert len(report.replaced) == 2 and not report.left
    for seed in range(2):
        reset(before), reset(after)
        assert_agree(before, after, drawn(Flat.shape, seed))
        reset(before), reset(after)
        before.eval(), after.eval()
        with torch.no_grad():
            assert torch.equal(before(drawn(Flat.shape)), after(drawn(Flat.shape)))
        before.train(), after.train()
    assert uses(report) == [(4, 0), (4, 0)]
