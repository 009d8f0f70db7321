"""Structural similarity (SSIM) of images, and the loss that adds the mean distance of pixels to it.

The window is an 11 x 11 Gaussian of deviation 1.5, the constants are (0.01 range)^2 and (0.03 range)^2. Forward, and
forward with the gradients, each read the images once: the filtered images exist only as a few rows in a cache.

>>> import torch
>>> from deal_kernels.ssim import ssim
>>> image = torch.rand(2, 3, 64, 48)  # [B, C, H, W]
>>> ssim(image, image)
tensor(1.)
"""

from deal_kernels.ssim.functional import l1_ssim, ssim, ssim_map
from deal_kernels.ssim.modules import L1SSIM

__all__ = ["L1SSIM", "l1_ssim", "ssim", "ssim_map"]
