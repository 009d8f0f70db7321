"""Which pixels of a raw frame belong to the scene: not rows of telemetry, dead pixels, overlays, or very hot spots.

Such values are few and lie far outside the range of the scene, which is known from its quartiles.

>>> pixels = torch.arange(3000.0, 3060.0).repeat(40, 1)  # [H, W]
>>> pixels[0], pixels[20, 30] = 65535.0, 0.0  # a row of telemetry, a dead pixel
>>> scene_rows(pixels)
slice(1, 40, None)
>>> scene_range(pixels)[0] > 2999
True
>>> without_dead_pixels(pixels)[20, 30]
tensor(3029.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor

FENCE = 3.0  # how far beyond its quartiles a scene extends, in distances between the quartiles
MOST_OUTSIDE = 0.05  # share of pixels; where more are outside, they are a part of the scene, such as a cold sky
NEIGHBOURS = 2  # pixels to each side of a dead one whose median replaces it
TELEMETRY = 4  # the most rows of telemetry at a border
PERCENTILES = (0.1, 99.9)  # of the scene: black and white


class Fence(NamedTuple):
    """The range outside of which values are not of the scene."""

    low: float
    high: float

    def keeps(self, pixels: Tensor) -> Tensor:
        return (pixels >= self.low) & (pixels <= self.high)


def fence_of(pixels: Tensor) -> Fence:
    """The fence of pixels [..., H, W]."""
    first, last = numpy.percentile(pixels[..., ::2, ::2].numpy(), (25, 75))
    reach = FENCE * (last - first)
    return Fence(float(first - reach), float(last + reach)) if reach > 0 else Fence(-numpy.inf, numpy.inf)


def scene_rows(pixels: Tensor) -> slice:
    """The rows of pixels [..., H, W] without telemetry: the first and last rows that lie mostly outside the fence.

    More than a few of them are a part of the scene, for instance a cold sky.
    """
    kept = fence_of(pixels).keeps(pixels).float().mean(-1)
    inside = (kept.reshape(-1, kept.shape[-1]).mean(0) >= 0.5).nonzero().flatten().tolist()
    height = pixels.shape[-2]
    first, end = (inside[0], inside[-1] + 1) if inside else (0, height)
    return slice(first if first <= TELEMETRY else 0, end if height - end <= TELEMETRY else height)


def without_dead_pixels(pixels: Tensor) -> Tensor:
    """Pixels [..., H, W]. One outside the fence becomes the median of its neighbours in the row, if that is inside."""
    fence = fence_of(pixels)
    outside = (~fence.keeps(pixels)).nonzero(as_tuple=True)
    if not len(outside[0]):
        return pixels
    near = torch.arange(-NEIGHBOURS, NEIGHBOURS + 1) + outside[-1][:, None]
    near = near.clamp(0, pixels.shape[-1] - 1)
    medians = pixels[(*(each[:, None] for each in outside[:-1]), near)].median(1).values
    result = pixels.clone()
    result[outside] = torch.where(fence.keeps(medians), medians, pixels[outside])
    return result


def scene_range(pixels: Tensor) -> tuple[float, float]:
    """The values of pixels [..., H, W] that are black and white: percentiles of the scene."""
    scene = without_dead_pixels(pixels[..., scene_rows(pixels), :])
    kept = fence_of(scene).keeps(scene)
    if kept.float().mean() >= 1 - MOST_OUTSIDE:
        scene = scene[kept]
    low, high = map(float, numpy.percentile(scene.numpy(), PERCENTILES))
    return low, high if low < high else low + 1
