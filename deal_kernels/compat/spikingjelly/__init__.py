"""Layers with the names and arguments of SpikingJelly's, and the fused forms of its neurons.

>>> import torch
>>> from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d
>>> norm = ThresholdDependentBatchNorm2d(0.7071, 0.15, 8)
>>> norm(torch.randn(4, 2, 8, 5, 5)).shape  # [T, B, C, H, W]
torch.Size([4, 2, 8, 5, 5])
"""

from deal_kernels.compat.spikingjelly.norms import ThresholdDependentBatchNorm2d

__all__ = ["ThresholdDependentBatchNorm2d"]
