"""The spiking neuron in plain torch: the specification of every other implementation.

Time is the first axis. Half types are computed with float32 state.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.cell import Cell
from deal_kernels._common.layout import dense_step, in_memory_order
from deal_kernels._common.neuron import Neuron
from deal_kernels._common.parameters import broadcast
from deal_kernels._common.types import STATE


class Norm(NamedTuple):
    """A normalisation of the input, one value per channel each, and a shortcut added after it."""

    mean: Tensor  # [C]
    scale: Tensor
    shift: Tensor
    shortcut: Tensor | None = None  # the shape of x


class Inputs(NamedTuple):
    """The neuron and its tensors: x is [T, ...], or one step [...] that is repeated `steps` times.

    It has methods where properties would do, as torch.compile of torch 2.9 does not compile those of named tuples.
    """

    neuron: Neuron
    x: Tensor
    v0: Tensor | None  # [...]
    decay: Tensor | None  # one value, one per channel [C], or one per neuron [C, ...] or [B, C, ...]
    threshold: Tensor | None
    steps: int | None
    norm: Norm | None = None

    def length(self) -> int:
        """The number of steps."""
        return self.x.shape[0] if self.steps is None else self.steps

    def row(self) -> Tensor:
        """One step of x."""
        return self.x[0] if self.steps is None else self.x

    def step(self) -> Tensor:
        """A tensor with the shape and strides of one step in dense memory."""
        return dense_step(self.x) if self.steps is None else self.x


class Steps(NamedTuple):
    """What happens at every step, each [T, ...]."""

    spikes: Tensor
    states: Tensor  # after the reset
    membranes: Tensor  # before it


def _start(i: Inputs) -> Tensor:
    return i.v0 if i.v0 is not None else torch.full_like(i.row(), i.neuron.rest, dtype=STATE[i.x.dtype])


def cell_of(i: Inputs) -> Cell:
    """The neuron with its parameters as tensors."""
    n = i.neuron
    return Cell(n, broadcast(i.decay, n.decay, i.row()), broadcast(i.threshold, n.threshold, i.row()))


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
    return x.expand(i.length(), *i.row().shape)


def run(i: Inputs, differentiable: bool = False) -> Steps:
    """All steps, in the type of the state.

    Args:
        differentiable: whether torch is to differentiate the steps, with the surrogate as the spikes' derivative. To
            any order, and forward and backward: this is what the derivatives of the operation are.
    """
    cell, v = cell_of(i), _start(i)
    spikes, states, membranes = [], [], []
    for x in _currents(i):
        v = v if i.neuron.carries or not differentiable else v.detach()
        h = cell.charge(v, x)
        s = cell.fire(h)
        if differentiable:
            s = cell.with_slope(h, s)
            v = cell.differentiable_reset(v, h, s)
        else:
            v = cell.reset(v, h, s)
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
    cell, inputs, steps = cell_of(i), _currents(i), run(i)
    entered = torch.cat([_start(i)[None], steps.states[:-1]])
    slopes = cell.spike_slope(steps.membranes)
    grads = {name: torch.zeros_like(slopes) for name in ("spikes", "states", "membranes")}
    grads[output] = grad.to(slopes.dtype)

    gv = torch.zeros_like(slopes[0]) if grad_v is None else grad_v
    grad_x = torch.empty_like(slopes)
    grad_decay, grad_threshold = torch.zeros_like(gv), torch.zeros_like(gv)
    input_share, state_share = cell.input_share(), cell.state_share()
    for t in reversed(range(i.length())):
        v, s, h, slope = entered[t], steps.spikes[t], steps.membranes[t], slopes[t]
        gs, gv = grads["spikes"][t], gv + grads["states"][t]
        gh = cell.charge_gradient(h, s, slope, gs, gv) + grads["membranes"][t]
        grad_threshold += cell.threshold_gradient(v, h, s, slope, gs, gv, gh)
        grad_decay += cell.decay_gradient(inputs[t], v, gh)
        gv = cell.state_gradient(v, gh, state_share)
        grad_x[t] = gh * input_share
    total = grad_x if i.steps is None else functools.reduce(torch.add, reversed(grad_x))
    return total.to(i.x.dtype), gv, grad_decay, grad_threshold


def forward(i: Inputs, output: str, differentiable: bool = False) -> tuple[Tensor, Tensor]:
    """The result of the operation, in its own type, and the final state."""
    steps, scale = run(i, differentiable), i.neuron.scale
    v = steps.states[-1]
    if output == "packed":
        return pack(in_memory_order(steps.spikes, i.row().stride())), v
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
