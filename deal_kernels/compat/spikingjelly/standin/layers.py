"""Containers over time, and dropout with one mask for all steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deal_kernels._common.checks import number
from deal_kernels.compat.spikingjelly.standin.functional import multi_step_forward, seq_to_ann_forward
from deal_kernels.compat.spikingjelly.standin.memory import KeepsStepModes, Memory


class MultiStepContainer(nn.Sequential, KeepsStepModes):
    """Runs its modules at one time step after the other."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return multi_step_forward(x_seq, super().forward)


class SeqToANNContainer(nn.Sequential, KeepsStepModes):
    """Runs its modules on all time steps as one batch.

    SpikingJelly held them in an attribute `module` in 2021. Weights of that layout load, too.
    """

    @property
    def module(self) -> nn.Sequential:
        return self

    def forward(self, x_seq: Tensor) -> Tensor:
        return seq_to_ann_forward(x_seq, super().forward)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in [name for name in state_dict if name.startswith(f"{prefix}module.")]:
            state_dict[prefix + name.removeprefix(f"{prefix}module.")] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class OneMask(Memory):
    """Dropout whose mask stays until reset(), or until the shape changes."""

    draw = staticmethod(F.dropout)
    mask: Any

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= number("p", p) < 1:
            raise ValueError(f"p must be at least 0 and below 1; got {p}")
        self.p = p
        self.register_memory("mask", None)

    def masked(self, x: Tensor, row: Tensor) -> Tensor:
        """x with the mask of one time step `row`."""
        if not self.training:
            return x
        if self.mask is None or self.mask.shape != row.shape:
            self.mask = self.draw(torch.ones_like(row), self.p, training=True)
        return x * self.mask

    def extra_repr(self) -> str:
        return f"p={self.p}"
