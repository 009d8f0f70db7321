"""The spiking neuron in plain torch: the specification of every other implementation.

Time is the first axis. Half types are computed with float32 state. Decay and threshold are tensors
here so that a division stays a true division on every device.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.types import STATE
from deal_kernels.lif.neuron import Neuron


class Norm(NamedTuple):
    """A normalisation of the input, one value per channel each, and a shortcut added after it."""

    mean: Tensor  # [C]
    scale: Tensor
    shift: Tensor
    shortcut: Tensor | None = None  # the shape of x


class Inputs(NamedTuple):
    """The neuron and its tensors: x is [T, ...], or one step [...] that is repeated `steps` times."""

    neuron: Neuron
    x: Tensor
    v0: Tensor | None  # [...]
    decay: Tensor | None  # one value, or one per channel
    threshold: Tensor | None
    steps: int | None
    norm: Norm | None = None

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.x.shape[0] if self.steps is None else self.steps

    @property
    def row(self) -> Tensor:
        """One step of x."""
        return self.x[0] if self.steps is None else self.x


def _charge(n: Neuron, v: Tensor, x: Tensor, decay: Tensor) -> Tensor:
    if n.charge == "decay_input":
        return v + (x - (v - n.rest)) / decay
    if n.charge == "decay":
        return (v - (v - n.rest) / decay) + x
    return decay * v + x


def _fire(n: Neuron, h: Tensor, threshold: Tensor) -> Tensor:
    if n.levels > 1:
        return (h / threshold).clamp(0, n.levels).round()
    return (h >= threshold if n.fire == "ge" else h > threshold).to(h.dtype)


def _reset(n: Neuron, h: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    if n.reset == "hard":
        return s * n.rest + (1 - s) * h if n.levels > 1 else torch.where(s > 0, n.rest, h)
    return h - s * threshold if n.reset == "soft" else h


def _spike_slope(n: Neuron, h: Tensor, threshold: Tensor) -> Tensor:
    if n.levels > 1:
        ratio = h / threshold
        return ((ratio >= 0) & (ratio <= n.levels)).to(h.dtype) / threshold
    return n.surrogate(h - threshold)


def _start(i: Inputs) -> Tensor:
    return i.v0 if i.v0 is not None else torch.full_like(i.row, i.neuron.rest, dtype=STATE[i.x.dtype])


def _parameter(p: Tensor | None, number: float, row: Tensor) -> Tensor:
    """A parameter as a tensor that broadcasts against one step, [B, C, ...]."""
    if p is None:
        return torch.full((), number, dtype=STATE[row.dtype], device=row.device)
    return p.reshape(()) if p.numel() == 1 else p.reshape(-1, *[1] * (row.dim() - 2))


def _parameters(i: Inputs) -> tuple[Tensor, Tensor]:
    n = i.neuron
    return _parameter(i.decay, n.decay, i.row), _parameter(i.threshold, n.threshold, i.row)


def by_channel(p: Tensor, x: Tensor, axis: int) -> Tensor:
    """One value per channel, [C], as a tensor that broadcasts against x, whose channels are on `axis`."""
    return p.reshape(-1, *[1] * (x.dim() - axis - 1))


def normalised(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int) -> Tensor:
    mean, scale, shift = (by_channel(p, x, axis) for p in (mean, scale, shift))
    return (x - mean) * scale + shift


def gradient_sums(grad: Tensor, x: Tensor, mean: Tensor, axis: int) -> Tensor:
    """Of each channel, the sums of grad and of grad * (x - mean), [2, C]."""
    others = [a for a in range(x.dim()) if a != axis]
    grad, x = grad.to(STATE[x.dtype]), x.to(STATE[x.dtype])
    return torch.stack([grad.sum(others), (grad * (x - by_channel(mean, x, axis))).sum(others)])


def _currents(i: Inputs) -> Tensor:
    """The input current of every step, [T, ...], in the type of the state."""
    x = i.x.to(STATE[i.x.dtype])
    if i.norm is not None:
        mean, scale, shift, shortcut = i.norm
        x = normalised(x, mean, scale, shift, axis=1 if i.steps is not None else 2)
        x = x if shortcut is None else x + shortcut
    return x.expand(i.length, *i.row.shape)


def forward(i: Inputs) -> tuple[Tensor, Tensor]:
    """Spikes [T, ...] and the final state [...]."""
    n, (decay, threshold) = i.neuron, _parameters(i)
    v = _start(i)
    spikes = []
    for x in _currents(i):
        h = _charge(n, v, x, decay)
        s = _fire(n, h, threshold)
        v = _reset(n, h, s, threshold)
        spikes.append(s.to(i.x.dtype))
    return torch.stack(spikes), v


def backward(i: Inputs, grad: Tensor, grad_v: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (as it enters the neuron) and v0, and each neuron's share of those of decay and threshold.

    grad is [T, ...].
    """
    n, (decay, threshold) = i.neuron, _parameters(i)
    v = _start(i)
    entered, membranes = [], []
    inputs = _currents(i)
    for x in inputs:
        h = _charge(n, v, x, decay)
        entered.append(v)
        membranes.append(h)
        v = _reset(n, h, _fire(n, h, threshold), threshold)

    gv = torch.zeros_like(v) if grad_v is None else grad_v
    grad_x: list[Tensor] = []
    grad_decay, grad_threshold = torch.zeros_like(v), torch.zeros_like(v)
    one = torch.ones_like(decay)
    input_share = one / decay if n.charge == "decay_input" else one
    state_share = decay if n.charge == "beta" else one - one / decay
    follows = n.reset != "none" and not n.detach_reset  # the gradient passes through the spike of the reset
    for x, v_in, h, gs in reversed(list(zip(inputs, entered, membranes, grad.to(v.dtype), strict=True))):
        s = _fire(n, h, threshold)
        slope = _spike_slope(n, h, threshold)
        dv_ds = n.rest - h if n.reset == "hard" else -threshold
        dv_dh = (1 - s if n.reset == "hard" else torch.ones_like(s)) + (dv_ds * slope if follows else 0)
        gh = gs * slope + gv * dv_dh

        ds_dthreshold = -slope * (h / threshold) if n.levels > 1 else -slope
        grad_threshold += (gs + gv * dv_ds if follows else gs) * ds_dthreshold
        if n.reset == "soft":
            grad_threshold -= gv * s
        if n.charge == "beta":
            grad_decay += gh * v_in
        else:
            divided = x - (v_in - n.rest) if n.charge == "decay_input" else -(v_in - n.rest)
            grad_decay -= gh * (divided / decay / decay)
        gv = gh * state_share
        grad_x.insert(0, gh * input_share)
    total = torch.stack(grad_x) if i.steps is None else functools.reduce(torch.add, reversed(grad_x))
    return total.to(i.x.dtype), gv, grad_decay, grad_threshold


def mean(spikes: Tensor) -> Tensor:
    """The mean over time, [T, ...] -> [...]: a count in the state's type, then one true division."""
    count = spikes.to(STATE[spikes.dtype]).sum(0)
    return (count / torch.full_like(count, len(spikes))).to(spikes.dtype)


def pack(spikes: Tensor) -> Tensor:
    """Bits of [T, N] spikes, [T, ceil(N / 8)] bytes, the first neuron in the lowest bit."""
    steps, neurons = spikes.shape
    bits = torch.zeros(steps, (neurons + 7) // 8 * 8, dtype=torch.uint8, device=spikes.device)
    bits[:, :neurons] = spikes != 0
    weights = 2 ** torch.arange(8, dtype=torch.uint8, device=spikes.device)
    return (bits.view(steps, -1, 8) * weights).sum(2, dtype=torch.uint8)


def unpack(packed: Tensor, neurons: int) -> Tensor:
    """Spikes [T, N] of 0 and 1, uint8, from packed bits."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).flatten(1)[:, :neurons]
