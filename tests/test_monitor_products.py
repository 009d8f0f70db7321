"""Accumulations and MACs of single convolutions and matrix products."""

import pytest
import torch
from monitoring import by_ones, report_of, spikes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deal_kernels.conv import Conv2d


def test_a_convolution_by_hand():
    """A spike in the corner reaches 4 of the 9 weights of each output channel, one at the edge 6, one inside 9."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 0, 0] = x[0, 0, 0, 2] = x[0, 0, 2, 2] = 1
    layer = report_of(nn.Conv2d(1, 8, 3, padding=1), x)[""]
    assert layer.accumulations == (4 + 6 + 9) * 8
    assert (layer.macs, layer.dense) == (0, 9 * 25 * 8)
    assert layer.input_rate == 3 / 25 and layer.rate is None


def test_a_stride_by_hand():
    """A kernel of 2 at every second position: each spike reaches one weight, and the last row and column none."""
    assert report_of(nn.Conv2d(3, 4, 2, stride=2), torch.ones(1, 3, 5, 5)).accumulations == 4 * 4 * 3 * 4


def test_a_linear_layer_by_hand():
    x = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0]])
    layer = report_of(nn.Linear(4, 7), x)[""]
    assert (layer.accumulations, layer.macs, layer.dense, layer.input_rate) == (3 * 7, 0, 8 * 7, 3 / 8)


ZEROS = [
    {}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1, 0)}, {"groups": 3, "stride": (1, 2, 1)},
    {"groups": 6, "padding": 1},
]  # fmt: skip
OTHERS = [
    {"padding": "same", "dilation": 2}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": (2, 1, 0), "padding_mode": "circular", "stride": 2}, {"padding": 1, "padding_mode": "replicate"},
]  # fmt: skip


def convolution(kind, geometry):
    """A layer of 6 and 12 channels with as many numbers of each tuple as it has axes."""
    axes = int(kind.__name__[-2])
    return kind(6, 12, 3, **{name: v[:axes] if isinstance(v, tuple) else v for name, v in geometry.items()})


@pytest.mark.parametrize("geometry", ZEROS + OTHERS, ids=str)
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_every_convolution(kind, geometry):
    conv, x = convolution(kind, geometry), spikes(2, 6, *(9, 8, 7)[: int(kind.__name__[-2])], largest=3)
    assert report_of(conv, x).accumulations == by_ones(conv, x)


@pytest.mark.parametrize("geometry", ZEROS, ids=str)
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_every_transposed_convolution(kind, geometry):
    conv, x = convolution(kind, geometry), spikes(2, 6, *(9, 8, 7)[: int(kind.__name__[-2])], largest=3)
    assert report_of(conv, x).accumulations == by_ones(conv, x)
    assert report_of(conv, x / 2).macs == x.numel() * 12 // conv.groups * conv.weight[0, 0].numel()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_our_convolution(mode, backend):
    if backend not in ("torch", "cpp"):
        pytest.skip("convolution has no kernel of its own there")
    conv = Conv2d(2, 3, 5, padding=(2, 1), padding_mode=mode, backend=backend)
    x = spikes(2, 2, 9, 8)
    assert report_of(conv, x).accumulations == by_ones(conv, x)
    assert report_of(conv, x / 3).macs == conv(x).numel() * 2 * 25


def test_without_a_batch():
    assert report_of(nn.Conv2d(2, 3, 3), torch.ones(2, 4, 4)).accumulations == 2 * 3 * 4 * 9
    assert report_of(nn.Linear(4, 3), torch.ones(4)).accumulations == 12


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_dense_counts_are_those_of_torch(context):
    """The MACs of a network that reads an image are half of the operations that torch counts."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Flatten(2), nn.Linear(16, 5), Attention())
    x = torch.rand(2, 3, 8, 8)
    with context(), FlopCounterMode(display=False) as flops:
        network(x)
    with context():
        report = report_of(network, x)
    assert report.macs == sum(layer.dense for layer in report.layers) == flops.get_total_flops() // 2 > 0
    assert report.accumulations == 0


