"""The layers, functions and surrogates of the stand-ins for SpikingJelly, against torch and the published formulas."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deal_kernels.compat.spikingjelly.standin import activation_based, cext, clock_driven

layer, functional = activation_based.layer, activation_based.functional
SHAPES = {1: (4, 2, 8, 7), 2: (4, 2, 8, 6, 6), 3: (4, 2, 8, 3, 4, 4)}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((f"{kind}{d}d", (8, 5, 3)) for kind in ("Conv", "ConvTranspose") for d in SHAPES),
        *((f"BatchNorm{d}d", (8,)) for d in SHAPES),
        *((f"{kind}{d}d", (2,)) for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool") for d in SHAPES),
        ("GroupNorm", (2, 8)), ("Linear", (6, 5)), ("Flatten", ()),
    ],
)  # fmt: skip
def test_layers_take_all_steps_as_one_batch(name, arguments):
    x = torch.randn(SHAPES[int(name[-2])] if name[-1] == "d" else SHAPES[2])
    several, one = getattr(layer, name)(*arguments, step_mode="m"), getattr(layer, name)(*arguments)
    plain = getattr(nn, name)(*arguments)
    for each in (several, one):
        each.load_state_dict(plain.state_dict())
    expected = plain(x.flatten(0, 1))
    assert torch.equal(several(x), expected.unflatten(0, x.shape[:2]))
    assert torch.equal(one(x.flatten(0, 1)), expected)
    assert "step_mode=m" in repr(several)
    if name[-1] == "d":
        with pytest.raises(ValueError, match=f"x must have {x.dim()} axes with step_mode='m'"):
            several(x[0])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_threshold_dependent_batch_norm(d):
    x = torch.randn(SHAPES[d])
    old = getattr(clock_driven.layer, f"MultiStepThresholdDependentBatchNorm{d}d")(0.7, 0.5, 8)
    new = getattr(layer, f"ThresholdDependentBatchNorm{d}d")(num_features=8, alpha=0.7, v_th=0.5, affine=True)
    plain = getattr(nn, f"BatchNorm{d}d")(8)
    nn.init.constant_(plain.weight, 0.35)
    for _ in range(2):
        expected = plain(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        torch.testing.assert_close(old(x), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(new(x), expected, rtol=1e-5, atol=1e-6)
        old.eval(), new.eval(), plain.eval()
    assert list(new.state_dict()) == list(plain.state_dict())


def test_threshold_dependent_batch_norm_refuses_other_shapes():
    with pytest.raises(ValueError, match="x must be .T, B, C. or .T, B, C, L.; got"):
        layer.ThresholdDependentBatchNorm1d(1.0, 1.0, 8)(torch.randn(SHAPES[2]))
    with pytest.raises(ValueError, match="x must be .T, B, C, D, H, W.; got"):
        layer.ThresholdDependentBatchNorm3d(1.0, 1.0, 8)(torch.randn(SHAPES[2]))


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_has_one_mask(channels):
    x, suffix = torch.ones(SHAPES[2]), "2d" if channels else ""
    old = getattr(clock_driven.layer, f"MultiStepDropout{suffix}")(0.4)
    new = getattr(layer, f"Dropout{suffix}")(0.4, step_mode="m")
    for dropout in (old, new):
        y = dropout(x)
        assert all(torch.equal(y[0], each) for each in y) and torch.allclose(y.unique(), torch.tensor([0.0, 1 / 0.6]))
        assert torch.equal(dropout(x), y)
        assert not channels or all(len(each.unique()) == 1 for each in y[0].flatten(0, 1))
        assert dropout(x[:, :1]).shape == x[:, :1].shape
        assert torch.equal(dropout.eval()(x), x)
        dropout.reset()
        assert dropout.mask is None
    one = getattr(clock_driven.layer, f"Dropout{suffix}")()
    assert torch.equal(one(x[0]), one(x[1]))
    assert layer.Dropout2d().p == clock_driven.layer.Dropout2d().p == 0.2
    with pytest.raises(ValueError, match="p must be at least 0 and below 1"):
        layer.Dropout(1.0)


def test_weights_of_the_older_container_load():
    container = layer.SeqToANNContainer(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    net = nn.Sequential(container)
    weights = net.state_dict()
    older = {name.replace("0.", "0.module.", 1): value for name, value in weights.items()}
    assert "0.module.1.running_var" in older
    other = copy.deepcopy(net)
    nn.init.zeros_(other[0][0].weight)
    assert other.load_state_dict(older).missing_keys == []
    assert torch.equal(other[0].module[0].weight, container[0].weight)
    x = torch.randn(SHAPES[2])
    assert other(x).shape == (4, 2, 4, 4, 4)


def test_containers_keep_their_step_modes():
    net = nn.Sequential(
        layer.SeqToANNContainer(layer.Conv2d(8, 8, 3)), layer.BatchNorm2d(8),
        layer.MultiStepContainer(activation_based.neuron.IFNode()), activation_based.neuron.LIFNode(),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    assert [net[0][0].step_mode, net[1].step_mode, net[2][0].step_mode, net[3].step_mode] == ["s", "m", "s", "m"]
    x = torch.randn(SHAPES[2])
    same = copy.deepcopy(net)
    expected = same[3](same[2][0](same[1](net[0](x))[0])[None])
    assert torch.equal(net(x)[0], expected[0])
    functional.set_backend(net, "cupy", instance=activation_based.neuron.LIFNode)
    assert [net[2][0].backend, net[3].backend] == ["torch", "cupy"]
    with pytest.raises(ValueError, match="backend must be one of 'torch', 'cupy', 'triton', 'auto'; got 'lava'"):
        functional.set_backend(net, "lava")
    functional.detach_net(net)
    assert not net[3].v.requires_grad
    functional.reset_net(net)
    assert net[2][0].v == net[3].v == 0.0


def test_functions_over_time():
    x, layers = torch.randn(4, 2, 6), [nn.Linear(6, 5), nn.ReLU()]
    expected = torch.stack([layers[1](layers[0](each)) for each in x])
    for run in (functional.seq_to_ann_forward, functional.multi_step_forward):
        for form in (layers, tuple(layers), nn.Sequential(*layers), lambda each: layers[1](layers[0](each))):
            torch.testing.assert_close(run(x, form), expected)


def test_temporal_wise_attention():
    for dimension, x in ((4, torch.randn(SHAPES[2])), (2, torch.randn(4, 2, 8))):
        attention = layer.TemporalWiseAttention(4, reduction=2, dimension=dimension)
        first, last = attention.sharedMLP[0].weight, attention.sharedMLP[2].weight
        mean, most = x.flatten(2).mean(2).T, x.flatten(2).amax(2).T  # [B, T]
        gate = torch.sigmoid(torch.relu(mean @ first.T) @ last.T + torch.relu(most @ first.T) @ last.T).T
        torch.testing.assert_close(attention(x), x * gate.reshape(4, 2, *[1] * (x.dim() - 2)))
        with pytest.raises(ValueError, match="x_seq must be"):
            attention(x[..., None])
    with pytest.raises(ValueError, match="the reduction of T must be from 1 to T, 4; got 16"):
        clock_driven.layer.MultiStepTemporalWiseAttention(4)


def test_multi_dimensional_attention():
    x = torch.randn(SHAPES[2])
    attention = layer.MultiDimensionalAttention(4, 8, reduction_t=2, reduction_c=4, kernel_size=3)

    def gate(part, x, axis):  # of an axis of [T, B, C, H, W]
        rows = x.transpose(0, 1) if axis == 0 else x.permute(1, 2, 0, 3, 4)  # [B, N, ...]
        first, last = part.sharedMLP[0].weight.flatten(1), part.sharedMLP[2].weight.flatten(1)
        both = [rows.flatten(2).mean(2), rows.flatten(2).amax(2)]
        values = torch.sigmoid(sum(torch.relu(each @ first.T) @ last.T for each in both))
        return values.T[:, :, None, None, None] if axis == 0 else values[None, :, :, None, None]

    y = gate(attention.ta, x, 0) * x
    y = gate(attention.ca, y, 2) * y
    places = torch.stack([y.mean((0, 2)), y.amax((0, 2))], 1)  # [B, 2, H, W]
    y = torch.sigmoid(F.conv2d(places, attention.sa.conv.weight, padding=1))[None] * y
    torch.testing.assert_close(attention(x), torch.relu(y))
    names = ["ta.sharedMLP.0.weight", "ta.sharedMLP.2.weight", "ca.sharedMLP.0.weight", "ca.sharedMLP.2.weight"]
    assert list(attention.state_dict()) == [*names, "sa.conv.weight"]
    with pytest.raises(ValueError, match="kernel_size must be one of 3, 7; got 5"):
        layer.MultiDimensionalAttention(4, 8, 2, 4, 5)
    with pytest.raises(ValueError, match="x must be .T, B, C, H, W.; got"):
        attention(x[0])


class Block(nn.Module):
    """A residual block that adds in place to what its neuron returns, as SEW-ResNet does."""

    def __init__(self, neuron):
        super().__init__()
        self.conv = layer.SeqToANNContainer(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.neuron = neuron

    def forward(self, x):
        out = self.neuron(self.conv(x))
        out += x
        return out


@pytest.mark.parametrize(
    "make",
    [
        lambda: clock_driven.neuron.MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy"),
        lambda: cext.neuron.MultiStepParametricLIFNode(init_tau=2.0, detach_reset=True),
        lambda: activation_based.neuron.LIFNode(
            v_threshold=0.15, backend="cupy", step_mode="m", decay_input=False
        ),
    ],
    ids=["clock_driven", "cext", "activation_based"],
)  # fmt: skip
def test_a_network_trains(make):
    torch.manual_seed(0)
    net = nn.Sequential(Block(make()), Block(make()))
    x = torch.rand(SHAPES[2])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(6):
        losses.append((net(x).mean(0) - 1).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        functional.reset_net(net)
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())
    assert losses[-1] < 0.95 * losses[0]


U = torch.cat([torch.linspace(-2.5, 2.5, 401), torch.tensor([0.0])])

DERIVATIVES = {
    "Sigmoid": ({}, lambda u: 4 * torch.sigmoid(4 * u) * torch.sigmoid(-4 * u)),
    "ATan": ({"alpha": 3.0}, lambda u: 1.5 / (1 + (math.pi / 2 * 3 * u) ** 2)),
    "PiecewiseQuadratic": ({"alpha": 0.7}, lambda u: (0.7 - 0.49 * u.abs()).clamp(min=0)),
    "PiecewiseExp": ({"alpha": 2.0}, lambda u: torch.exp(-2 * u.abs())),
    "SoftSign": ({"alpha": 3.0}, lambda u: 1 / (2 * 3 * (1 / 3 + u.abs()) ** 2)),
    "Erf": ({}, lambda u: 2 / math.sqrt(math.pi) * torch.exp(-((2 * u) ** 2))),
    "PiecewiseLeakyReLU": ({"w": 0.5, "c": 0.02}, lambda u: torch.where(u.abs() < 0.5, 2.0, 0.02)),
    "LeakyKReLU": ({"leak": 0.1, "k": 1.5}, lambda u: torch.where(u >= 0, 1.5, 0.1)),
    "QPseudoSpike": ({"alpha": 3.0}, lambda u: (1 + u.abs()) ** -3.0),
    "NonzeroSignLogAbs": ({"alpha": 2.0}, lambda u: 1 / (0.5 + u.abs())),
    "S2NN": ({}, lambda u: torch.where(u < 0, 4 * torch.sigmoid(4 * u) * torch.sigmoid(-4 * u), 1 / (u + 1))),
    "SquarewaveFourierSeries": (
        {"n": 3, "T_period": 8.0},
        lambda u: 0.5 * (torch.cos(math.pi / 4 * u) + torch.cos(3 * math.pi / 4 * u)),
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_surrogates(name):
    arguments, derivative = DERIVATIVES[name]
    function = getattr(activation_based.surrogate, name)(**arguments)
    u = U.clone().requires_grad_()
    spikes = function(u)
    assert torch.equal(spikes, activation_based.surrogate.heaviside(U))
    torch.testing.assert_close(torch.autograd.grad(spikes.sum(), u)[0], derivative(U), rtol=1e-5, atol=1e-6)

    function.set_spiking_mode(False)
    slope = torch.autograd.grad(function(u).sum(), u)[0]
    away = (U.abs() != 0.5) if name == "PiecewiseLeakyReLU" else torch.full_like(U, True, dtype=torch.bool)
    expected = torch.where(U.abs() < 0.5, 1.0, 0.02) if name == "PiecewiseLeakyReLU" else derivative(U)
    torch.testing.assert_close(slope[away], expected[away], rtol=3e-5, atol=3e-6)
    assert "spiking=False" in repr(function)


def test_every_surrogate_is_tested():
    found = {name for name in activation_based.surrogate.__all__ if name[0].isupper() and not name.endswith("Base")}
    assert found == set(DERIVATIVES) and set(clock_driven.surrogate.__all__) < set(activation_based.surrogate.__all__)


def test_q_pseudo_spike_of_two():
    function, u = clock_driven.surrogate.QPseudoSpike(), U.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(function(u).sum(), u)[0], (1 + 2 * U.abs()) ** -2.0)


class Own(clock_driven.surrogate.SurrogateFunctionBase):
    @staticmethod
    def spiking_function(x, alpha):
        return alpha * x

    @staticmethod
    def primitive_function(x, alpha):
        return -alpha * x


class OwnOfTwo(clock_driven.surrogate.MultiArgsSurrogateFunctionBase):
    def __init__(self, spiking=True):
        super().__init__(spiking)

    def forward(self, x):
        return x if self.spiking else -x


def test_surrogates_of_ones_own():
    assert torch.equal(Own(3.0)(U), 3 * U) and torch.equal(Own(3.0, spiking=False)(U), -3 * U)
    assert torch.equal(OwnOfTwo()(U), U) and torch.equal(OwnOfTwo(False)(U), -U)
    node = clock_driven.neuron.IFNode(surrogate_function=Own(2.0), v_reset=None)
    assert torch.equal(node(U), 2 * (U - 1))
