"""Neurons with several states in plain torch: the specification of every other implementation.

A model is what is charged and which threshold is compared with; the spike and the reset are those of `Cell`. The
derivatives of a step are written out beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.cell import Cell
from deal_kernels._common.layout import dense_step
from deal_kernels._common.parameters import broadcast
from deal_kernels._common.types import STATE
from deal_kernels.multistate.neuron import Multistate

States = tuple[Tensor, ...]


class Inputs(NamedTuple):
    """The neuron and its tensors."""

    neuron: Multistate
    x: Tensor  # [T, ...]
    states: tuple[Tensor | None, ...]  # the initial ones, [...]
    parameters: tuple[Tensor | None, ...]  # one value, one per channel [C], or one per neuron

    def row(self) -> Tensor:
        """One step of x."""
        return self.x[0]

    def step(self) -> Tensor:
        """A tensor with the shape and strides of one step in dense memory."""
        return dense_step(self.x)


class Moment(NamedTuple):
    """What happens at a step."""

    h: Tensor  # the membrane potential before the reset
    threshold: Tensor
    s: Tensor  # the spikes
    left: States  # the states after the step


class Gradients(NamedTuple):
    """Of a step: of the input, of the states that enter it, and of the parameters."""

    x: Tensor
    states: States
    parameters: States


class Cuba:
    """A current that decays, and a membrane that it charges. With rates both move by a share of a difference."""

    def __init__(self, neuron: Multistate, threshold: Tensor, decay: Tensor, current: Tensor) -> None:
        self.cell, self.current = Cell(neuron.cell, decay, threshold), current

    def initial(self) -> States:
        zero = torch.zeros_like(self.cell.threshold)
        return zero + self.cell.neuron.rest, zero

    def step(self, entered: States, x: Tensor) -> Moment:
        (v, i), cell = entered, self.cell
        if cell.neuron.rate:
            c = i + x
            h = v + cell.decay * ((cell.neuron.rest - v) + c)
            left = c - self.current * c
        else:
            c = left = self.current * i + x
            h = cell.decay * v + c
        if cell.neuron.reset == "next_hard":
            h = cell.hard_reset(h, cell.fire(v))
        if cell.subtracts_first():
            h = h - cell.fire(v) * cell.amount()
        s = cell.fire(h)
        return Moment(h, cell.threshold, s, (cell.reset(v, h, s), left))

    def reverse(
        self, entered: States, x: Tensor, now: Moment, slope: Tensor, grad_s: Tensor, grads: States
    ) -> Gradients:
        (v, i), (grad_v, grad_i), cell = entered, grads, self.cell
        grad_h = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v)
        grad_threshold = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_h)
        grad_h = cell.state_gradient(v, grad_h, torch.ones_like(cell.decay))  # a reset of this step lets nothing pass
        if cell.neuron.rate:
            c, pulled = i + x, grad_h * cell.decay
            grad_c = pulled + (grad_i - grad_i * self.current)
            shares = grad_threshold, grad_h * ((cell.neuron.rest - v) + c), -(grad_i * c)
            return Gradients(grad_c, (grad_h - pulled, grad_c), shares)
        grad_c = grad_h + grad_i
        shares = grad_threshold, grad_h * v, grad_c * i
        return Gradients(grad_c, (grad_h * cell.decay, grad_c * self.current), shares)


class Alif:
    """The charge of `lif`; every spike raises the threshold, which falls again."""

    def __init__(
        self, neuron: Multistate, threshold: Tensor, decay: Tensor, adaptation: Tensor, strength: Tensor
    ) -> None:
        self.cell, self.adaptation, self.strength = Cell(neuron.cell, decay, threshold), adaptation, strength

    def initial(self) -> States:
        zero = torch.zeros_like(self.cell.threshold)
        return zero + self.cell.neuron.rest, zero

    def at(self, a: Tensor) -> Cell:
        """The cell with the threshold of the step that a enters."""
        return self.cell._replace(threshold=self.cell.threshold + self.strength * a)

    def step(self, entered: States, x: Tensor) -> Moment:
        v, a = entered
        cell = self.at(a)
        h = cell.charge(v, x)
        s = cell.fire(h)
        return Moment(h, cell.threshold, s, (cell.reset(v, h, s), self.adaptation * a + s))

    def reverse(
        self, entered: States, x: Tensor, now: Moment, slope: Tensor, grad_s: Tensor, grads: States
    ) -> Gradients:
        (v, a), (grad_v, grad_a) = entered, grads
        cell, grad_s = self.at(a), grad_s + grad_a
        grad_h = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v)
        grad_threshold = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_h)
        before = cell.state_gradient(v, grad_h, cell.state_share())
        shares = grad_threshold, cell.decay_gradient(x, v, grad_h), grad_a * a, grad_threshold * a
        states = before, grad_a * self.adaptation + grad_threshold * self.strength
        return Gradients(grad_h * cell.input_share(), states, shares)


class Lsnn:
    """Membrane, current and threshold each move by a share of a difference. The membrane takes the old current."""

    def __init__(
        self, neuron: Multistate, threshold: Tensor, decay: Tensor, current: Tensor, adaptation: Tensor,
        strength: Tensor,
    ) -> None:  # fmt: skip
        self.cell, self.current = Cell(neuron.cell, decay, threshold), current
        self.adaptation, self.strength = adaptation, strength

    def initial(self) -> States:
        zero = torch.zeros_like(self.cell.threshold)
        return zero + self.cell.neuron.rest, zero, self.cell.threshold

    def step(self, entered: States, x: Tensor) -> Moment:
        (v, i, b), rest = entered, self.cell.neuron.rest
        h = v + self.cell.decay * ((rest - v) + i)
        cell = self.cell._replace(threshold=b + self.adaptation * (self.cell.threshold - b))
        s = cell.fire(h)
        left = cell.reset(v, h, s), (i - self.current * i) + x, cell.threshold + s * self.strength
        return Moment(h, cell.threshold, s, left)

    def reverse(
        self, entered: States, x: Tensor, now: Moment, slope: Tensor, grad_s: Tensor, grads: States
    ) -> Gradients:
        (v, i, b), (grad_v, grad_i, grad_b) = entered, grads
        cell, rest = self.cell._replace(threshold=now.threshold), self.cell.neuron.rest
        grad_s = grad_s + grad_b * self.strength
        grad_h = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v)
        grad_b1 = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_h) + grad_b
        pulled, adapted = grad_h * cell.decay, grad_b1 * self.adaptation
        states = grad_h - pulled, pulled + (grad_i - grad_i * self.current), grad_b1 - adapted
        shares = (
            adapted, grad_h * ((rest - v) + i), -(grad_i * i), grad_b1 * (self.cell.threshold - b), grad_b * now.s
        )  # fmt: skip
        return Gradients(grad_i, states, shares)


class Clif:
    """Spikes that the membrane remembers are subtracted, too. What it remembers decays with the membrane."""

    def __init__(self, neuron: Multistate, threshold: Tensor, decay: Tensor) -> None:
        self.cell = Cell(neuron.cell, decay, threshold)

    def initial(self) -> States:
        zero = torch.zeros_like(self.cell.threshold)
        return zero, zero

    def step(self, entered: States, x: Tensor) -> Moment:
        (v, m), cell = entered, self.cell
        h = cell.charge(v, x)
        s = cell.fire(h)
        left = m * torch.sigmoid(cell.over_decay(h)) + s
        return Moment(h, cell.threshold, s, (h - s * (cell.threshold + torch.sigmoid(left)), left))

    def reverse(
        self, entered: States, x: Tensor, now: Moment, slope: Tensor, grad_s: Tensor, grads: States
    ) -> Gradients:
        (v, m), (grad_v, grad_m), cell = entered, grads, self.cell
        kept, amount = torch.sigmoid(cell.over_decay(now.h)), torch.sigmoid(now.left[1])
        grad_m = grad_m - (grad_v * now.s) * (amount * (1 - amount))
        grad_s = (grad_s + grad_m) - grad_v * (cell.threshold + amount)
        grad_kept = (grad_m * m) * (kept * (1 - kept))
        grad_u = grad_s * slope
        grad_h = (grad_u + grad_v) + cell.over_decay(grad_kept)
        scaled = now.h if cell.neuron.rate else -cell.over_decay(cell.over_decay(now.h))
        shares = -(grad_u + grad_v * now.s), grad_kept * scaled + cell.decay_gradient(x, v, grad_h)
        return Gradients(grad_h, (grad_h * cell.state_share(), grad_m * kept), shares)


MODELS = {"cuba": Cuba, "alif": Alif, "lsnn": Lsnn, "clif": Clif}
Model = Cuba | Alif | Lsnn | Clif


class Steps(NamedTuple):
    """What happens at every step."""

    entered: list[States]  # the states before a step
    moments: list[Moment]


def model_of(i: Inputs) -> Model:
    n = i.neuron
    numbers = n.cell.threshold, n.cell.decay, *n.numbers
    model: Model = MODELS[n.model](
        n, *(broadcast(p, value, i.row()) for p, value in zip(i.parameters, numbers, strict=True))
    )
    return model


def run(i: Inputs) -> Steps:
    """All steps, in the type of the state."""
    model, dtype = model_of(i), STATE[i.x.dtype]
    initial = model.initial()
    states = tuple(
        start.expand(i.row().shape) if given is None else given for given, start in zip(i.states, initial, strict=True)
    )
    entered, moments = [], []
    for x in i.x.to(dtype):
        entered.append(states)
        moments.append(model.step(states, x))
        states = moments[-1].left
    return Steps(entered, moments)


def spike_slope(n: Multistate, now: Moment) -> Tensor:
    """The surrogate derivative of the spikes by the membrane potential."""
    slope: Tensor = n.cell.surrogate(now.h - now.threshold)
    if n.window is None:
        return slope
    low, high = n.window
    return torch.where((now.h > low) & (now.h < high), slope, 0)


def backward(
    i: Inputs, grad: Tensor, grad_states: Sequence[Tensor | None], output: str
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of x and of the initial states, and each neuron's share of those of the parameters.

    grad is that of the output, [T, ...], of the spikes or of the states v.
    """
    model, inputs, steps = model_of(i), i.x.to(STATE[i.x.dtype]), run(i)
    zero = torch.zeros(i.row().shape, dtype=inputs.dtype, device=inputs.device)
    grads = [zero if given is None else given for given in grad_states]
    shares = [zero.clone() for _ in i.parameters]
    grad_x = torch.empty_like(inputs)
    for t in reversed(range(len(inputs))):
        now, grad_s = steps.moments[t], grad[t].to(inputs.dtype)
        if output == "states":
            grads, grad_s = [grads[0] + grad_s, *grads[1:]], zero
        slope = spike_slope(i.neuron, now)
        found = model.reverse(steps.entered[t], inputs[t], now, slope, grad_s, tuple(grads))
        grads, grad_x[t] = list(found.states), found.x
        for share, more in zip(shares, found.parameters, strict=True):
            share += more
    return grad_x.to(i.x.dtype), grads, shares
