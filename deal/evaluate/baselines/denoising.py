"""Smoothing of pixel noise and of dead pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal.model.filters import gaussian_smooth

NORMAL_MEDIAN = 0.6745  # the median of |N(0, 1)|


def gaussian_blur(x: Tensor, deviation: float = 2.0) -> Tensor:
    """Images [B, C, H, W] under a Gaussian of this standard deviation in pixels, with mirrored borders."""
    return gaussian_smooth(gaussian_smooth(x, deviation).mT, deviation).mT


def median_filter(x: Tensor) -> Tensor:
    """The median of the 3 x 3 pixels around each pixel of images [B, C, H, W], with repeated borders."""
    height, width = x.shape[2:]
    wide = pad(x, (1, 1, 1, 1), mode="replicate")
    shifted = [wide[..., top : top + height, left : left + width] for top in range(3) for left in range(3)]
    return torch.stack(shifted).median(0).values


def noise_deviation(x: Tensor) -> Tensor:
    """An estimate of the standard deviation of pixel noise, for each channel of images [B, C, H, W], as [B, C].

    It is the median of |x[i, j] - x[i + 1, j] - x[i, j + 1] + x[i + 1, j + 1]| / 2, the finest diagonal detail, divided
    by the median of |N(0, 1)| (Donoho and Johnstone 1994). Offsets of columns and of rows cancel, and a median ignores
    edges; fine texture of the scene counts as noise.

    >>> noise = 0.05 * torch.randn(1, 1, 256, 256) + torch.randn(256)
    >>> bool((noise_deviation(noise) - 0.05).abs() < 0.002)
    True
    """
    detail = x.diff(dim=2).diff(dim=3).flatten(2) / 2  # four pixels have twice the deviation of one
    return detail.abs().median(2).values / NORMAL_MEDIAN if detail.shape[2] else x.new_zeros(x.shape[:2])
