"""The spiking convolution: in training step by step, in evaluation folded and once."""

import copy

import pytest
import torch
from oracle import close

from deal_kernels.lif import lif
from deal_kernels.tdbn import SpikingConv

INTEGER = {"beta": 0.25, "levels": 4, "v_reset": None, "detach_reset": True}


def trained(backend, device, **options):
    """A block whose running statistics have moved, in evaluation."""
    torch.manual_seed(0)
    block = SpikingConv(8, 6, 3, backend=backend, **{"padding": 1, **INTEGER, **options}).to(device)
    for _ in range(3):
        block(torch.randn(4, 2, 8, 9, 11, device=device) + 0.5)
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 1.5)
        block.norm.bias.normal_()
    return block.eval()


def unfolded(block, x, steps=None):
    """Evaluation the long way: every step through the convolution and the norm."""
    spikes = block.neuron.run(lif, x, None, steps=steps)
    y = block.norm(block.conv(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2]))
    return y.mean(0) if block.reduce else y


@pytest.mark.parametrize("steps", [None, 4])
def test_golden(golden, backend, device, steps):
    recorded = {name: tensor.to(device) for name, tensor in golden("integer_lif.npz").items() if "sconv" in name}
    block = SpikingConv(8, 8, 1, reduce="mean", alpha=None, backend=backend, **INTEGER).to(device)
    with torch.no_grad():
        block.conv.weight.copy_(recorded["sconv_w"].reshape(8, 8, 1, 1))
    x = recorded["sconv_x"].requires_grad_()
    y = block(x, steps=4) if steps else block(x.expand(4, *x.shape))
    grad_x, grad_weight = torch.autograd.grad(y, (x, block.conv.weight), recorded["sconv_g"])
    assert close(y, recorded["sconv_y"], 1e-5)
    assert close(grad_x, recorded["sconv_gx"], 1e-5)
    assert close(grad_weight.reshape(8, 8), recorded["sconv_gw"].reshape(8, 8), 1e-5)
    assert close(block.norm.running_mean, recorded["sconv_running_mean"], 1e-5)
    assert close(block.norm.running_var, recorded["sconv_running_var"], 1e-5)


@pytest.mark.parametrize("reduce", [None, "mean"])
@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": None, "bias": True},
        {"norm_threshold": 0.3, "stride": 2},
        {"padding_mode": "reflect", "padding": 1},
    ],
    ids=str,
)
def test_folded_evaluation(backend, device, options, steps, reduce):
    block = trained(backend, device, reduce=reduce, **options)
    x = torch.randn(*(() if steps else (4,)), 2, 8, 9, 11, device=device, requires_grad=True)
    expected = unfolded(block, x, steps)
    result = block(x, steps)
    assert close(result, expected, 1e-5)
    grads = (torch.autograd.grad(y.square().sum(), (x, block.conv.weight)) for y in (result, expected))
    for ours, theirs in zip(*grads, strict=True):
        assert close(ours, theirs, 1e-5)


@pytest.mark.parametrize("reduce", [None, "mean"])
def test_fused_for_good(backend, device, reduce):
    block = trained(backend, device, reduce=reduce)
    x = torch.randn(4, 2, 8, 9, 11, device=device)
    expected = block(x)
    fused = copy.deepcopy(block).fuse()
    assert fused.norm is None and close(fused(x), expected, 1e-6)
    assert fused.fuse() is fused and close(fused(x), expected, 1e-6)
    assert list(fused.state_dict()) == ["conv.weight", "conv.bias"]


def test_evaluation_keeps_the_statistics(backend, device):
    block = trained(backend, device, reduce="mean")
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    block(torch.randn(4, 2, 8, 9, 11, device=device))
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def test_one_convolution_for_all_steps(device):
    """What makes the folded path quick: the convolution sees one image a sample, not one a step."""
    block = trained(None, device, reduce="mean")
    seen = []
    convolve = block.conv._conv_forward
    block.conv._conv_forward = lambda x, weight, bias: seen.append(tuple(x.shape)) or convolve(x, weight, bias)
    block(torch.randn(2, 8, 9, 11, device=device), steps=4)
    assert seen == [(2, 8, 9, 11)]


def test_learnt_threshold(backend, device):
    threshold = torch.nn.Parameter(torch.tensor(0.8))
    block = SpikingConv(3, 4, norm_threshold=0.8, v_threshold=threshold, backend=backend).to(device)
    block(torch.randn(4, 2, 3, 5, 5, device=device)).square().sum().backward()
    assert (
        block.neuron.v_threshold.grad is not None and dict(block.named_parameters())["neuron.v_threshold"] is not None
    )
