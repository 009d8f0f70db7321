"""One step of a spiking neuron in plain torch, and its derivatives: what csrc/math/neuron.h is in C++.

Decay and threshold are tensors, so that a division stays a true division on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.neuron import Neuron
from deal_kernels.surrogate import with_slope

RESET_NOW = ("hard", "soft", "twice_soft")
SUBTRACT_FIRST = ("next_soft", "twice_soft")


class Cell(NamedTuple):
    """A neuron with its decay and threshold, which broadcast against one step.

    It has methods where properties would do: torch.compile of torch 2.9 does not compile those of named tuples.
    """

    neuron: Neuron
    decay: Tensor
    threshold: Tensor

    def subtracts_first(self) -> bool:
        """Whether the spike of the step before subtracts from the charged membrane."""
        return self.neuron.reset in SUBTRACT_FIRST

    def amount(self) -> Tensor:
        """What a soft reset subtracts."""
        n = self.neuron
        return self.threshold if n.amount is None else torch.full_like(self.threshold, n.amount)

    def over_decay(self, a: Tensor) -> Tensor:
        return a * self.decay if self.neuron.rate else a / self.decay

    def cleared(self, v: Tensor) -> Tensor:
        """The state that enters a step, after a hard reset if that takes place at the next step."""
        return self.hard_reset(v, self.fire(v)) if self.neuron.reset == "next_hard" else v

    def charge(self, v: Tensor, x: Tensor) -> Tensor:
        """The membrane potential, from the state v that enters the step."""
        n, v = self.neuron, self.cleared(v)
        if n.charge == "decay_input":
            h = v + self.over_decay(x - (v - n.rest))
        elif n.charge == "decay":
            h = (v - self.over_decay(v - n.rest)) + x
        else:
            h = self.decay * v + x
        return h - self.fire(v) * self.amount() if self.subtracts_first() else h

    def fire(self, h: Tensor) -> Tensor:
        n = self.neuron
        if n.levels > 1:
            return (h / self.threshold).clamp(0, n.levels).round()
        return (h >= self.threshold if n.fire == "ge" else h > self.threshold).to(h.dtype)

    def hard_reset(self, h: Tensor, s: Tensor) -> Tensor:
        n = self.neuron
        return s * n.reset_to + (1 - s) * h if n.levels > 1 else torch.where(s > 0, n.reset_to, h)

    def reset(self, v: Tensor, h: Tensor, s: Tensor) -> Tensor:
        """The state after a step that v entered."""
        if self.neuron.reset == "hard":
            return self.hard_reset(h, s)
        if self.neuron.reset == "soft":
            return h - s * self.amount()
        if self.neuron.reset == "twice_soft":
            return h - (s - self.fire(v)) * self.amount()
        return h

    def differentiable_reset(self, v: Tensor, h: Tensor, s: Tensor) -> Tensor:
        """The state after a step, also as a function of s."""
        s = s.detach() if self.neuron.detach_reset else s
        after = self.reset(v, h, s)
        if self.neuron.reset != "hard" or self.neuron.levels > 1:
            return after
        nothing = s - s.detach()  # with the derivative 1; an infinite h times it is to stay nothing, too
        return after + nothing * (self.neuron.reset_to - h).nan_to_num()

    def with_slope(self, h: Tensor, s: Tensor) -> Tensor:
        """The spikes s of h with the surrogate as their derivative, for torch to differentiate to any order."""
        u = h / self.threshold if self.neuron.levels > 1 else h - self.threshold
        return with_slope(s, u, self.neuron.surrogate)

    def spike_slope(self, h: Tensor) -> Tensor:
        """The surrogate derivative of the spikes by h, one step or all of them."""
        if self.neuron.levels > 1:
            return self.neuron.surrogate(h / self.threshold) / self.threshold
        return self.neuron.surrogate(h - self.threshold)

    def charge_gradient(self, h: Tensor, s: Tensor, slope: Tensor, grad_s: Tensor, grad_v: Tensor) -> Tensor:
        """The gradient of h, from those of the spike and of the state after the step."""
        through = 1 - s if self.neuron.reset == "hard" else torch.ones_like(s)
        if self._follows():
            through = through + self._reset_slope(h) * slope
        return grad_s * slope + grad_v * through

    def threshold_gradient(
        self, v: Tensor, h: Tensor, s: Tensor, slope: Tensor, grad_s: Tensor, grad_v: Tensor, grad_h: Tensor
    ) -> Tensor:
        moved = slope * (h / self.threshold) if self.neuron.levels > 1 else slope
        grad = -(grad_s + grad_v * self._reset_slope(h) if self._follows() else grad_s) * moved
        if self.neuron.amount is not None:
            return grad
        if self.neuron.reset in ("soft", "twice_soft"):
            grad = grad - grad_v * (s - self.fire(v) if self.subtracts_first() else s)
        return grad - grad_h * self.fire(v) if self.subtracts_first() else grad

    def input_share(self) -> Tensor:
        """The gradient of the input as a share of that of h."""
        one = torch.ones_like(self.decay)
        return self.over_decay(one) if self.neuron.charge == "decay_input" else one

    def state_gradient(self, v: Tensor, grad_h: Tensor, share: Tensor) -> Tensor:
        """The gradient of the state v that enters the step; `share` is that of `state_share`."""
        grad = grad_h * share
        return grad * (1 - self.fire(v)) if self.neuron.reset == "next_hard" else grad

    def state_share(self) -> Tensor:
        if not self.neuron.carries:
            return torch.zeros_like(self.decay)
        one = torch.ones_like(self.decay)
        return self.decay if self.neuron.charge == "beta" else one - self.over_decay(one)

    def decay_gradient(self, x: Tensor, v: Tensor, grad_h: Tensor) -> Tensor:
        n, v = self.neuron, self.cleared(v)
        if n.charge == "beta":
            return grad_h * v
        pulled = x - (v - n.rest) if n.charge == "decay_input" else -(v - n.rest)
        return grad_h * pulled if n.rate else -grad_h * (pulled / self.decay / self.decay)

    def _follows(self) -> bool:
        """Whether the gradient passes through the spike of the reset."""
        return self.neuron.reset in RESET_NOW and not self.neuron.detach_reset

    def _reset_slope(self, h: Tensor) -> Tensor:
        return self.neuron.reset_to - h if self.neuron.reset == "hard" else -self.amount()
