"""The composed degradation that papers on thermal cameras share: tone, blur, glow, stripes and noise, in this order.

An image has 256 grey values. After every step it is clipped to them and truncated to whole counts:

* tone: x (1 + c) + 255 b, with c and b uniform in their ranges;
* blur: a Gaussian window of 2 r + 1 pixels, with r and the deviation uniform;
* glow: + d n or + d (1 - n), with equal chance, where n = cos(p pi / 2)^4, p is the distance to a random pixel divided
  by the largest such distance, and d is a whole number of counts;
* stripes: x (1 + g) + o, one g and o for each column or for each row, with equal chance; both are normal, with
  deviations that are uniform for every image;
* noise: normal, with a variance that is uniform for every image.

>>> import torch
>>> from deal.io.synthetic import thermal_scene
>>> y = degrade(thermal_scene(64, 80)[None], HARD, torch.Generator().manual_seed(0))
>>> bool((y * 255 == (y * 255).round()).all())
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad

from deal_kernels.degradation import apply

Range = tuple[float, float]


class Ranges(NamedTuple):
    """The range of every random number. Counts are of 255."""

    contrast: Range
    brightness: Range
    radius: tuple[int, int]  # of the blur's window, in pixels
    deviation: Range  # of the blur, in pixels
    glow: tuple[int, int]  # counts
    gain: Range  # standard deviation
    offset: Range  # standard deviation, counts
    noise: Range  # variance, squared counts


# The ranges of the published script.
HARD = Ranges((-0.8, -0.2), (0.2, 0.4), (3, 11), (1.0, 3.0), (15, 75), (0.03, 0.10), (0.0, 5.0), (25.0, 400.0))
# The published ranges of the light case are not known; these are about half as strong.
NORMAL = Ranges((-0.4, -0.1), (0.1, 0.2), (1, 5), (0.5, 1.5), (8, 38), (0.015, 0.05), (0.0, 2.5), (6.0, 100.0))
LEVELS = {1.0: HARD, 0.5: NORMAL}


def degrade(x: Tensor, ranges: Ranges, random: Generator) -> Tensor:
    """The degraded image of a clean one, [1, C, H, W] in [0, 1]."""
    draw = _Draw(random)
    counts = 255 * x.double()
    counts = _whole(counts * (1 + draw.between(*ranges.contrast)) + 255 * draw.between(*ranges.brightness))
    counts = _whole(_blurred(counts, draw.whole(*ranges.radius), draw.between(*ranges.deviation)))
    counts = _whole(apply("glow", counts, _glow(counts, ranges.glow, draw)))
    lines = (1, 1, 1, x.shape[3]) if draw.whole(0, 1) else (1, 1, x.shape[2], 1)
    gain, offset = (draw.between(*each) * draw.normal(lines) for each in (ranges.gain, ranges.offset))
    counts = _whole(counts * (1 + gain) + offset)
    counts = _whole(counts + math.sqrt(draw.between(*ranges.noise)) * draw.normal(x.shape))
    return (counts / 255).to(x)


def _whole(counts: Tensor) -> Tensor:
    return counts.clamp(0, 255).floor()


def _blurred(x: Tensor, radius: int, deviation: float) -> Tensor:
    """x under a Gaussian window of 2 radius + 1 pixels; its borders are mirrored without repeating the last pixel."""
    taps = torch.exp(-((torch.arange(-radius, radius + 1).to(x) / deviation) ** 2) / 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    x = pad(x, [radius] * 4, mode="reflect")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        x = conv2d(x, taps.reshape(shape).expand(channels, *[-1] * 3), groups=channels)
    return x


def _glow(x: Tensor, counts: tuple[int, int], draw: _Draw) -> Tensor:
    """The params of the operation `glow`: the point, and the strengths of the pattern and of its complement."""
    row, column = ((draw.whole(0, size - 1) + 0.5) / size for size in x.shape[2:])
    strength = draw.whole(*counts)
    strengths = (strength, 0) if draw.whole(0, 1) else (0, strength)
    return torch.tensor([[row, column, *strengths]]).to(x)


class _Draw:
    """Random numbers of a generator."""

    def __init__(self, random: Generator) -> None:
        self.random = random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.random, dtype=torch.float64).item()

    def whole(self, first: int, last: int) -> int:
        return int(torch.randint(first, last + 1, (), generator=self.random))

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.random, dtype=torch.float64)
