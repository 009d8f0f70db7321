"""Suites of degradations for benchmarks, the same for every method and in every run.

A row is one degradation of a clean image [1, C, H, W] in [0, 1], made of steps in this order:

* stripes, rows, noise: a random value N(0, level^2) is added to every column, row or pixel;
* partial stripes: likewise to every column, between two random rows;
* gain: every column is multiplied by a random value N(1, level^2);
* coarse: the image is reduced by a factor and enlarged again, with bicubic interpolation of a = -0.5 (as in Pillow and
  MATLAB, unlike OpenCV) and antialiasing when it is reduced;
* contrast: level * image + (1 - level) * mean of the image;
* dead: a share of the pixels becomes 0 or 1;
* glow: level * n or level * (1 - n) is added, where n is 1 at a random point and falls towards the corners;
* shading: a slow pattern of a few cosines is added, whose first coefficients are N(0, level^2);
* camera: the protocol of `deal.evaluate.camera_protocol`, with the published ranges at level 1, or lighter ones at 0.5.

Images are not clamped or quantised, except by camera, so values may leave [0, 1]. Random values depend only on the
seed, the index of the image and the name of the row: adding or removing rows does not change the others.

>>> import torch
>>> x = torch.rand(1, 1, 48, 64)
>>> composed = SUITES["standard"][-1]
>>> composed.steps
(('contrast', 0.5), ('coarse', 2), ('stripes', 0.05))
>>> torch.equal(degrade(composed, x, index=3), degrade(composed, x, index=3))
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy
from torch import Generator, Tensor

from deal.evaluate import camera_protocol
from deal_kernels._common.checks import one_of
from deal_kernels.degradation import apply, sample_params


class Row(NamedTuple):
    """One degradation."""

    name: str
    steps: tuple[tuple[str, float], ...]  # each a kind and its level
    best_by: Literal["psnr", "affine_psnr"] = "psnr"  # the metric that ranks methods
    pictured: bool = False  # whether the contact sheet shows it


def _levels(kind: str, *levels: float, pictured: float | None = None) -> list[Row]:
    return [Row(f"{kind} {level:g}", ((kind, level),), pictured=level == pictured) for level in levels]


# In the composed row, stripes have the width of one pixel of the enlarged image. A camera adds them at its own
# resolution, but classical cascades destripe first and enlarge afterwards, so that all methods get stripes one pixel
# wide.
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
# What cameras do beside column stripes: all at once, then one by one.
THERMAL = (
    Row("hard", (("camera", 1.0),), "affine_psnr", pictured=True),
    Row("normal", (("camera", 0.5),), "affine_psnr", pictured=True),
    Row("composed + rows", (*STANDARD[-1].steps, ("rows", 0.05)), "affine_psnr", pictured=True),
    *_levels("rows", 0.05),
    *_levels("partial stripes", 0.05, pictured=0.05),
    *_levels("noise", 0.03, 0.05, pictured=0.05),
    *_levels("dead", 0.005),
    *_levels("glow", 0.2, pictured=0.2),
    *_levels("shading", 0.1),
)
SHORT = {"clean", "stripes 0.05", "stripes 0.1", "x2", "contrast 0.5", "composed"}
CAMERA = {"hard", "normal"}
SUITES: dict[str, tuple[Row, ...]] = {
    "standard": STANDARD,
    "short": tuple(row for row in STANDARD if row.name in SHORT),  # to compare many networks
    "thermal": THERMAL,
    "camera": tuple(row for row in THERMAL if row.name in CAMERA),
}


def rows_of(suite: str | Sequence[Row]) -> tuple[Row, ...]:
    """The rows of a named suite, or the given rows, checked."""
    if isinstance(suite, str):
        one_of("suite", suite, tuple(SUITES))
        return SUITES[suite]
    if not suite:
        raise ValueError("suite must have at least one row; got none")
    for row in suite:
        for kind, _ in row.steps:
            one_of("the kind of a step", kind, tuple(STEPS))
    return tuple(suite)


def degrade(row: Row, x: Tensor, index: int, seed: int = 0) -> Tensor:
    """Degrades the image x [1, C, H, W], which has this index among the images of the benchmark."""
    entropy = numpy.random.SeedSequence([seed, index, *row.name.encode()])
    random = Generator().manual_seed(int(entropy.generate_state(1, numpy.uint64)[0]))
    for kind, level in row.steps:
        x = STEPS[kind](x, level, random)
    return x


def degradations(suite: str | Sequence[Row], seed: int = 0) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """The rows of a suite but the clean one, as functions of an image and its index."""

    def of(row: Row) -> Callable[[Tensor, int], Tensor]:
        return lambda x, index: degrade(row, x, index, seed)

    return {row.name: of(row) for row in rows_of(suite) if row.steps}


Step = Callable[[Tensor, float, Generator], Tensor]


def _random_step(op: str) -> Step:
    def step(x: Tensor, level: float, random: Generator) -> Tensor:
        values = sample_params([op], x, 1, generator=random, **{op: (level, level)})[op]  # type: ignore[arg-type]
        return apply(op, x, values[:, 0])

    return step


def _camera(x: Tensor, level: float, random: Generator) -> Tensor:
    one_of("the level of camera", level, tuple(camera_protocol.LEVELS))
    return camera_protocol.degrade(x, camera_protocol.LEVELS[level], random)


STEPS: dict[str, Step] = {
    "stripes": _random_step("stripe"),
    "rows": _random_step("row_stripe"),
    "gain": _random_step("gain"),
    "noise": _random_step("noise"),
    "partial stripes": _random_step("partial_stripe"),
    "dead": _random_step("dead"),
    "glow": _random_step("glow"),
    "shading": _random_step("shading"),
    "coarse": lambda x, factor, _: apply(f"coarse_{factor:g}", x),
    "contrast": lambda x, share, _: apply(f"contrast_{share:g}", x),
    "camera": _camera,
}
