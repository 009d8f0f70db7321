"""Benchmark of enhancement methods, the same input for every method: clean images that a suite degrades, or degraded
images beside clean ones.

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

import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal.evaluate import metrics, protocol
from deal.evaluate.degradation_suites import Row, degrade, rows_of
from deal.evaluate.degraded_folders import find_partners, read_partners
from deal.evaluate.labels import short_names
from deal.evaluate.method_registry import BEST, Method, candidates, check_methods, find_method, labels
from deal.evaluate.results import INPUT, Comparison, Figures, Results, mean
from deal.io.images import Location, Size, UnusableImage, centre_crop, height_and_width, read_frame, to_uint8
from deal.io.paths import find_images
from deal.model.device import choose_device
from deal_kernels._common.checks import check_integer

SHOWN_IMAGES = 3  # of the contact sheet


class _Case(NamedTuple):
    """A row, and the degraded images of it in the order of the clean ones."""

    row: Row
    inputs: Callable[[], list[Tensor]]


class _Methods(NamedTuple):
    """What is run."""

    shown: tuple[str, ...]  # the columns of tables
    run: dict[str, Method]  # by the names in tables, with the candidates for the best


def run_benchmark(
    images: Location | Sequence[Location], suite: str | Sequence[Row] = "standard", methods: Sequence[str] = (INPUT,),
    *, crop: Size = (256, 320), seed: int = 0, device: str = "auto", progress: bool = False,
) -> Results:  # fmt: skip
    """Degrades clean images, restores them with every method, and measures the restored images.

    Args:
        images: clean images, see `find_images`; colours are converted to grey.
        suite: the name of a suite, or rows, see `deal.evaluate.degradation_suites`.
        methods: names, see `find_method`; and "best-classical", which is the best of `candidates` for each row, ranked
            by the mean of the row's metric, PSNR or affine PSNR, and by the other one if that is above 100 dB.
        crop: height and width of the central crop; None uses whole images.
        seed: of random degradations.
        device: for networks: "cpu", "cuda", ...; "auto" uses CUDA if it is available. Classical methods use the CPU.
        progress: shows a progress bar.
    """
    rows = rows_of(suite)
    check_methods(methods)
    size = height_and_width("crop", crop)
    check_integer("seed", seed, 0)
    chosen = choose_device(device)
    paths = find_images(images)
    found = _find_methods(methods, size, chosen)
    clean = [_crop(path, read_frame(path).tensor(1)[None], size) for path in paths]
    cases = [_Case(row, functools.partial(_degraded, row, clean, seed)) for row in rows]
    said = f"{protocol.of_suite(paths, suite, rows, size, seed)} {protocol.of_methods(methods, rows, chosen)}"
    return _measured(paths, clean, cases, found, said, progress)


def run_on_degraded(
    clean: Location | Sequence[Location], degraded: Location | Sequence[Location], methods: Sequence[str] = (INPUT,),
    *, crop: Size = None, device: str = "auto", progress: bool = False,
) -> Results:  # fmt: skip
    """Restores degraded images with every method, and measures them against clean images of the same names.

    Args:
        clean: clean images, see `find_images`; colours are converted to grey.
        degraded: one or several folders, each with a degraded image of every clean one, of the same name, size and bit
            depth; every folder is a row of the tables. 0 and 1 are black and white of the clean image.
        methods, crop, device, progress: see `run_benchmark`; "best-classical" is chosen for each folder by mean PSNR.
    """
    check_methods(methods)
    size = height_and_width("crop", crop)
    chosen = choose_device(device)
    paths = find_images(clean)
    folders = [degraded] if isinstance(degraded, (str, os.PathLike)) else list(dict.fromkeys(map(Path, degraded)))
    if not folders:
        raise ValueError("degraded must have at least one folder; got none")
    rows = [Row(name, (), pictured=True) for name in short_names(folders)]
    partners = [find_partners(paths, folder) for folder in folders]
    found = _find_methods(methods, size, chosen)
    pairs = [[_cropped_pair(*files, size) for files in zip(paths, each, strict=True)] for each in partners]
    originals = [x for x, _ in pairs[0]]
    cases = [_Case(row, functools.partial(list, [y for _, y in each])) for row, each in zip(rows, pairs, strict=True)]
    said = f"{protocol.of_folders(paths, rows, size)} {protocol.of_methods(methods, rows, chosen)}"
    return _measured(paths, originals, cases, found, said, progress)


def _degraded(row: Row, clean: Sequence[Tensor], seed: int) -> list[Tensor]:
    return [degrade(row, x, index, seed) for index, x in enumerate(clean)]


def _find_methods(names: Sequence[str], size: tuple[int, int] | None, device: torch.device) -> _Methods:
    columns = labels(list(dict.fromkeys(names)))
    run = dict.fromkeys((INPUT, *(each for name in names for each in (candidates() if name == BEST else (name,)))))
    tile: int | Literal["auto"] = "auto" if size is None else 0
    return _Methods(
        tuple(columns.values()), {columns.get(name, name): find_method(name, tile=tile, device=device) for name in run}
    )


def _measured(
    paths: Sequence[Path], clean: Sequence[Tensor], cases: Sequence[_Case], methods: _Methods, said: str, progress: bool
) -> Results:
    for method in methods.run.values():
        method(clean[0])  # the first call of a network prepares its weights and must not be timed
    results = Results([], tuple(case.row.name for case in cases), methods.shown, said)
    total = len(cases) * len(methods.run) * len(paths)
    with tqdm(total=total, unit="result", disable=not progress, file=sys.stderr) as bar:
        for row, degraded in cases:
            inputs = degraded()
            found: dict[str, list[Figures]] = {name: [] for name in methods.run}
            restored: dict[str, list[numpy.ndarray]] = {name: [] for name in methods.run}
            triples = zip(paths, clean, inputs, strict=True)
            for (name, method), (path, x, y) in itertools.product(methods.run.items(), triples):
                image, ms = _restored(method, y, f"{name} gives values that are not finite: {path}, {row.name}")
                found[name].append(_figures(row.name, name, path.name, image, x, ms))
                if row.pictured and len(restored[name]) < SHOWN_IMAGES:
                    restored[name].append(to_uint8(image))
                bar.update()
            _add(results, row, found, restored, list(zip(clean, inputs, strict=True))[:SHOWN_IMAGES])
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
        stripe_residual=metrics.stripe_residual(restored, clean).item(),
        row_residual=metrics.row_residual(restored, clean).item(), ms=ms,
    )  # fmt: skip


def _add(
    results: Results, row: Row, found: dict[str, list[Figures]], restored: dict[str, list[numpy.ndarray]],
    shown: Sequence[tuple[Tensor, Tensor]],
) -> None:  # fmt: skip
    """Adds a row to the results, with the best classical method if that is requested."""
    if BEST in results.methods:
        winner = best(row, [found[name] for name in candidates()])
        found[BEST] = [each._replace(method=BEST, winner=winner) for each in found[winner]]
        restored[BEST] = restored[winner]
    for each in found.values():
        results.rows.extend(each)
    if row.pictured:
        for index, (x, y) in enumerate(shown):
            images = [restored[name][index] for name in results.methods]
            figures = [found[name][index] for name in results.methods]
            results.comparisons.append(Comparison(to_uint8(x), to_uint8(y), images, figures))


def best(row: Row, found: Sequence[list[Figures]]) -> str:
    """The method with the best mean for this row; of equal ones the first."""

    def rank(figures: Figures) -> tuple[float, float]:
        values = (figures.psnr, figures.affine_psnr)
        first, second = values if row.best_by == "psnr" else values[::-1]
        return first, second

    return max(map(mean, found), key=rank).method


def _cropped_pair(clean: Path, degraded: Path, size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    x, y = read_partners(clean, degraded)
    return _crop(clean, x, size), _crop(degraded, y, size)


def _crop(path: Path, x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The image [1, 1, H, W], or its central crop."""
    if size is None:
        return x
    (height, width), (rows, columns) = x.shape[2:], size
    if height < rows or width < columns:
        raise UnusableImage(f"{path} has {height} x {width} pixels; the crop of {rows} x {columns} is too large")
    return centre_crop(x, rows, columns).contiguous()
