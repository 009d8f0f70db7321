"""What the network does, shown without any data: a frame that comes with the package, degraded, and enhanced."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from deal import enhance
from deal.checkpoint import atomically
from deal.data import SUFFIXES, Location, middle, read_frame
from deal.degrade import Degrader
from deal.enhance import Enhancer, Precision
from deal.metrics import psnr
from deal.model import DEAL
from deal.picture import grey, strip
from deal.scenes import Scenes
from deal_kernels.ssim import ssim

FRAME = Path(__file__).with_name("frames") / "0112_1732_0423.png"
HEIGHT, WIDTH = 256, 320  # of its middle
STRIPES = 0.06
LESS = ("average_pool_resize_2", "contrast_0.7", "stripe")
FRAMES = 3  # that are timed


class Shown(NamedTuple):
    """What a demo has found."""

    picture: Path
    weights: str
    psnr: tuple[float, float]  # of the degraded image and of the enhanced one
    ssim: tuple[float, float]
    milliseconds: float  # a frame, once the first one is through

    def __str__(self) -> str:
        return "\n".join(
            [
                f"weights: {self.weights}",
                f"{WIDTH} x {HEIGHT} pixels, with stripes, at half the resolution and with less contrast:",
                f"{'':10}{'degraded':>10}{'enhanced':>10}",
                f"{'PSNR, dB':10}{self.psnr[0]:10.2f}{self.psnr[1]:10.2f}",
                f"{'SSIM':10}{self.ssim[0]:10.4f}{self.ssim[1]:10.4f}",
                f"{self.milliseconds:.0f} ms a frame; before and after: {self.picture}",
            ]
        )


def run(
    output: Location, *, model: Location | None = None, minutes: float = 2.0, seed: int = 7, device: str = "auto",
    precision: Precision = "auto",
) -> Shown:  # fmt: skip
    """Writes the picture, and measures.

    Args:
        output: the picture.
        model: the weights. None takes those that come with the package; else the ones beside the picture, of an earlier
            demo; else trains as long as `minutes` says on synthetic scenes, and puts them there.
        seed: of the stripes.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the output must be a picture, {', '.join(SUFFIXES)}; got {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    network, weights = _network(output, model, minutes, device)
    clean = _clean()
    degraded = Degrader(LESS, deviation=STRIPES)(clean, seed).clamp(0, 1)
    enhanced, milliseconds = _timed(Enhancer(network, device=device, precision=precision), degraded)
    before, after = ((psnr(each, clean).item(), ssim(each, clean).item()) for each in (degraded, enhanced))
    shown = Shown(output, weights, (before[0], after[0]), (before[1], after[1]), milliseconds)
    scores = [f"{p:.1f} dB, SSIM {s:.3f}" for p, s in zip(shown.psnr, shown.ssim, strict=True)]
    images = [grey(each) for each in (degraded, enhanced, clean)]
    picture = strip(images, ["degraded", "enhanced by DEAL", "clean"], [*scores, ""])
    with atomically(output) as file:
        picture.save(file, Image.registered_extensions()[output.suffix.lower()])
    return shown


def _clean() -> Tensor:
    return middle(read_frame(FRAME).tensor(1)[None], HEIGHT, WIDTH)


def _network(output: Path, model: Location | None, minutes: float, device: str) -> tuple[DEAL, str]:
    if model is not None or enhance.bundled() is not None:
        return enhance.load(model), str(model or enhance.bundled())
    beside = output.with_suffix(".safetensors")
    if not beside.exists():
        print(f"no weights come with this package: training for {minutes:g} minutes on synthetic scenes", flush=True)
        _trained(minutes, device).save_pretrained(
            beside, trained_on=f"synthetic scenes, {minutes:g} minutes, deal demo"
        )
    return DEAL.from_pretrained(beside), str(beside)


def _trained(minutes: float, device: str) -> DEAL:
    """A smaller network, which learns enough in the time."""
    import tempfile

    from deal import das

    with tempfile.TemporaryDirectory(prefix="deal-demo-") as folder:
        settings = das.Settings(
            output=os.path.join(folder, "run"), minutes=minutes, steps=100_000, device=device, blocks="cascade1",
            width=16, warm_start=200, crop=64, learning_rate=1e-3, save_every=100_000, watch=None,
            progress=False,
        )  # fmt: skip
        return das.train(settings, source=Scenes(64, seed=1000)).network


def _timed(enhancer: Enhancer, image: Tensor) -> tuple[Tensor, float]:
    result, times = enhancer.tensor(image), []
    for _ in range(FRAMES):
        start = time.perf_counter()
        result = enhancer.tensor(image)
        times.append(1e3 * (time.perf_counter() - start))
    return result.clamp(0, 1), statistics.median(times)
