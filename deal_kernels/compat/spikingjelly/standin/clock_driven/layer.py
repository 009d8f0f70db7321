"""Layers with the names and arguments of `spikingjelly.clock_driven.layer`, version 0.0.0.0.12."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from deal_kernels.compat.spikingjelly.norms import (
    ThresholdDependentBatchNorm1d as MultiStepThresholdDependentBatchNorm1d,
)
from deal_kernels.compat.spikingjelly.norms import (
    ThresholdDependentBatchNorm2d as MultiStepThresholdDependentBatchNorm2d,
)
from deal_kernels.compat.spikingjelly.norms import (
    ThresholdDependentBatchNorm3d as MultiStepThresholdDependentBatchNorm3d,
)
from deal_kernels.compat.spikingjelly.standin.attention import TemporalWiseAttention as MultiStepTemporalWiseAttention
from deal_kernels.compat.spikingjelly.standin.layers import MultiStepContainer, OneMask, SeqToANNContainer
from deal_kernels.compat.spikingjelly.standin.missing import missing

__all__ = [
    "Dropout", "Dropout2d", "MultiStepContainer", "MultiStepDropout", "MultiStepDropout2d",
    "MultiStepTemporalWiseAttention", "MultiStepThresholdDependentBatchNorm1d",
    "MultiStepThresholdDependentBatchNorm2d", "MultiStepThresholdDependentBatchNorm3d", "SeqToANNContainer",
]  # fmt: skip

__getattr__ = missing(
    "clock_driven.layer",
    "AXAT ChannelsPool ConvBatchNorm2d DCT DropConnectLinear ElementWiseRecurrentContainer LinearRecurrentContainer "
    "NeuNorm PrintShapeModule STDPLearner SynapseFilter",
)


class Dropout(OneMask):
    """Dropout at one time step, with the mask of the step before until reset()."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        return self.masked(x, x)


class Dropout2d(Dropout):
    """`Dropout` of whole channels."""

    draw = staticmethod(F.dropout2d)

    def __init__(self, p: float = 0.2) -> None:
        super().__init__(p)


class MultiStepDropout(Dropout):
    """Dropout with one mask for all steps of x_seq [T, ...]."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.masked(x_seq, x_seq[0])


class MultiStepDropout2d(MultiStepDropout):
    """`MultiStepDropout` of whole channels."""

    draw = staticmethod(F.dropout2d)
