"""Destriping by statistics of whole columns: rapid changes from column to column count as stripes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal.model.filters import gaussian_smooth


def median_difference(x: Tensor, width: float = 7.0) -> Tensor:
    """Subtracts column offsets: the cumulative sum of the median differences of neighbouring columns, high-pass
    filtered.

    Args:
        x: [B, C, H, W]
        width: standard deviation, in columns, of the Gaussian of the high-pass filter. Values from 6 to 8 differ by
            0.03 dB. Mirrored ends are better by 0.4 dB than repeated ends.
    """
    steps, _ = (x[..., 1:] - x[..., :-1]).sort(2)
    rows = x.shape[2]
    medians = (steps[:, :, (rows - 1) // 2] + steps[:, :, rows // 2]) / 2
    offsets = pad(medians, (1, 0)).cumsum(-1)  # [B, C, W]
    return x - (offsets - gaussian_smooth(offsets, width))[:, :, None]


def moment_matching(x: Tensor, width: float = 2.0) -> Tensor:
    """Matches the mean and standard deviation of each column to those of its neighbourhood.

    Args:
        x: [B, C, H, W]
        width: standard deviation, in columns, of the Gaussian neighbourhood. A width of 5 is better by 1 dB for
            additive stripes of 0.1, but worse by 1.5 dB on average.
    """
    means, spreads = x.mean(2, keepdim=True), x.std(2, correction=0, keepdim=True)
    gains = gaussian_smooth(spreads, width) / spreads.clamp(min=1e-4)  # [B, C, 1, W]
    return (x - means) * gains + gaussian_smooth(means, width)


def midway(x: Tensor, widest: int = 8) -> Tensor:
    """Midway equalisation (MIRE): each column gets the mean histogram of its neighbours.

    The mean is Gaussian, and its width is the one that gives the image the least total variation.

    Args:
        x: [B, C, H, W]
        widest: the largest standard deviation, in columns, that is tried.
    """
    values, ranks = x.sort(dim=2, stable=True)
    best, least = x, _variation(x)
    for width in range(1, widest + 1):
        candidate = torch.empty_like(x).scatter_(2, ranks, gaussian_smooth(values, width))
        variation = _variation(candidate)
        best = torch.where((variation < least)[..., None, None], candidate, best)
        least = torch.minimum(variation, least)
    return best


def _variation(x: Tensor) -> Tensor:
    """The total variation of each channel, [B, C]."""
    return x.diff(dim=2).abs().sum((2, 3)) + x.diff(dim=3).abs().sum((2, 3))
