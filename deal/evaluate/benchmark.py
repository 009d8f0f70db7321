"""Benchmark of enhancement methods on clean images with known degradations, the same input for every method.

>>> import tempfile
>>> from PIL import Image
>>> from deal.io.synthetic import thermal_scene
>>> folder = Path(tempfile.mkdtemp())
>>> Image.fromarray(to_uint8(thermal_scene(96, 128))).save(folder / "scene.png")
>>> results = run_benchmark(folder, methods=["none", "median-difference"], crop=(64, 96))
>>> results.mean("stripes 0.1", "median-difference").psnr > results.mean("stripes 0.1", "none").psnr + 3
True
"""

from __future__ import annotations

import itertools
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

from deal.evaluate import metrics
from deal.evaluate.degradation_suites import Row, degrade, rows_of
from deal.evaluate.method_registry import BEST, BUNDLED, CLASSICAL, Method, check_methods, find_method, labels
from deal.io.images import Location, Size, UnusableImage, centre_crop, height_and_width, read_frame, to_uint8
from deal.io.paths import find_images
from deal.model.device import choose_device
from deal.model.pretrained import bundled_weights
from deal_kernels._common.checks import check_integer

SHOWN_IMAGES = 3  # of the contact sheet
EXACT = 100.0  # dB; differences above this are rounding and do not rank methods


