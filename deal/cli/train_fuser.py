"""Train a fusion network for deal evaluate --pairs.

The network fuses infrared with visible images. It needs no reference fused images: at every pixel, the loss prefers the
structure of the image with more local contrast and the value of the brighter image.
"""

from __future__ import annotations

import time
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = ("pairs", "output", "steps", "batch", "crop", "learning_rate", *options.MACHINE)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pairs", type=str, required=True, metavar="FOLDER", help="images of the same names in the folders ir and vis"
    )
    parser.add_argument(
        "-o", "--output", type=str, required=True, metavar="FILE", help="the weights file to write, a .safetensors file"
    )
    parser.add_argument("--steps", type=int, metavar="N", default=2000, help="number of training steps")
    parser.add_argument("--batch", type=int, metavar="N", default=4, help="pairs per step")
    parser.add_argument(
        "--crop", type=str, default="64", metavar="SIZE", help="height and width of square random crops"
    )
    options.add_short_training(parser)


def run(parsed: Namespace) -> int:
    from deal.evaluate import report
    from deal.fusion.training import train_fuser

    options.set_threads(parsed.threads)
    report.check_folder(Path(parsed.output).parent)
    start = time.perf_counter()
    losses = train_fuser(
        parsed.pairs, parsed.output, steps=parsed.steps, batch=parsed.batch, crop=_square(parsed.crop),
        learning_rate=parsed.learning_rate, seed=parsed.seed, device=parsed.device, progress=not parsed.quiet,
    ).losses  # fmt: skip
    print(f"{options.loss_summary(losses)}: {parsed.output} in {time.perf_counter() - start:.1f} s")
    return 0


def _square(crop: str) -> int:
    """The side of a size such as 64 or 64x64."""
    from deal.io.images import height_and_width

    height, width = height_and_width("crop", options.parse_crop([crop])) or (0, 1)
    if height != width:
        raise ValueError(f"crop must be a square, such as 64 or 64x64; got {crop}")
    return height
