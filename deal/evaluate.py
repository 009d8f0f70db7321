"""Methods measured on clean images that were degraded on purpose: every method on the same input.

>>> import tempfile
>>> from PIL import Image
>>> from deal.picture import grey
>>> from deal.scenes import thermal_scene
>>> folder = Path(tempfile.mkdtemp())
>>> Image.fromarray(grey(thermal_scene(96, 128))).save(folder / "scene.png")
>>> results = evaluate(folder, methods=["none", "median-difference"], crop=(64, 96))
>>> results.mean("stripes 0.1", "median-difference").psnr > results.mean("stripes 0.1", "none").psnr + 3
True
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal import metrics
from deal.baselines import Method
from deal.data import Location, UnusableImage, find_images, read_frame
from deal.enhance import bundled, chosen_device
from deal.methods import BEST, BUNDLED, CLASSICAL, check_methods, labels, method_of
from deal.picture import grey
from deal.suites import Row, degraded, rows_of

Crop = tuple[int, int] | None
PICTURED = 3  # images
EXACT = 100.0  # dB: what is beyond is rounding, and makes no method better than another


class Figures(NamedTuple):
    """One method on one image, or the mean over images."""

    row: str
    method: str
    image: str
    psnr: float
    affine_psnr: float
    ssim: float
    stripe_residual: float
    ms: float
    winner: str = ""  # of "best-classical", which one it is


class Strip(NamedTuple):
    """What a row makes of an image and methods make of that, for a picture."""

    clean: numpy.ndarray  # uint8 [H, W], as are the others
    degraded: numpy.ndarray
    restored: list[numpy.ndarray]  # by each of the methods
    figures: list[Figures]


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        rows: the figures of every row, method and image, in this order. Those that "best-classical" was chosen from are
            there as well.
        degradations, methods: the names of a table's rows and columns, in their order.
        protocol: how it was measured, in words.
        strips: for a sheet of pictures.
    """

    rows: list[Figures]
    degradations: tuple[str, ...]
    methods: tuple[str, ...]
    protocol: str
    strips: list[Strip] = field(default_factory=list)

    def mean(self, row: str, method: str) -> Figures:
        """The means over images."""
        return _mean([each for each in self.rows if (each.row, each.method) == (row, method)])


def evaluate(
    images: Location | Sequence[Location], suite: str | Sequence[Row] = "standard", methods: Sequence[str] = ("none",),
    *, crop: Crop = (256, 320), seed: int = 0, device: str = "auto", progress: bool = False,
) -> Results:  # fmt: skip
    """Degrades images, restores them, and compares them to what they were.

    Args:
        images: clean ones, see `find_images`; of colours their brightness is taken.
        suite: the name of a suite, or rows, see `deal.suites`.
        methods: names, see `method_of`; and "best-classical", for every row the best of `CLASSICAL`: by the mean over
            images of the figure that the row names, and where that is exact by the other one.
        crop: height and width of what is taken from the middle of an image; None takes all.
        seed: of what is random in the degradations.
        device: of networks: "cpu", "cuda", ...; "auto" takes CUDA where it is there. Classical methods run on the CPU.
        progress: shows a bar.
    """
    degradations = rows_of(suite)
    check_methods(methods)
    _check_crop(crop)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}")
    paths = find_images(images)
    columns = labels(list(dict.fromkeys(methods)))
    names = dict.fromkeys(each for name in methods for each in (CLASSICAL if name == BEST else (name,)))
    tile: int | Literal["auto"] = "auto" if crop is None else 0
    run = {columns.get(name, name): method_of(name, tile=tile, device=device) for name in names}
    clean = [_middle(path, crop) for path in paths]
    for method in run.values():
        method(clean[0])  # a network's first call prepares its weights, which no image's time is to contain
    protocol = _protocol(paths, suite, methods, crop, seed, device)
    results = Results([], tuple(row.name for row in degradations), tuple(columns.values()), protocol)
    total = len(degradations) * len(run) * len(paths)
    with tqdm(total=total, unit="result", disable=not progress, file=sys.stderr) as bar:
        for row in degradations:
            inputs = [degraded(row, x, place, seed) for place, x in enumerate(clean)]
            found = {}
            for name, method in run.items():
                found[name] = [
                    _restored(row, name, method, *each, bar) for each in zip(paths, clean, inputs, strict=True)
                ]
            _add(results, row, found, clean, inputs)
    return results


Found = dict[str, list[tuple[Figures, numpy.ndarray]]]


