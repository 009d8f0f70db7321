"""Networks with a norm before a neuron, as they are and with the norm swapped, and whether they agree.

Everything is in float64, where no spike differs.
"""

import copy
from functools import partial

import torch
from torch import nn

from deal_kernels.compat import swap
from deal_kernels.compat.spikingjelly.standin.activation_based import neuron
from deal_kernels.compat.spikingjelly.standin.functional import reset_net

T, B, C, H, W = 4, 3, 6, 5, 4
spiking = partial(neuron.LIFNode, step_mode="m", detach_reset=True)


class Flat(nn.Module):
    """Images, with T and B in one axis for the norm."""

    shape = T, B, C, H, W

    def __init__(self, norm=None, fire=None):
        super().__init__()
        self.norm = nn.BatchNorm2d(C) if norm is None else norm
        self.neuron = spiking() if fire is None else fire

    def forward(self, x):
        return self.neuron(self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def uses(report):
    return [(each.uses.fused, each.uses.computed) for each in report.norms]


def pair(build):
    """A network in float64 with weights that say something, and the same one with its norms swapped."""
    torch.manual_seed(0)
    before = build().double()
    for module in before.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.5, 1.0)
    after = copy.deepcopy(before)
    return before, after, swap(after, norms=True)


def drawn(shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 + 0.7


def run(network, x):
    """The spikes, and all gradients."""
    reset_net(network)
    x = x.clone().requires_grad_()
    result = network(x)
    factors = torch.linspace(-1, 1, result.numel(), dtype=x.dtype).reshape(result.shape)
    (result * factors).sum().backward()
    gradients = [x.grad, *(each.grad for each in network.parameters())]
    network.zero_grad()
    return result.detach(), gradients


def assert_agree(before, after, x):
    (spikes, gradients), (ours, our_gradients) = run(before, x), run(after, x)
    torch.testing.assert_close(ours, spikes, rtol=0, atol=1e-12)
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dict(after.named_buffers()), dict(before.named_buffers()), rtol=1e-12, atol=1e-12)
