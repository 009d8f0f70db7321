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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal import metrics
from deal.baselines import Method
from deal.data import Location, UnusableImage, find_images, middle, read_frame
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
    where = chosen_device(device)
    paths = find_images(images)
    columns = labels(list(dict.fromkeys(methods)))
    names = dict.fromkeys(each for name in methods for each in (CLASSICAL if name == BEST else (name,)))
    tile: int | Literal["auto"] = "auto" if crop is None else 0
    run = {columns.get(name, name): method_of(name, tile=tile, device=where) for name in names}
    clean = [_middle(path, crop) for path in paths]
    for method in run.values():
        method(clean[0])  # a network's first call prepares its weights, which no image's time is to contain
    protocol = _protocol(paths, suite, methods, crop, seed, where)
    results = Results([], tuple(row.name for row in degradations), tuple(columns.values()), protocol)
    total = len(degradations) * len(run) * len(paths)
    with tqdm(total=total, unit="result", disable=not progress, file=sys.stderr) as bar:
        for row in degradations:
            inputs = [degraded(row, x, place, seed) for place, x in enumerate(clean)]
            found: dict[str, list[Figures]] = {name: [] for name in run}
            kept: dict[str, list[numpy.ndarray]] = {name: [] for name in run}
            for name, method in run.items():
                for path, x, y in zip(paths, clean, inputs, strict=True):
                    restored, ms = _restored(method, y, f"{name} gives values that are not finite: {path}, {row.name}")
                    found[name].append(_figures(row.name, name, path.name, restored, x, ms))
                    if row.pictured and len(kept[name]) < PICTURED:
                        kept[name].append(grey(restored))
                    bar.update()
            _add(results, row, found, kept, zip(clean[:PICTURED], inputs[:PICTURED], strict=True))
    return results


def _restored(method: Method, y: Tensor, trouble: str) -> tuple[Tensor, float]:
    """What a method makes of y, and in how many milliseconds."""
    start = time.perf_counter()
    restored = method(y)
    ms = 1e3 * (time.perf_counter() - start)
    if not restored.isfinite().all():
        raise UnusableImage(trouble)
    return restored.clamp(0, 1), ms


def _figures(row: str, method: str, image: str, restored: Tensor, clean: Tensor, ms: float) -> Figures:
    return Figures(
        row, method, image, psnr=metrics.psnr(restored, clean).item(),
        affine_psnr=metrics.affine_psnr(restored, clean).item(), ssim=metrics.ssim(restored, clean).item(),
        stripe_residual=metrics.stripe_residual(restored, clean).item(), ms=ms,
    )  # fmt: skip


def _add(
    results: Results, row: Row, found: dict[str, list[Figures]], kept: dict[str, list[numpy.ndarray]],
    inputs: Iterable[tuple[Tensor, Tensor]],
) -> None:  # fmt: skip
    """To the results those of a row, with the best classical ones where they are asked for."""
    if BEST in results.methods:
        winner = best(row, [_mean(found[name]) for name in CLASSICAL])
        found[BEST] = [each._replace(method=BEST, winner=winner) for each in found[winner]]
        kept[BEST] = kept[winner]
    for each in found.values():
        results.rows.extend(each)
    if row.pictured:
        for place, (x, y) in enumerate(inputs):
            restored = [kept[name][place] for name in results.methods]
            figures = [found[name][place] for name in results.methods]
            results.strips.append(Strip(grey(x), grey(y), restored, figures))


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
    numbers = ("psnr", "affine_psnr", "ssim", "stripe_residual", "ms")
    means: dict[str, Any] = {name: statistics.fmean(getattr(each, name) for each in figures) for name in numbers}
    return figures[0]._replace(image="mean", **means)


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
    return middle(x, rows, columns).contiguous()


def _protocol(
    paths: list[Path], suite: str | Sequence[Row], methods: Sequence[str], crop: Crop, seed: int, device: torch.device
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
    said.append(f"torch {torch.__version__}, {device}, threads: {torch.get_num_threads()}.")
    return " ".join(said)
