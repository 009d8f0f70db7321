"""Layers with the names and arguments of SpikingJelly's, and the fused forms of its neurons.

`standin` has the modules of SpikingJelly that public models import.

>>> import torch
>>> from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d
>>> norm = ThresholdDependentBatchNorm2d(0.7071, 0.15, 8)
>>> norm(torch.randn(4, 2, 8, 5, 5)).shape  # [T, B, C, H, W]
torch.Size([4, 2, 8, 5, 5])
"""

from deal_kernels.compat.spikingjelly.norms import (
    ThresholdDependentBatchNorm1d,
    ThresholdDependentBatchNorm2d,
    ThresholdDependentBatchNorm3d,
)

__all__ = ["ThresholdDependentBatchNorm1d", "ThresholdDependentBatchNorm2d", "ThresholdDependentBatchNorm3d"]
