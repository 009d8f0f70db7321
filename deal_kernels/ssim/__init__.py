"""Structural similarity (SSIM) of images, and a loss that combines it with the mean absolute error.

The window is an 11 x 11 Gaussian of deviation 1.5, the constants are (0.01 range)^2 and (0.03 range)^2. The forward
pass, with or without gradients, reads the images once: of the filtered images only a few rows exist at a time.

>>> import torch
>>> from deal_kernels.ssim import ssim
>>> image = torch.rand(2, 3, 64, 48)  # [B, C, H, W]
>>> ssim(image, image)
tensor(1.)
"""

from deal_kernels.ssim.functional import l1_ssim, ssim, ssim_map
from deal_kernels.ssim.modules import L1SSIM

__all__ = ["L1SSIM", "l1_ssim", "ssim", "ssim_map"]