def _restored(
    row: Row, name: str, method: Method, path: Path, clean: Tensor, y: Tensor, bar: tqdm[NoReturn]
) -> tuple[Figures, numpy.ndarray]:
    """How near a method brings y to the clean image, and what it makes of it in 8 bits."""
    start = time.perf_counter()
    restored = method(y)
    ms = 1e3 * (time.perf_counter() - start)
    if not restored.isfinite().all():
        raise UnusableImage(f"{name} gives values that are not finite for {path}, {row.name}")
    restored = restored.clamp(0, 1)
    bar.update()
    return Figures(row.name, name, path.name, *(each(restored, clean).item() for each in MEASURES), ms), grey(restored)


def _add(results: Results, row: Row, found: Found, clean: list[Tensor], inputs: list[Tensor]) -> None:
    """To the results those of a row, with the best classical ones where they are asked for."""
    if BEST in results.methods:
        winner = best(row, [_mean([figures for figures, _ in found[name]]) for name in CLASSICAL])
        found[BEST] = [(figures._replace(method=BEST, winner=winner), image) for figures, image in found[winner]]
    for each in found.values():
        results.rows.extend(figures for figures, _ in each)
    if row.pictured:
        for place, (x, y) in enumerate(zip(clean[:PICTURED], inputs[:PICTURED], strict=True)):
            shown = [found[name][place] for name in results.methods]
            results.strips.append(
                Strip(grey(x), grey(y), [image for _, image in shown], [figures for figures, _ in shown])
            )


MEASURES = (metrics.psnr, metrics.affine_psnr, metrics.ssim, metrics.stripe_residual)


def best(row: Row, means: Sequence[Figures]) -> str:
    """The method whose mean is best for this row, of equals the first."""

    def rank(figures: Figures) -> tuple[float, float]:
        values = [min(EXACT, value) for value in (figures.psnr, figures.affine_psnr)]
        first, second = values if row.best_by == "psnr" else values[::-1]
        return first, second

    return max(means, key=rank).method


def _mean(figures: Sequence[Figures]) -> Figures:
    if not figures:
        raise ValueError("row and method must be ones that were measured")
    numbers = zip(*(each[3:8] for each in figures), strict=True)
    first = figures[0]
    return Figures(first.row, first.method, "mean", *map(statistics.fmean, numbers), first.winner)


def _check_crop(crop: Crop) -> None:
    if crop is not None and (len(crop) != 2 or any(not isinstance(side, int) or side < 1 for side in crop)):
        raise ValueError(f"crop must be a height and a width of at least 1, or None; got {crop!r}")


def _middle(path: Path, crop: Crop) -> Tensor:
    """The image [1, 1, H, W], or its middle."""
    x = read_frame(path).tensor(1)[None]
    if crop is None:
        return x
    (height, width), (rows, columns) = x.shape[2:], crop
    if height < rows or width < columns:
        raise UnusableImage(f"{path} has {height} x {width} pixels; the crop must be no larger; got {rows} x {columns}")
    top, left = (height - rows) // 2, (width - columns) // 2
    return x[..., top : top + rows, left : left + columns].contiguous()


def _protocol(
    paths: list[Path], suite: str | Sequence[Row], methods: Sequence[str], crop: Crop, seed: int, device: str
) -> str:
    folders = ", ".join(dict.fromkeys(path.absolute().parent.name for path in paths))
    cut = "whole" if crop is None else f"{crop[0]} x {crop[1]} from the middle"
    which = f"suite {suite}" if isinstance(suite, str) else "rows of its own"
    said = [
        f"{len(paths)} images of {folders}, {cut}, grey, 0 to 1; {which}, seed {seed}, from which every image and row "
        "has random values of its own; bicubic of a = -0.5, antialiased down; what is degraded is neither clamped nor "
        "quantised, what methods give is clamped to 0 to 1.",
        "Figures are means over images: PSNR for a peak of 1; affine PSNR after the gain and offset of least squares "
        "from a result to its clean image; SSIM of 11 x 11 Gaussian windows of deviation 1.5 inside of the image; "
        "stripe residual, the root mean square of the error's column means less their smoothed self.",
    ]
    if BEST in methods:
        affine = ", ".join(row.name for row in rows_of(suite) if row.best_by == "affine_psnr")
        said.append(
            f"{BEST} is for every row the best of {', '.join(CLASSICAL)}, by mean PSNR"
            + (f", but for {affine} by mean affine PSNR" if affine else "")
            + f"; beyond {EXACT:g} dB all are equal, and the other one of the two decides."
        )
    weights = bundled()
    if BUNDLED in methods and weights is not None:
        said.append(f"{BUNDLED} is {weights.name}.")
    said.append(f"torch {torch.__version__}, {chosen_device(device)}, {torch.get_num_threads()} threads.")
    return " ".join(said)
