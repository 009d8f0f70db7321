"""The spiking neuron in plain torch: the specification of every other implementation.

Time is the first axis. Half types are computed with float32 state. Decay and threshold are tensors
here so that a division stays a true division on every device.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.layout import in_memory_order
from deal_kernels._common.types import STATE
from deal_kernels.lif.neuron import Neuron
from deal_kernels.surrogate import with_slope

RESET_NOW = ("hard", "soft", "twice_soft")
SUBTRACT_FIRST = ("next_soft", "twice_soft")


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
    decay: Tensor | None  # one value, one per channel [C], or one per neuron [C, ...] or [B, C, ...]
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


class Steps(NamedTuple):
    """What happens at every step, each [T, ...]."""

    spikes: Tensor
    states: Tensor  # after the reset
    membranes: Tensor  # before it


def _over_decay(n: Neuron, a: Tensor, decay: Tensor) -> Tensor:
    return a * decay if n.rate else a / decay


def _charge(n: Neuron, v: Tensor, x: Tensor, decay: Tensor, threshold: Tensor) -> Tensor:
    """The membrane potential, from the state v that enters the step."""
    v = _cleared(n, v, threshold)
    if n.charge == "decay_input":
        h = v + _over_decay(n, x - (v - n.rest), decay)
    elif n.charge == "decay":
        h = (v - _over_decay(n, v - n.rest, decay)) + x
    else:
        h = decay * v + x
    return h - _fire(n, v, threshold) * _amount(n, threshold) if n.reset in SUBTRACT_FIRST else h


def _cleared(n: Neuron, v: Tensor, threshold: Tensor) -> Tensor:
    """The state that enters a step, after a hard reset if that takes place at the next step."""
    return _hard_reset(n, v, _fire(n, v, threshold)) if n.reset == "next_hard" else v


def _fire(n: Neuron, h: Tensor, threshold: Tensor) -> Tensor:
    if n.levels > 1:
        return (h / threshold).clamp(0, n.levels).round()
    return (h >= threshold if n.fire == "ge" else h > threshold).to(h.dtype)


def _hard_reset(n: Neuron, h: Tensor, s: Tensor) -> Tensor:
    return s * n.reset_to + (1 - s) * h if n.levels > 1 else torch.where(s > 0, n.reset_to, h)


def _amount(n: Neuron, threshold: Tensor) -> Tensor:
    return threshold if n.amount is None else torch.full_like(threshold, n.amount)


def _reset(n: Neuron, v: Tensor, h: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    """The state after a step that v entered."""
    if n.reset == "hard":
        return _hard_reset(n, h, s)
    if n.reset == "soft":
        return h - s * _amount(n, threshold)
    if n.reset == "twice_soft":
        return h - (s - _fire(n, v, threshold)) * _amount(n, threshold)
    return h


def _differentiable_reset(n: Neuron, v: Tensor, h: Tensor, s: Tensor, threshold: Tensor) -> Tensor:
    """The state after a step, also as a function of s."""
    after = _reset(n, v, h, s, threshold)
    if n.reset != "hard" or n.levels > 1:
        return after
    nothing = s - s.detach()  # with the derivative 1; an infinite h times it is to stay nothing, too
    return after + nothing * (n.reset_to - h).nan_to_num()


def spike_slopes(n: Neuron, h: Tensor, threshold: Tensor) -> Tensor:
    """The surrogate derivative of the spikes by h, one step or all of them."""
    if n.levels > 1:
        return n.surrogate(h / threshold) / threshold
    return n.surrogate(h - threshold)


def _start(i: Inputs) -> Tensor:
    return i.v0 if i.v0 is not None else torch.full_like(i.row, i.neuron.rest, dtype=STATE[i.x.dtype])


def parameter(p: Tensor | None, number: float, row: Tensor) -> Tensor:
    """A parameter as a tensor that broadcasts against one step, [B, C, ...]."""
    if p is None:
        return torch.full((), number, dtype=STATE[row.dtype], device=row.device)
    if p.numel() == 1:
        return p.reshape(())
    return p.reshape(-1, *[1] * (row.dim() - 2)) if p.dim() == 1 < row.dim() else p


def _parameters(i: Inputs) -> tuple[Tensor, Tensor]:
    n = i.neuron
    return parameter(i.decay, n.decay, i.row), parameter(i.threshold, n.threshold, i.row)


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


def run(i: Inputs, differentiable: bool = False) -> Steps:
    """All steps, in the type of the state.

    Args:
        differentiable: whether torch is to differentiate the steps, with the surrogate as the spikes' derivative. To
            any order, and forward and backward: this is what the derivatives of the operation are.
    """
    n, (decay, threshold) = i.neuron, _parameters(i)
    v = _start(i)
    spikes, states, membranes = [], [], []
    for x in _currents(i):
        v = v if n.carries or not differentiable else v.detach()
        h = _charge(n, v, x, decay, threshold)
        s = _fire(n, h, threshold)
        if differentiable:
            s = with_slope(s, h / threshold if n.levels > 1 else h - threshold, n.surrogate)
            v = _differentiable_reset(n, v, h, s.detach() if n.detach_reset else s, threshold)
        else:
            v = _reset(n, v, h, s, threshold)
        spikes.append(s)
        states.append(v)
        membranes.append(h)
    return Steps(torch.stack(spikes), torch.stack(states), torch.stack(membranes))


def backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str = "spikes"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x (as it enters the neuron) and v0, and each neuron's share of those of decay and threshold.

    grad is that of the output, [T, ...]: of the spikes before their scale, the states or the membrane potentials.
    """
    n, (decay, threshold) = i.neuron, _parameters(i)
    inputs, steps = _currents(i), run(i)
    entered = torch.cat([_start(i)[None], steps.states[:-1]])
    slopes = spike_slopes(n, steps.membranes, threshold)
    grads = {name: torch.zeros_like(slopes) for name in ("spikes", "states", "membranes")}
    grads[output] = grad.to(slopes.dtype)

    gv = torch.zeros_like(slopes[0]) if grad_v is None else grad_v
    grad_x = torch.empty_like(slopes)
    grad_decay, grad_threshold = torch.zeros_like(gv), torch.zeros_like(gv)
    one, amount = torch.ones_like(decay), _amount(n, threshold)
    input_share = _over_decay(n, one, decay) if n.charge == "decay_input" else one
    state_share = decay if n.charge == "beta" else one - _over_decay(n, one, decay)
    follows = n.reset in RESET_NOW and not n.detach_reset  # the gradient passes through the spike of the reset
    for t in reversed(range(i.length)):
        x, v, s, h, slope = inputs[t], entered[t], steps.spikes[t], steps.membranes[t], slopes[t]
        gs, gv = grads["spikes"][t], gv + grads["states"][t]
        dv_ds = n.reset_to - h if n.reset == "hard" else -amount
        dv_dh = (1 - s if n.reset == "hard" else torch.ones_like(s)) + (dv_ds * slope if follows else 0)
        gh = gs * slope + gv * dv_dh + grads["membranes"][t]

        ds_dthreshold = -slope * (h / threshold) if n.levels > 1 else -slope
        grad_threshold += (gs + gv * dv_ds if follows else gs) * ds_dthreshold
        if n.amount is None:
            earlier = _fire(n, v, threshold) if n.reset in SUBTRACT_FIRST else 0
            grad_threshold -= gv * (s - earlier) if n.reset in ("soft", "twice_soft") else 0
            grad_threshold -= gh * earlier
        cleared = _cleared(n, v, threshold)
        if n.charge == "beta":
            grad_decay += gh * cleared
        else:
            pulled = x - (cleared - n.rest) if n.charge == "decay_input" else -(cleared - n.rest)
            grad_decay += gh * pulled if n.rate else -gh * (pulled / decay / decay)
        gv = gh * state_share if n.carries else torch.zeros_like(gh)
        if n.reset == "next_hard":
            gv = gv * (1 - _fire(n, v, threshold))
        grad_x[t] = gh * input_share
    total = grad_x if i.steps is None else functools.reduce(torch.add, reversed(grad_x))
    return total.to(i.x.dtype), gv, grad_decay, grad_threshold


