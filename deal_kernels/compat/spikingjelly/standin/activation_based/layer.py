"""Layers with the names and arguments of `spikingjelly.activation_based.layer`, version 0.0.0.0.14.

>>> from deal_kernels.compat.spikingjelly.standin.activation_based import layer
>>> layer.Conv2d(3, 8, kernel_size=3, step_mode="m")(torch.randn(4, 2, 3, 5, 5)).shape  # [T, B, C, H, W]
torch.Size([4, 2, 8, 3, 3])
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from deal_kernels.compat.spikingjelly.norms import (
    ThresholdDependentBatchNorm1d,
    ThresholdDependentBatchNorm2d,
    ThresholdDependentBatchNorm3d,
)
from deal_kernels.compat.spikingjelly.standin.attention import MultiDimensionalAttention, TemporalWiseAttention
from deal_kernels.compat.spikingjelly.standin.functional import seq_to_ann_forward
from deal_kernels.compat.spikingjelly.standin.layers import MultiStepContainer, OneMask, SeqToANNContainer
from deal_kernels.compat.spikingjelly.standin.memory import MemoryModule, StepModule
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
    "ConvTranspose3d", "Dropout", "Dropout2d", "Flatten", "GroupNorm", "Linear", "MaxPool1d", "MaxPool2d", "MaxPool3d",
    "MultiDimensionalAttention", "MultiStepContainer", "SeqToANNContainer", "TemporalWiseAttention",
    "ThresholdDependentBatchNorm1d", "ThresholdDependentBatchNorm2d", "ThresholdDependentBatchNorm3d",
]  # fmt: skip

__getattr__ = missing(
    "activation_based.layer",
    "Delay DropConnectLinear ElementWiseRecurrentContainer LinearRecurrentContainer NeuNorm PrintShapeModule "
    "StepModeContainer SynapseFilter VotingLayer",
)


class _OverTime(StepModule, nn.Module):
    """A layer of torch.nn that takes [B, ...], or with step_mode "m" all steps of [T, B, ...] as one batch."""

    axes: ClassVar[int | None] = None  # of the input with step_mode "m"; None is any number of them

    def __init__(self, *args: Any, step_mode: str = "s", **named: Any) -> None:
        super().__init__(*args, **named)
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)  # type: ignore[misc, no-any-return]
        if self.axes is not None and x.dim() != self.axes:
            raise ValueError(f"x must have {self.axes} axes with step_mode='m'; got the shape {tuple(x.shape)}")
        return seq_to_ann_forward(x, super().forward)  # type: ignore[misc]

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [super().extra_repr(), f"step_mode={self.step_mode}"]))


class Conv1d(_OverTime, nn.Conv1d):
    """`torch.nn.Conv1d` with a step_mode."""

    axes = 4


class Conv2d(_OverTime, nn.Conv2d):
    """`torch.nn.Conv2d` with a step_mode."""

    axes = 5


class Conv3d(_OverTime, nn.Conv3d):
    """`torch.nn.Conv3d` with a step_mode."""

    axes = 6


class ConvTranspose1d(_OverTime, nn.ConvTranspose1d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose1d` with a step_mode."""

    axes = 4


class ConvTranspose2d(_OverTime, nn.ConvTranspose2d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose2d` with a step_mode."""

    axes = 5


class ConvTranspose3d(_OverTime, nn.ConvTranspose3d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose3d` with a step_mode."""

    axes = 6


class BatchNorm1d(_OverTime, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` with a step_mode."""

    axes = 4


class BatchNorm2d(_OverTime, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with a step_mode."""

    axes = 5


class BatchNorm3d(_OverTime, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` with a step_mode."""

    axes = 6


class MaxPool1d(_OverTime, nn.MaxPool1d):
    """`torch.nn.MaxPool1d` with a step_mode."""

    axes = 4


class MaxPool2d(_OverTime, nn.MaxPool2d):
    """`torch.nn.MaxPool2d` with a step_mode."""

    axes = 5


class MaxPool3d(_OverTime, nn.MaxPool3d):
    """`torch.nn.MaxPool3d` with a step_mode."""

    axes = 6


class AvgPool1d(_OverTime, nn.AvgPool1d):
    """`torch.nn.AvgPool1d` with a step_mode."""

    axes = 4


class AvgPool2d(_OverTime, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` with a step_mode."""

    axes = 5


class AvgPool3d(_OverTime, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` with a step_mode."""

    axes = 6


class AdaptiveAvgPool1d(_OverTime, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` with a step_mode."""

    axes = 4


class AdaptiveAvgPool2d(_OverTime, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` with a step_mode."""

    axes = 5


class AdaptiveAvgPool3d(_OverTime, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d` with a step_mode."""

    axes = 6


class GroupNorm(_OverTime, nn.GroupNorm):
    """`torch.nn.GroupNorm` with a step_mode."""


class Linear(_OverTime, nn.Linear):
    """`torch.nn.Linear` with a step_mode."""


class Flatten(_OverTime, nn.Flatten):
    """`torch.nn.Flatten` with a step_mode."""


class Dropout(OneMask, MemoryModule):
    """Dropout with one mask for all time steps until reset()."""

    def __init__(self, p: float = 0.5, step_mode: str = "s") -> None:
        super().__init__(p)
        self.step_mode = step_mode

    def single_step_forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.masked(x, x)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:  # type: ignore[override]
        return self.masked(x_seq, x_seq[0])


class Dropout2d(Dropout):
    """`Dropout` of whole channels."""

    draw = staticmethod(F.dropout2d)

    def __init__(self, p: float = 0.2, step_mode: str = "s") -> None:
        super().__init__(p, step_mode)
