"""Gaussian smoothing along one dimension, with mirrored ends."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mirror_pad(x: Tensor, dim: int, size: int, before: int = 0) -> Tensor:
    """Extends x along `dim` to `size` values, `before` of them ahead of x, by mirroring as often as needed.

    >>> mirror_pad(torch.tensor([1, 2, 3]), 0, 9, before=2)
    tensor([2, 1, 1, 2, 3, 3, 2, 1, 1])
    """
    count = x.shape[dim]
    position = torch.arange(-before, size - before, device=x.device) % (2 * count)
    return x.index_select(dim, torch.minimum(position, 2 * count - 1 - position))


def gaussian_smooth(x: Tensor, deviation: float) -> Tensor:
    """x [..., W] smoothed along the last dimension by a Gaussian that is cut off at three standard deviations.

    >>> gaussian_smooth(torch.ones(2, 5), 1.5)
    tensor([[1., 1., 1., 1., 1.],
            [1., 1., 1., 1., 1.]])
    """
    radius = math.ceil(3 * deviation)
    position = torch.arange(-radius, radius + 1, dtype=torch.float64, device=x.device)
    taps = torch.exp(-((position / deviation) ** 2) / 2)
    padded = mirror_pad(x, -1, x.shape[-1] + 2 * radius, radius).reshape(-1, 1, x.shape[-1] + 2 * radius)
    window = (taps / taps.sum()).to(x).reshape(1, 1, -1)
    return torch.nn.functional.conv1d(padded, window).reshape(x.shape)
