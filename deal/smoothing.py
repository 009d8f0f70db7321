"""Gaussian means of rows of values, mirrored at the ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mirrored(x: Tensor, dim: int, size: int, before: int = 0) -> Tensor:
    """`size` values along a dimension, the first of them `before` values ahead of x, mirrored as often as it takes.

    >>> mirrored(torch.tensor([1, 2, 3]), 0, 9, before=2)
    tensor([2, 1, 1, 2, 3, 3, 2, 1, 1])
    """
    count = x.shape[dim]
    place = torch.arange(-before, size - before, device=x.device) % (2 * count)
    return x.index_select(dim, torch.minimum(place, 2 * count - 1 - place))


def smoothed(x: Tensor, deviation: float) -> Tensor:
    """The Gaussian mean of [..., W] along the last dimension; what lies beyond three deviations is left out.

    >>> smoothed(torch.ones(2, 5), 1.5)
    tensor([[1., 1., 1., 1., 1.],
            [1., 1., 1., 1., 1.]])
    """
    reach = math.ceil(3 * deviation)
    taps = torch.exp(-((torch.arange(-reach, reach + 1, dtype=torch.float64) / deviation) ** 2) / 2)
    wide = mirrored(x, -1, x.shape[-1] + 2 * reach, reach).reshape(-1, 1, x.shape[-1] + 2 * reach)
    window = (taps / taps.sum()).to(x).reshape(1, 1, -1)
    return torch.nn.functional.conv1d(wide, window).reshape(x.shape)
