"""A demonstration on a thermal frame of the package: degraded, enhanced, measured, and drawn with its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from deal.evaluate.camera_protocol import HARD, degrade
from deal.evaluate.metrics import affine_psnr, psnr
from deal.inference.enhancer import Enhancer
from deal.io import contact_sheet
from deal.io.atomic import atomic_write
from deal.io.images import centre_crop, read_frame, to_uint8
from deal.model.parts import SUBTRACTED
from deal_kernels.ssim import ssim

FRAME = Path(__file__).parents[1] / "frames" / "0112_1732_0423.png"
HEIGHT, WIDTH = 256, 320  # of the crop
TIMED_RUNS = 3
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "PSNR, dB": psnr, "affine PSNR, dB": affine_psnr, "SSIM": ssim,
}  # fmt: skip


class Demonstration(NamedTuple):
    """The measurements of a demonstration."""

    picture: Path
    figures: dict[str, tuple[float, float]]  # of the degraded and of the enhanced image, by the name of the metric
    milliseconds: float  # per frame, without the first one

    def __str__(self) -> str:
        table = [f"{name:16}{before:10.2f}{after:10.2f}" for name, (before, after) in self.figures.items()]
        return "\n".join(
            [
                f"{WIDTH} x {HEIGHT} pixels, with low contrast, blur, glow, stripes and noise:",
                f"{'':16}{'degraded':>10}{'enhanced':>10}",
                *table,
                f"{self.milliseconds:.0f} ms per frame; before and after: {self.picture}",
            ]
        )


def demonstrate(picture: Path, enhancer: Enhancer, seed: int = 7) -> Demonstration:
    """Degrades the frame by the camera protocol, enhances it, and writes the picture.

    Args:
        picture: the image file to write.
        enhancer: the network to show.
        seed: of the degradation.
    """
    clean = clean_frame()
    degraded = degrade(clean, HARD, torch.Generator().manual_seed(seed))
    enhanced, milliseconds = _timed(enhancer, degraded)
    figures = {
        name: (metric(degraded, clean).item(), metric(enhanced, clean).item()) for name, metric in METRICS.items()
    }
    notes = [f"{p:.1f} dB, SSIM {s:.3f}" for p, s in zip(figures["PSNR, dB"], figures["SSIM"], strict=True)]
    images = [to_uint8(each) for each in (degraded, enhanced, clean)]
    before_and_after = contact_sheet.row(images, ["degraded", "enhanced by DEAL", "clean"], [*notes, ""])
    drawn = contact_sheet.stack([before_and_after, _drawn_parts(enhancer, degraded)])
    with atomic_write(picture) as file:
        drawn.save(file, Image.registered_extensions()[picture.suffix.lower()])
    return Demonstration(picture, figures, milliseconds)


def clean_frame() -> Tensor:
    """The centre of the bundled frame, [1, 1, H, W] in [0, 1]."""
    return centre_crop(read_frame(FRAME).tensor(1)[None], HEIGHT, WIDTH)


def _drawn_parts(enhancer: Enhancer, image: Tensor) -> Image.Image:
    """The parts that were taken out; grey is zero, and the largest value is black or white."""
    parts = enhancer.separate(image)
    panels, notes = [], []
    for name in SUBTRACTED:
        part = getattr(parts, name)
        largest = part.abs().max().clamp_min(1e-6)
        panels.append(to_uint8(0.5 + 0.5 * part / largest))
        notes.append(f"grey is 0, white {largest.item():.3f}")
    return contact_sheet.row(panels, list(SUBTRACTED), notes)


def _timed(enhancer: Enhancer, image: Tensor) -> tuple[Tensor, float]:
    result, times = enhancer.enhance_tensor(image), []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        result = enhancer.enhance_tensor(image)
        times.append(1e3 * (time.perf_counter() - start))
    return result.clamp(0, 1), statistics.median(times)
