"""Descriptions of measurements, which stand above tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from deal.evaluate.baselines import packaged
from deal.evaluate.degradation_suites import Row
from deal.evaluate.method_registry import BEST, BUNDLED, candidates
from deal.evaluate.results import EXACT
from deal.model.pretrained import bundled_weights

METRICS = (
    f"Metrics are means over images, in which values above {EXACT:g} dB count as {EXACT:g}: PSNR for a peak of 1; "
    "affine PSNR after least-squares alignment of a result to its clean image by gain and offset; SSIM with 11 x 11 "
    "Gaussian windows of standard deviation 1.5 inside the image; stripe residual, the root mean square of the error's "
    "column means after subtraction of their Gaussian mean; row residual, the same of its row means. Summaries are "
    f"over rows, without images whose input is perfect, above {EXACT:g} dB, which are summarised apart."
)


def of_suite(
    paths: Sequence[Path], suite: str | Sequence[Row], rows: Sequence[Row], size: tuple[int, int] | None, seed: int
) -> str:
    """The input of a benchmark whose images are degraded by the rows of a suite."""
    chosen = f"suite {suite}" if isinstance(suite, str) else "custom rows"
    camera = any(kind == "camera" for row in rows for kind, _ in row.steps)
    quantised = ", except by the camera protocol" if camera else ""
    return (
        f"{_images(paths, size)}; {chosen}, seed {seed}, with separate random values for every image and row; bicubic "
        "interpolation with a = -0.5, antialiased when reduced; degraded images are not clamped or "
        f"quantised{quantised}, restored images are clamped to 0 to 1."
    )


def of_folders(paths: Sequence[Path], rows: Sequence[Row], size: tuple[int, int] | None) -> str:
    """The input of a benchmark whose degraded images are files."""
    return (
        f"{_images(paths, size)}, and degraded images of the same names, of {', '.join(row.name for row in rows)}; 0 "
        "and 1 are black and white of the clean image; restored images are clamped to 0 to 1."
    )


def of_methods(methods: Sequence[str], rows: Sequence[Row], device: torch.device) -> str:
    """The metrics, and what some methods are."""
    sentences = [METRICS]
    if BEST in methods:
        affine = ", ".join(row.name for row in rows if row.best_by == "affine_psnr")
        absent = "" if packaged.installed("nl-means") else " (without nl-means: scikit-image is not installed)"
        sentences.append(
            f"{BEST} is the best of {', '.join(candidates())}{absent} for each row, by mean PSNR"
            + (f", but for {affine} by mean affine PSNR" if affine else "")
            + f"; values above {EXACT:g} dB count as equal, and then the other metric decides."
        )
    weights = bundled_weights()
    if BUNDLED in methods and weights is not None:
        sentences.append(f"{BUNDLED} is {weights.name}.")
    sentences.append(f"torch {torch.__version__}, {device}, threads: {torch.get_num_threads()}.")
    return " ".join(sentences)


def _images(paths: Sequence[Path], size: tuple[int, int] | None) -> str:
    folders = ", ".join(dict.fromkeys(path.absolute().parent.name for path in paths))
    area = "whole" if size is None else f"central {size[0]} x {size[1]} pixels"
    return f"{len(paths)} images of {folders}, {area}, grey, 0 to 1"
