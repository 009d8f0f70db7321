"""Metrics of restored images against clean ones, [B, C, H, W] in [0, 1], with one number per image.

Images are not clamped or cropped, and all channels of an image are pooled. Means over images are left to the caller.

>>> clean = torch.linspace(0, 0.5, 64).expand(2, 1, 48, 64)
>>> psnr(clean + 0.2, clean)
tensor([13.9794, 13.9794])
"""

from __future__ import annotations

import torch
from torch import Tensor

from deal.model.filters import gaussian_smooth
from deal_kernels.ssim import ssim_map

SHADING = 20.0  # standard deviation, in columns, of the Gaussian that separates shading from stripes


def psnr(y: Tensor, x: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB, for a peak of 1.

    Args:
        y, x: restored and clean images [B, C, H, W] of one shape.

    Returns:
        [B]; infinity for identical images.
    """
    _check(y, x)
    return _decibels(y - x)


def affine_psnr(y: Tensor, x: Tensor) -> Tensor:
    """`psnr` after least-squares alignment of y to x by one gain and one offset per image.

    A result that differs from x only in contrast and brightness, y = g x + o, is perfect.

    Args:
        y, x: restored and clean images [B, C, H, W] of one shape.

    Returns:
        [B]

    >>> x = torch.rand(1, 1, 32, 32)
    >>> bool(affine_psnr(0.3 * x + 0.2, x) > 100)
    True
    """
    _check(y, x)
    y, x = (images.double() - images.double().mean((1, 2, 3), keepdim=True) for images in (y, x))
    power = (y * y).sum((1, 2, 3), keepdim=True)
    gain = (y * x).sum((1, 2, 3), keepdim=True) / torch.where(power > 0, power, 1)
    return _decibels(gain * y - x)


def ssim(y: Tensor, x: Tensor) -> Tensor:
    """Mean structural similarity for an 11 x 11 Gaussian window of standard deviation 1.5, over windows inside the
    image.

    Args:
        y, x: restored and clean images [B, C, H, W] of one shape, with at least 11 x 11 pixels.

    Returns:
        [B]
    """
    _check(y, x)
    return ssim_map(y, x, padding="valid").mean((1, 2, 3), dtype=torch.float64).float()


def stripe_residual(y: Tensor, x: Tensor) -> Tensor:
    """The strength of vertical stripes in y that are not in x.

    The root mean square, over columns and channels, of the column means of y - x after subtraction of their Gaussian
    mean with a standard deviation of 20 columns, which removes slow shading. For stripes N(0, s^2) added to x it is s,
    less the 1 % that the Gaussian mean contains.

    Args:
        y, x: restored and clean images [B, C, H, W] of one shape.

    Returns:
        [B]
    """
    _check(y, x)
    means = (y.double() - x.double()).mean(2)  # [B, C, W]
    return (means - gaussian_smooth(means, SHADING)).square().mean((1, 2)).sqrt().float()


def row_residual(y: Tensor, x: Tensor) -> Tensor:
    """The strength of horizontal stripes in y that are not in x: `stripe_residual` of the transposed images.

    Args:
        y, x: restored and clean images [B, C, H, W] of one shape.

    Returns:
        [B]

    >>> x = torch.rand(1, 1, 48, 64)
    >>> bool(row_residual(x + 0.1 * torch.randn(48, 1), x) > 10 * stripe_residual(x + 0.1 * torch.randn(48, 1), x))
    True
    """
    _check(y, x)
    return stripe_residual(y.mT, x.mT)


def _decibels(error: Tensor) -> Tensor:
    return -10 * error.double().square().mean((1, 2, 3)).log10().float()


def _check(y: Tensor, x: Tensor) -> None:
    for name, images in (("y", y), ("x", x)):
        if not isinstance(images, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(images).__name__}")
        if images.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64, in [0, 1]; got {images.dtype}")
        if images.dim() != 4 or 0 in images.shape[1:]:
            raise ValueError(
                f"{name} must be [B, C, H, W] with at least one pixel; got the shape {tuple(images.shape)}"
            )
    if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device:
        one, other = ((tuple(images.shape), images.dtype, str(images.device)) for images in (x, y))
        raise ValueError(f"y must have shape, dtype and device of x, {one}; got {other}")
