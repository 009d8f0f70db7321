"""Layers with the names and arguments of SpikingJelly's.

>>> import torch
>>> from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d
>>> norm = ThresholdDependentBatchNorm2d(0.7071, 0.15, 8)
>>> norm(torch.randn(4, 2, 8, 5, 5)).shape  # [T, B, C, H, W]
torch.Size([4, 2, 8, 5, 5])
"""

from typing import Any

from deal_kernels.tdbn import TDBatchNorm2d


class ThresholdDependentBatchNorm2d(TDBatchNorm2d):
    """The weight starts at alpha * v_th. The other arguments are those of `torch.nn.BatchNorm2d`."""

    def __init__(self, alpha: float, v_th: float, *batch_norm: Any, **named: Any) -> None:
        super().__init__(*batch_norm, **named, alpha=alpha, v_threshold=v_th, initialise_only=True)
