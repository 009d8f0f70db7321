"""Glow: a bright or dark spot as wide as the frame, as of a warm lens, and how much of it an image has.

The differences between neighbouring parts of an image are those of the scene, which are large in a few places, and
those of the glow, which are small and change slowly from place to place. So the strength that most differences agree
with is that of the glow. It is found for a spot around each of several points.

>>> import torch
>>> found = Glow(lag=1)(torch.rand(2, *BLOCKS))
>>> found.strength.shape, found.support.shape  # [B, K]
(torch.Size([2, 80]), torch.Size([2, 80]))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deal.model.whole_images import median
from deal_kernels._common.dispatch import exports
from deal_kernels.degradation.patterns import pattern

POINTS = 8, 10  # rows and columns of them
BLOCKS = 16, 20  # the size of the images that are searched
STARTS = (1.0, 0.0)  # of the least-squares strength, where the search starts from
ROUNDS = (3.0, 1.0, 1.0)  # tolerances for agreement, in the last one
TOLERANCE, LEAST = 0.35, 0.003  # the last tolerance, of the median size of differences, and its lower bound


class Evidence(NamedTuple):
    """What an image says about a glow around each point."""

    strength: Tensor  # [B, K]
    support: Tensor  # [B, K], how much better the differences agree with this strength than with none


class Glow(nn.Module):
    """Finds glows in small images.

    Args:
        lag: the distance, in pixels, between the parts that are compared.
    """

    slopes: Tensor
    starts: Tensor

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.register_buffer("slopes", _differences(spots(), lag), persistent=False)  # [K, M]
        self.register_buffer("starts", torch.tensor(STARTS), persistent=False)  # [S]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Evidence:
        """x [B, H, W] of the size `BLOCKS`, with the deviation 1."""
        differences = _differences(x, self.lag)
        tolerance = TOLERANCE * median(differences.abs()).clamp_min(LEAST / TOLERANCE)
        if exports():
            return Evidence(*self._searched(differences, tolerance))
        together = 1 if x.is_cpu else len(x)  # one image at a time fits into the cache of a CPU
        parts = zip(differences.split(together), tolerance.split(together), strict=True)
        found = [self._searched(*each) for each in parts]
        return Evidence(*(torch.cat(values) for values in zip(*found, strict=True)))

    def _searched(self, differences: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
        """Strengths and supports [B, K] for the differences [B, M] of images."""
        differences, tolerance = differences[:, None], tolerance[:, None, None, None]
        squares, products = self.slopes.square(), differences * self.slopes  # [K, M] and [B, K, M]
        least_squares = products.sum(2) / squares.sum(1)
        strengths = least_squares[..., None] * self.starts.to(differences)  # [B, K, S]
        for factor in ROUNDS:
            near = self._distances(differences, strengths, factor * tolerance).add_(1).reciprocal_().square_()
            total = (near @ squares[..., None])[..., 0]
            strengths = (near @ products[..., None])[..., 0] / total.clamp_min(LEAST**2)
        fit = self._distances(differences, strengths, tolerance).add_(1).reciprocal_().mean(3)
        most, index = fit.max(2)
        without = (1 + (differences / tolerance[..., 0]).square()).reciprocal().mean(2)
        return strengths.gather(2, index[..., None])[..., 0], most - without

    def _distances(self, differences: Tensor, strengths: Tensor, tolerance: Tensor) -> Tensor:
        """Squared distances [B, K, S, M] between differences [B, 1, M] and those of glows, in tolerances."""
        scaled = strengths[..., None] / tolerance * self.slopes[:, None]
        return scaled.sub_(differences[:, None] / tolerance).square_()


def spots() -> Tensor:
    """The spot around each point, [K, H, W]."""
    row, column = ((torch.arange(size) + 0.5) / size for size in POINTS)
    points = torch.cartesian_prod(row, column)
    strengths = torch.tensor([1.0, 0.0]).expand(len(points), -1)
    return pattern("glow", torch.cat([points, strengths], 1)[None], *BLOCKS)[0]


def _differences(images: Tensor, lag: int) -> Tensor:
    """Those down and across images [B, H, W], [B, M]."""
    down, across = images[:, lag:] - images[:, :-lag], images[..., lag:] - images[..., :-lag]
    return torch.cat([down.flatten(1), across.flatten(1)], 1)
