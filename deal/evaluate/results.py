"""Results of a benchmark: the metrics of every method on every image, and their means.

Decibels above 100 are rounding and do not rank methods. Means over images count them as 100, so that one perfect image
does not make a mean infinite.

>>> capped(float("inf"))
100.0
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy

EXACT = 100.0  # dB
MEAN = "mean"  # stands for the name of an image in means over images
INPUT = "none"  # the method that returns the degraded image


class Figures(NamedTuple):
    """The metrics of one method on one image, or their means over images."""

    row: str
    method: str
    image: str
    psnr: float
    affine_psnr: float
    ssim: float
    stripe_residual: float
    row_residual: float
    ms: float
    winner: str = ""  # the method that "best-classical" is


DECIBELS = ("psnr", "affine_psnr")
OTHERS = ("ssim", "stripe_residual", "row_residual", "ms")


class Comparison(NamedTuple):
    """One image of a row, clean, degraded and restored by every method, for the contact sheet."""

    clean: numpy.ndarray  # uint8 [H, W], like the others
    degraded: numpy.ndarray
    restored: list[numpy.ndarray]  # by method
    figures: list[Figures]


@dataclass(frozen=True)
class Results:
    """The results of a benchmark.

    Attributes:
        rows: the metrics by row, method and image, in this order, including "none", to which gains refer, and the
            candidates for "best-classical".
        degradations, methods: the rows and columns of tables.
        protocol: a description of the measurement.
        comparisons: for the contact sheet.
    """

    rows: list[Figures]
    degradations: tuple[str, ...]
    methods: tuple[str, ...]
    protocol: str
    comparisons: list[Comparison] = field(default_factory=list)

    def of(self, row: str, method: str) -> list[Figures]:
        """The metrics of one method on the images of a row."""
        found = [each for each in self.rows if (each.row, each.method) == (row, method)]
        if not found:
            raise ValueError("row and method must be in the results")
        return found

    def mean(self, row: str, method: str) -> Figures:
        """The means over images."""
        return mean(self.of(row, method))


def capped(decibels: float) -> float:
    return min(EXACT, decibels)


def mean(figures: list[Figures]) -> Figures:
    """The means over the images of one method and row."""
    means: dict[str, Any] = {name: statistics.fmean(getattr(each, name) for each in figures) for name in OTHERS}
    means |= {name: statistics.fmean(capped(getattr(each, name)) for each in figures) for name in DECIBELS}
    return figures[0]._replace(image=MEAN, **means)
