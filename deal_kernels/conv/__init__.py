"""Convolution with large kernels, with padding, bias, residual and ReLU in one operation.

On a CPU an engine multiplies Fourier transforms of small tiles (for 3 x 3 kernels over channels-last images Winograd
transforms), which takes a fraction of the operations. `conv2d` estimates the time of that engine and of torch's own
convolution, and runs the faster one. On a GPU a Triton kernel multiplies on tensor cores; it runs if it is named, or if
its first use has measured it to be faster than torch's convolution.

>>> import torch
>>> from deal_kernels.conv import Conv2d
>>> layer = Conv2d(3, 8, 11, padding=5, padding_mode="reflect", activation="relu")
>>> layer(torch.randn(2, 3, 64, 48)).shape  # [B, C, H, W]
torch.Size([2, 8, 64, 48])
"""

from deal_kernels.conv.functional import conv2d
from deal_kernels.conv.modules import Conv2d

__all__ = ["Conv2d", "conv2d"]