class Figures(NamedTuple):
    """The metrics of one method on one image, or their means over images."""

    row: str
    method: str
    image: str
    psnr: float
    affine_psnr: float
    ssim: float
    stripe_residual: float
    ms: float
    winner: str = ""  # the method that "best-classical" is


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
        rows: the metrics by row, method and image, in this order, including the candidates for "best-classical".
        degradations, methods: the rows and columns of tables.
        protocol: a description of the measurement.
        comparisons: for the contact sheet.
    """

    rows: list[Figures]
    degradations: tuple[str, ...]
    methods: tuple[str, ...]
    protocol: str
    comparisons: list[Comparison] = field(default_factory=list)

    def mean(self, row: str, method: str) -> Figures:
        """The means over images."""
        return _mean([each for each in self.rows if (each.row, each.method) == (row, method)])


def run_benchmark(
    images: Location | Sequence[Location], suite: str | Sequence[Row] = "standard", methods: Sequence[str] = ("none",),
    *, crop: Size = (256, 320), seed: int = 0, device: str = "auto", progress: bool = False,
) -> Results:  # fmt: skip
    """Degrades clean images, restores them with every method, and measures the restored images.

    Args:
        images: clean images, see `find_images`; colours are converted to grey.
        suite: the name of a suite, or rows, see `deal.evaluate.degradation_suites`.
        methods: names, see `find_method`; and "best-classical", which is the best of `CLASSICAL` for each row, ranked
            by the mean of the row's metric, PSNR or affine PSNR, and by the other one if that is above 100 dB.
        crop: height and width of the central crop; None uses whole images.
        seed: of random degradations.
        device: for networks: "cpu", "cuda", ...; "auto" uses CUDA if it is available. Classical methods use the CPU.
        progress: shows a progress bar.
    """
    degradations = rows_of(suite)
    check_methods(methods)
    size = height_and_width("crop", crop)
    check_integer("seed", seed, 0)
    chosen = choose_device(device)
    paths = find_images(images)
    columns = labels(list(dict.fromkeys(methods)))
    names = dict.fromkeys(each for name in methods for each in (CLASSICAL if name == BEST else (name,)))
    tile: int | Literal["auto"] = "auto" if size is None else 0
    run = {columns.get(name, name): find_method(name, tile=tile, device=chosen) for name in names}
    clean = [_cropped(path, size) for path in paths]
    for method in run.values():
        method(clean[0])  # the first call of a network prepares its weights and must not be timed
    protocol = _protocol(paths, suite, methods, size, seed, chosen)
    results = Results([], tuple(row.name for row in degradations), tuple(columns.values()), protocol)
    total = len(degradations) * len(run) * len(paths)
    with tqdm(total=total, unit="result", disable=not progress, file=sys.stderr) as bar:
        for row in degradations:
            inputs = [degrade(row, x, index, seed) for index, x in enumerate(clean)]
            found: dict[str, list[Figures]] = {name: [] for name in run}
            restored: dict[str, list[numpy.ndarray]] = {name: [] for name in run}
            for (name, method), (path, x, y) in itertools.product(run.items(), zip(paths, clean, inputs, strict=True)):
                image, ms = _restored(method, y, f"{name} gives values that are not finite: {path}, {row.name}")
                found[name].append(_figures(row.name, name, path.name, image, x, ms))
                if row.pictured and len(restored[name]) < SHOWN_IMAGES:
                    restored[name].append(to_uint8(image))
                bar.update()
            _add(results, row, found, restored, zip(clean[:SHOWN_IMAGES], inputs[:SHOWN_IMAGES], strict=True))
    return results


def _restored(method: Method, y: Tensor, error: str) -> tuple[Tensor, float]:
    """y restored by the method, and the milliseconds it took."""
    start = time.perf_counter()
    restored = method(y)
    ms = 1e3 * (time.perf_counter() - start)
    if not restored.isfinite().all():
        raise UnusableImage(error)
    return restored.clamp(0, 1), ms


def _figures(row: str, method: str, image: str, restored: Tensor, clean: Tensor, ms: float) -> Figures:
    return Figures(
        row, method, image, psnr=metrics.psnr(restored, clean).item(),
        affine_psnr=metrics.affine_psnr(restored, clean).item(), ssim=metrics.ssim(restored, clean).item(),
        stripe_residual=metrics.stripe_residual(restored, clean).item(), ms=ms,
    )  # fmt: skip


def _add(
    results: Results, row: Row, found: dict[str, list[Figures]], restored: dict[str, list[numpy.ndarray]],
    inputs: Iterable[tuple[Tensor, Tensor]],
) -> None:  # fmt: skip
    """Adds a row to the results, with the best classical method if that is requested."""
    if BEST in results.methods:
        winner = best(row, [_mean(found[name]) for name in CLASSICAL])
        found[BEST] = [each._replace(method=BEST, winner=winner) for each in found[winner]]
        restored[BEST] = restored[winner]
    for each in found.values():
        results.rows.extend(each)
    if row.pictured:
        for index, (x, y) in enumerate(inputs):
            images = [restored[name][index] for name in results.methods]
            figures = [found[name][index] for name in results.methods]
            results.comparisons.append(Comparison(to_uint8(x), to_uint8(y), images, figures))


def best(row: Row, means: Sequence[Figures]) -> str:
    """The method with the best mean for this row; of equal ones the first."""

    def rank(figures: Figures) -> tuple[float, float]:
        values = [min(EXACT, value) for value in (figures.psnr, figures.affine_psnr)]
        first, second = values if row.best_by == "psnr" else values[::-1]
        return first, second

    return max(means, key=rank).method


def _mean(figures: Sequence[Figures]) -> Figures:
    if not figures:
        raise ValueError("row and method must be in the results")
    numbers = ("psnr", "affine_psnr", "ssim", "stripe_residual", "ms")
    means: dict[str, Any] = {name: statistics.fmean(getattr(each, name) for each in figures) for name in numbers}
    return figures[0]._replace(image="mean", **means)


def _cropped(path: Path, size: tuple[int, int] | None) -> Tensor:
    """The image [1, 1, H, W], or its central crop."""
    x = read_frame(path).tensor(1)[None]
    if size is None:
        return x
    (height, width), (rows, columns) = x.shape[2:], size
    if height < rows or width < columns:
        raise UnusableImage(f"{path} has {height} x {width} pixels; the crop of {rows} x {columns} is too large")
    return centre_crop(x, rows, columns).contiguous()


def _protocol(
    paths: list[Path], suite: str | Sequence[Row], methods: Sequence[str], size: tuple[int, int] | None, seed: int,
    device: torch.device,
) -> str:  # fmt: skip
    folders = ", ".join(dict.fromkeys(path.absolute().parent.name for path in paths))
    area = "whole" if size is None else f"central {size[0]} x {size[1]} pixels"
    chosen = f"suite {suite}" if isinstance(suite, str) else "custom rows"
    camera = any(kind == "camera" for row in rows_of(suite) for kind, _ in row.steps)
    quantised = ", except by the camera protocol" if camera else ""
    sentences = [
        f"{len(paths)} images of {folders}, {area}, grey, 0 to 1; {chosen}, seed {seed}, with separate random values "
        "for every image and row; bicubic interpolation with a = -0.5, antialiased when reduced; degraded images are "
        f"not clamped or quantised{quantised}, restored images are clamped to 0 to 1.",
        "Metrics are means over images: PSNR for a peak of 1; affine PSNR after least-squares alignment of a result to "
        "its clean image by gain and offset; SSIM with 11 x 11 Gaussian windows of standard deviation 1.5 inside the "
        "image; stripe residual, the root mean square of the error's column means after subtraction of their Gaussian "
        "mean.",
    ]
    if BEST in methods:
        affine = ", ".join(row.name for row in rows_of(suite) if row.best_by == "affine_psnr")
        sentences.append(
            f"{BEST} is the best of {', '.join(CLASSICAL)} for each row, by mean PSNR"
            + (f", but for {affine} by mean affine PSNR" if affine else "")
            + f"; values above {EXACT:g} dB count as equal, and then the other metric decides."
        )
    weights = bundled_weights()
    if BUNDLED in methods and weights is not None:
        sentences.append(f"{BUNDLED} is {weights.name}.")
    sentences.append(f"torch {torch.__version__}, {device}, threads: {torch.get_num_threads()}.")
    return " ".join(sentences)