class Attention(nn.Module):
    """Products by operators and by functions."""

    def forward(self, x):
        once = (x @ x.mT) @ x
        return torch.einsum("bnc,bmc->bnm", once, x)


def test_attention_in_one_call():
    class Call(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert report_of(Call(), torch.rand(2, 8, 5)).macs == 2 * 2 * (8 * 8 * 5)


def test_the_attention_of_torch():
    """In evaluation torch would run it as one operation."""
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), torch.rand(2, 5, 8)
    with torch.no_grad():
        report = report_of(layer, x)
    assert report.macs == 2 * 5 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * (2 * 5 * 5 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


class Pair(nn.Module):
    def forward(self, a, b):
        return a @ b


@pytest.mark.parametrize("largest", [1, 3])
def test_a_product_of_spikes_is_the_pairs_that_meet(largest):
    a, b = spikes(2, 3, 4, 5, seed=1), spikes(2, 3, 5, 6, largest=largest, seed=2)
    pairs = sum(
        bool(a[t, h, i, k]) and bool(b[t, h, k, j])
        for t in range(2) for h in range(3) for i in range(4) for k in range(5) for j in range(6)
    )  # fmt: skip
    assert report_of(Pair(), a, b).accumulations == pairs
    assert report_of(Pair(), b.mT, a.mT).accumulations == pairs
    layer = report_of(Pair(), a, b)[""]
    assert layer.input_rate == (a.sum() + b.sum()).item() / (a.numel() + b.numel())


def test_large_spikes_count_as_many():
    """Of two trains of whole numbers the smaller number says how often the other is added."""
    assert report_of(Pair(), torch.full((1, 1), 2.0), torch.full((1, 1), 5.0)).accumulations == 2
    assert report_of(Pair(), torch.full((1, 1), 5.0), torch.full((1, 1), 2.0)).accumulations == 2


def test_spikes_and_an_attention_of_real_numbers():
    a, v = torch.rand(2, 4, 5), spikes(2, 5, 6)
    assert report_of(Pair(), a, v).accumulations == 4 * v.sum()
    assert report_of(Pair(), v.mT, a.mT).accumulations == 4 * v.sum()


@pytest.mark.parametrize("largest", [1, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_spikes_of_size_k_count_k(largest, sign):
    x = sign * spikes(3, 4, largest=largest)
    assert report_of(nn.Linear(4, 7), x).accumulations == 7 * x.abs().sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_spikes_of_any_dtype(dtype):
    x = spikes(3, 4).to(dtype)
    assert report_of(Pair(), x, torch.ones(4, 7, dtype=dtype)).accumulations == 7 * x.sum()


def test_counts_beyond_the_whole_numbers_of_float32():
    x = torch.tensor([[2.0**24, 1, 1]])
    assert report_of(nn.Linear(3, 1), x).accumulations == 2**24 + 2
    assert report_of(nn.Conv2d(3, 1, 1), x.reshape(1, 3, 1, 1)).accumulations == 2**24 + 2


def test_weights_are_never_spikes():
    """Also where all of them are whole numbers, some 0, or larger than the spikes."""
    layer = nn.Linear(4, 3)
    layer.weight.data = torch.tensor([[0.0, 0, 0, 9]] * 3)
    assert report_of(layer, torch.full((2, 4), 5.0)).accumulations == 5 * 8 * 3
    assert report_of(layer, torch.rand(2, 4)).macs == 24


def test_a_layer_that_never_receives_a_spike():
    layer = report_of(nn.Linear(4, 3), torch.zeros(2, 4))[""]
    assert (layer.accumulations, layer.macs, layer.input_rate) == (0, 0, 0)


def test_inputs_that_are_not_finite_are_no_spikes():
    for value in (float("nan"), float("inf")):
        assert report_of(nn.Linear(2, 3), torch.tensor([[1.0, value]])).macs == 6


def test_empty_inputs():
    assert report_of(Pair(), torch.zeros(0, 3, 4), torch.zeros(0, 4, 2)).accumulations == 0
    assert report_of(Pair(), torch.zeros(3, 0), torch.zeros(0, 2)).accumulations == 0
