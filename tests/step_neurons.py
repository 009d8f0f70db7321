"""Neurons of a few lines, written for `deal_kernels.neuron.neuron`: what users bring."""

import torch
from torch import nn

from deal_kernels import surrogate

spike = surrogate.Sigmoid(4.0).spike


def izhikevich(x, state):
    """SpikingJelly's IzhikevichNode(tau=2, v_c=.8, a0=1, v_threshold=1, v_reset=0, v_rest=-.1, tau_w=2, a=.1, b=.2)."""
    v, w = state
    h = v + ((x + (1.0 * (v + 0.1)) * (v - 0.8)) - w) / 2.0
    s = spike(h - 1.0)
    w = (w + (0.1 * (h + 0.1) - w) / 2.0) + 0.2 * s
    return s, ((1 - s) * h, w)


def adaptive_exponential(x, state):
    """AdEx: an exponential membrane and a current that adapts."""
    v, w = state
    h = v + (((x - 0.1) - v) + torch.exp(v - 0.8) - w) / 2.0
    s = spike(h - 1.0)
    w = w + (0.2 * v - w) / 4.0 + 0.3 * s
    return s, ((1 - s) * h - 0.1 * s, w)


class KLIF(nn.Module):
    """SpikingJelly's KLIFNode: the membrane potential is scaled by a learnt k and cut at 0."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.3))

    def forward(self, x, v):
        h = torch.relu(self.k * (v + (x - v) / 2.0))
        s = spike(h - 1.0)
        return s, (1 - s) * h


class GatedLIF(nn.Module):
    """GLIF: gates mix two ways to decay, to take in the current and to reset; all are learnt by channel."""

    def __init__(self, channels):
        super().__init__()
        self.gates = nn.Parameter(0.2 * torch.randn(3, channels))
        self.decay, self.leak, self.amount, self.conductance = (nn.Parameter(torch.rand(channels)) for _ in range(4))

    def forward(self, x, state):
        v, before = state
        a, b, c = torch.sigmoid(self.gates)
        decay = 1 - a * (1 - torch.sigmoid(self.decay))
        u = (decay * v - (1 - a) * self.leak) + x * (1 - b * (1 - torch.sigmoid(self.conductance)))
        u = u - c * decay * v * before - (1 - c) * self.amount * before
        s = spike(u - 0.5)
        return s, (u, s)
