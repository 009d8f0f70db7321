"""Destriping by one-dimensional guided filters (Cao 2015)."""

from __future__ import annotations

import torch
from torch import Tensor


def guided_filter(
    x: Tensor, reach: int = 4, across: float = 0.08, length: int = 256, along: float = 0.1
) -> Tensor:  # fmt: skip
    """Smooths each row with itself as guide, smooths the residual along columns, and subtracts the result.

    Args:
        x: [B, C, H, W]
        reach, length: radius of the windows along rows and along columns, in pixels.
        across, along: the regularisation along rows and along columns; regions with less variance are smoothed.
    """
    smooth = _guided(x, x, reach, across, dim=3)
    return x - _guided(smooth, x - smooth, length, along, dim=2)


def _guided(guide: Tensor, x: Tensor, reach: int, least: float, dim: int) -> Tensor:
    """A local linear function of the guide, fitted to x in windows along one dimension."""
    mean_guide, mean = _boxed(guide, reach, dim), _boxed(x, reach, dim)
    cov = _boxed(guide * x, reach, dim) - mean_guide * mean
    var = _boxed(guide * guide, reach, dim) - mean_guide * mean_guide
    slope = cov / (var + least)
    return _boxed(slope, reach, dim) * guide + _boxed(mean - slope * mean_guide, reach, dim)


def _boxed(x: Tensor, reach: int, dim: int) -> Tensor:
    """Means over windows of radius `reach`, cut off at the borders."""
    count = x.shape[dim]
    position = torch.arange(count, device=x.device)
    first, last = (position - reach).clamp(min=0), (position + reach + 1).clamp(max=count)
    sums = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1)), x], dim).cumsum(dim, dtype=torch.float64)
    totals = sums.index_select(dim, last) - sums.index_select(dim, first)
    sizes = (last - first).reshape([-1 if each == dim else 1 for each in range(4)])
    return (totals / sizes).to(x.dtype)
