"""Structural similarity in plain torch: the specification of every other implementation.

The window is a Gaussian of 11 x 11 pixels and deviation 1.5. With its moments at a pixel,

    ssim = (2 ma mb + c1) (2 cov + c2) / ((ma^2 + mb^2 + c1) (va + vb + c2)).

The two variances enter as their sum alone, so that four filtered images are enough: a, b, a^2 + b^2 and ab. Images are
[N, H, W]; half types are computed in float32.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal_kernels._common.types import STATE

WINDOW = 11
REACH = WINDOW // 2


class Settings(NamedTuple):
    """Settings of the map, and of loss = offset + structure * mean(map) + pixel * mean(|a - b|)."""

    data_range: float = 1.0
    valid: bool = False  # whether the map has only windows that lie within the image
    offset: float = 0.0
    structure: float = 1.0
    pixel: float = 0.0
    backend: str | None = None

    @property
    def margin(self) -> int:
        return REACH if self.valid else 0

    @property
    def constants(self) -> tuple[float, float]:
        return (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2


@functools.cache
def taps() -> tuple[float, ...]:
    weights = [math.exp(-((k - REACH) ** 2) / (2 * 1.5**2)) for k in range(WINDOW)]
    return tuple(weight / sum(weights) for weight in weights)


def filtered(images: Tensor, padding: int) -> Tensor:
    """Images [N, H, W] filtered by the window, padded with zeros.

    Written as sums of shifted images, which is exact: a convolution on a GPU may round to TF32, and a variance is the
    difference of two such sums.
    """
    return _filtered_along(_filtered_along(pad(images, [padding] * 4), 1), 2)


def _filtered_along(images: Tensor, axis: int) -> Tensor:
    length = images.shape[axis] - 2 * REACH
    first, *others = taps()
    total = first * images.narrow(axis, 0, length)
    for k, weight in enumerate(others, 1):
        total = total + weight * images.narrow(axis, k, length)
    return total


def similarity(a: Tensor, b: Tensor, c1: float, c2: float, padding: int) -> Tensor:
    """The map: [N, H, W] with a padding of 5, [N, H - 10, W - 10] with 0."""
    return _parts(a.to(STATE[a.dtype]), b.to(STATE[b.dtype]), c1, c2, padding)[0]


def _parts(a: Tensor, b: Tensor, c1: float, c2: float, padding: int) -> tuple[Tensor, ...]:
    mean_a, mean_b, squares, product = (filtered(image, padding) for image in (a, b, a * a + b * b, a * b))
    ab, aabb = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    over1, over2 = 2 * ab + c1, 2 * (product - ab) + c2
    under1, under2 = aabb + c1, (squares - aabb) + c2
    value = (over1 * over2) / (under1 * under2)
    return value, mean_a, mean_b, over1, over2, under1, under2


def gradients(
    grad: Tensor, a: Tensor, b: Tensor, c1: float, c2: float, padding: int, pixel: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a and b, from `grad`, that of the map, and `pixel`, that of every |a - b|."""
    a, b, grad = a.to(STATE[a.dtype]), b.to(STATE[b.dtype]), grad.to(STATE[grad.dtype])
    value, mean_a, mean_b, over1, over2, under1, under2 = _parts(a, b, c1, c2, padding)
    share = 2 * grad / (under1 * under2)
    other, same = (over2 - over1) * share, (under1 - under2) * value * share
    slopes = mean_b * other + mean_a * same, mean_a * other + mean_b * same, -under1 * value * share, over1 * share
    of_a, of_b, squares, product = (filtered(slope, 2 * REACH - padding) for slope in slopes)
    distance = pixel * torch.sign(a - b)
    return of_a + a * squares + b * product + distance, of_b + b * squares + a * product - distance
