"""Statistics of whole columns: what differs from one column to the next, and not slowly, is taken for stripes.

The parameters are the best by the mean PSNR over stripes of 0.05 and 0.1 on val6 of M2VD and on crops of RoadScene.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal.smoothing import smoothed


def median_difference(x: Tensor, width: float = 20.0) -> Tensor:
    """Images less their columns' offsets: medians of differences of neighbours, added up from the left, slow part off.

    Args:
        x: [B, C, H, W]
        width: deviation in columns of the Gaussian mean that is the slow part.
    """
    steps, _ = (x[..., 1:] - x[..., :-1]).sort(2)
    rows = x.shape[2]
    middle = (steps[:, :, (rows - 1) // 2] + steps[:, :, rows // 2]) / 2
    offsets = pad(middle, (1, 0)).cumsum(-1)  # [B, C, W]
    return x - (offsets - smoothed(offsets, width))[:, :, None]


def moment_matching(x: Tensor, width: float = 20.0) -> Tensor:
    """Columns brought to the means and deviations of their surroundings.

    Args:
        x: [B, C, H, W]
        width: deviation in columns of the Gaussian mean over the surroundings.
    """
    means, spreads = x.mean(2, keepdim=True), x.std(2, correction=0, keepdim=True)
    gains = smoothed(spreads, width) / spreads.clamp(min=1e-4)
    return (x - means) * gains + smoothed(means, width)


def midway(x: Tensor, most: int = 8) -> Tensor:
    """Midway equalisation (MIRE): every column gets the mean of its neighbours' sorted values, by rank.

    The mean is Gaussian. Its width, 0 to 8 columns, is what gives an image the least total variation.

    Args:
        x: [B, C, H, W]
        most: the largest width.
    """
    values, places = x.sort(2)
    best = x
    least = _variation(x)
    for width in range(1, most + 1):
        candidate = torch.empty_like(x).scatter_(2, places, smoothed(values, width))
        variation = _variation(candidate)
        best = torch.where((variation < least)[..., None, None], candidate, best)
        least = torch.minimum(variation, least)
    return best


def _variation(x: Tensor) -> Tensor:
    """The total variation of each channel, [B, C]."""
    return sum(x.diff(dim=dim).abs().sum((2, 3)) for dim in (2, 3))