def forward(i: Inputs, output: str, differentiable: bool = False) -> tuple[Tensor, Tensor]:
    """The result of the operation, in its own type, and the final state."""
    steps, scale = run(i, differentiable), i.neuron.scale
    v = steps.states[-1]
    if output == "packed":
        return pack(in_memory_order(steps.spikes, i.row.stride())), v
    if output in ("states", "membranes"):
        return getattr(steps, output), v
    spikes = mean(steps.spikes) if output == "mean" else steps.spikes
    return (spikes * scale).to(i.x.dtype), v


def mean(spikes: Tensor) -> Tensor:
    """The mean over time, [T, ...] -> [...]: a count, then one true division."""
    count = spikes.sum(0)
    return count / torch.full_like(count, len(spikes))


def pack(spikes: Tensor) -> Tensor:
    """Bits of [T, N] spikes, [T, ceil(N / 8)] bytes, the first neuron in the lowest bit."""
    neurons = spikes.shape[1]
    bits = torch.nn.functional.pad((spikes != 0).int(), (0, -neurons % 8)).unflatten(1, (-1, 8))
    weights = 2 ** torch.arange(8, dtype=torch.int32, device=spikes.device)
    return (bits * weights).sum(2).to(torch.uint8)


def unpack(packed: Tensor, neurons: int) -> Tensor:
    """Spikes [T, N] of 0 and 1, uint8, from packed bits."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).flatten(1)[:, :neurons]
