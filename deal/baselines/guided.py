"""The one-dimensional guided filter: details of rows that stay as they are along columns are stripes."""

from __future__ import annotations

import torch
from torch import Tensor


def guided_filter(
    x: Tensor, reach: int = 10, least: float = 0.16, length: int = 100, least_down: float = 0.01
) -> Tensor:
    """Rows are filtered with themselves as guide; what that takes away is filtered along columns and subtracted.

    Args:
        x: [B, C, H, W]
        reach, length: of the windows along rows and along columns, in pixels to each side.
        least, least_down: the variances below which the filters smooth.
    """
    smooth = _guided(x, x, reach, least, dim=3)
    stripes = _guided(smooth, x - smooth, length, least_down, dim=2)
    return x - stripes


def _guided(guide: Tensor, x: Tensor, reach: int, least: float, dim: int) -> Tensor:
    """x as a linear function of the guide, fitted in windows along one dimension."""
    mean_guide, mean = _boxed(guide, reach, dim), _boxed(x, reach, dim)
    cov = _boxed(guide * x, reach, dim) - mean_guide * mean
    var = _boxed(guide * guide, reach, dim) - mean_guide * mean_guide
    slope = cov / (var + least)
    return _boxed(slope, reach, dim) * guide + _boxed(mean - slope * mean_guide, reach, dim)


def _boxed(x: Tensor, reach: int, dim: int) -> Tensor:
    """Means over windows of `reach` to each side, cut off at the edges."""
    count = x.shape[dim]
    place = torch.arange(count, device=x.device)
    first, last = (place - reach).clamp(min=0), (place + reach + 1).clamp(max=count)
    sums = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), x], dim).double().cumsum(dim)
    shape = [-1 if each == dim else 1 for each in range(4)]
    sums = sums.index_select(dim, last) - sums.index_select(dim, first)
    return (sums / (last - first).reshape(shape)).to(x.dtype)
