"""Named suites of degradations: what methods are measured on, the same for every method and in every run.

A row is one degradation of a clean image [1, C, H, W] in [0, 1], some steps one after the other:

* stripes, rows: plus a value for every column or row, N(0, level^2);
* gain: times a value for every column, N(1, level^2);
* coarse: down by a factor and up again, bicubically with a = -0.5 (as Pillow and MATLAB have it, not OpenCV), with
  antialiasing down;
* contrast: level of the image and 1 - level of its mean.

Nothing is clamped and nothing is quantised, so stripes reach beyond [0, 1], and so may the bicubic kernel. Random
values depend on the seed, the image's place and the row's name alone: a row more or less changes no other.

>>> import torch
>>> x = torch.rand(1, 1, 48, 64)
>>> composed = SUITES["standard"][-1]
>>> composed.steps
(('contrast', 0.5), ('coarse', 2), ('stripes', 0.05))
>>> torch.equal(degraded(composed, x, place=3), degraded(composed, x, place=3))
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy
from torch import Generator, Tensor

from deal_kernels.degradation import apply, sample_params
from deal_kernels.lif.arguments import one_of


class Row(NamedTuple):
    """A degradation."""

    name: str
    steps: tuple[tuple[str, float], ...]  # each a kind and its level
    best_by: Literal["psnr", "affine_psnr"] = "psnr"  # which figure says what the best method is
    pictured: bool = False  # whether a sheet of pictures shows it


def _levels(kind: str, *levels: float, pictured: float | None = None) -> list[Row]:
    return [Row(f"{kind} {level:g}", ((kind, level),), pictured=level == pictured) for level in levels]


# The composed row has its stripes on the full grid. A camera adds them where it reads out, at its own resolution, but
# methods are compared as cascades that destripe first and enlarge afterwards, so all get stripes that are a pixel wide.
STANDARD = (
    Row("clean", ()),
    *_levels("stripes", 0.02, 0.05, 0.1, 0.15, pictured=0.1),
    *_levels("gain", 0.05, 0.1, pictured=0.1),
    *_levels("rows", 0.05),
    Row("x2", (("coarse", 2),), pictured=True),
    Row("x4", (("coarse", 4),)),
    Row("contrast 0.7", (("contrast", 0.7),), "affine_psnr"),
    Row("contrast 0.5", (("contrast", 0.5),), "affine_psnr"),
    Row("composed", (("contrast", 0.5), ("coarse", 2), ("stripes", 0.05)), "affine_psnr", pictured=True),
)
SHORT = {"clean", "stripes 0.05", "stripes 0.1", "x2", "contrast 0.5", "composed"}
SUITES: dict[str, tuple[Row, ...]] = {
    "standard": STANDARD,
    "short": tuple(row for row in STANDARD if row.name in SHORT),  # for comparisons of many networks
}


def rows_of(suite: str | Sequence[Row]) -> tuple[Row, ...]:
    """The rows of a suite by its name; rows stay what they are."""
    if isinstance(suite, str):
        one_of("suite", suite, tuple(SUITES))
        return SUITES[suite]
    if not suite:
        raise ValueError("suite must have at least one row; got none")
    for row in suite:
        for kind, _ in row.steps:
            one_of("the kind of a step", kind, tuple(STEPS))
    return tuple(suite)


def degraded(row: Row, x: Tensor, place: int, seed: int = 0) -> Tensor:
    """The image x [1, C, H, W], which is at this place among its like, degraded."""
    entropy = numpy.random.SeedSequence([seed, place, *row.name.encode()])
    random = Generator().manual_seed(int(entropy.generate_state(1, numpy.uint64)[0]))
    for kind, level in row.steps:
        x = STEPS[kind](x, level, random)
    return x


Step = Callable[[Tensor, float, Generator], Tensor]


def _drawn(op: str) -> Step:
    def step(x: Tensor, level: float, random: Generator) -> Tensor:
        values = sample_params([op], x, 1, generator=random, **{op: (level, level)})[op]  # type: ignore[arg-type]
        return apply(op, x, values[:, 0])

    return step


STEPS: dict[str, Step] = {
    "stripes": _drawn("stripe"),
    "rows": _drawn("row_stripe"),
    "gain": _drawn("gain"),
    "coarse": lambda x, factor, _: apply(f"coarse_{factor:g}", x),
    "contrast": lambda x, share, _: apply(f"contrast_{share:g}", x),
}
