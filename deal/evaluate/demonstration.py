"""A demonstration on a thermal frame of the package: degraded, enhanced, measured and drawn."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from deal.evaluate.degrader import Degrader
from deal.evaluate.metrics import psnr
from deal.inference.enhancer import Enhancer
from deal.io import contact_sheet
from deal.io.atomic import atomic_write
from deal.io.images import centre_crop, read_frame, to_uint8
from deal_kernels.ssim import ssim

FRAME = Path(__file__).parents[1] / "frames" / "0112_1732_0423.png"
HEIGHT, WIDTH = 256, 320  # of the crop
STRIPE_DEVIATION = 0.06
OPS = ("average_pool_resize_2", "contrast_0.7", "stripe")
TIMED_RUNS = 3


class Demonstration(NamedTuple):
    """The measurements of a demonstration."""

    picture: Path
    psnr: tuple[float, float]  # of the degraded and of the enhanced image
    ssim: tuple[float, float]
    milliseconds: float  # per frame, without the first one

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{WIDTH} x {HEIGHT} pixels, with stripes, half the resolution and low contrast:",
                f"{'':10}{'degraded':>10}{'enhanced':>10}",
                f"{'PSNR, dB':10}{self.psnr[0]:10.2f}{self.psnr[1]:10.2f}",
                f"{'SSIM':10}{self.ssim[0]:10.4f}{self.ssim[1]:10.4f}",
                f"{self.milliseconds:.0f} ms per frame; before and after: {self.picture}",
            ]
        )


def demonstrate(picture: Path, enhancer: Enhancer, seed: int = 7) -> Demonstration:
    """Degrades and enhances the frame, and writes the picture.

    Args:
        picture: the image file to write.
        enhancer: the network to show.
        seed: of the stripes.
    """
    clean = clean_frame()
    degraded = Degrader(OPS, deviation=STRIPE_DEVIATION)(clean, seed).clamp(0, 1)
    enhanced, milliseconds = _timed(enhancer, degraded)
    before, after = ((psnr(each, clean).item(), ssim(each, clean).item()) for each in (degraded, enhanced))
    notes = [f"{p:.1f} dB, SSIM {s:.3f}" for p, s in (before, after)]
    images = [to_uint8(each) for each in (degraded, enhanced, clean)]
    drawn = contact_sheet.row(images, ["degraded", "enhanced by DEAL", "clean"], [*notes, ""])
    with atomic_write(picture) as file:
        drawn.save(file, Image.registered_extensions()[picture.suffix.lower()])
    return Demonstration(picture, (before[0], after[0]), (before[1], after[1]), milliseconds)


def clean_frame() -> Tensor:
    """The centre of the bundled frame, [1, 1, H, W] in [0, 1]."""
    return centre_crop(read_frame(FRAME).tensor(1)[None], HEIGHT, WIDTH)


def _timed(enhancer: Enhancer, image: Tensor) -> tuple[Tensor, float]:
    result, times = enhancer.enhance_tensor(image), []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        result = enhancer.enhance_tensor(image)
        times.append(1e3 * (time.perf_counter() - start))
    return result.clamp(0, 1), statistics.median(times)
