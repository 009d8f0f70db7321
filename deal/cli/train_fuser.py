"""Train a network that fuses infrared with visible images, for deal evaluate --pairs.

It needs no reference fused images: at every pixel, the loss prefers the structure of the image with more local contrast
and the value of the brighter image.
"""

from __future__ import annotations

import time
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pairs", type=str, required=True, metavar="FOLDER", help="images of the same names in the folders ir and vis"
    )
    parser.add_argument(
        "-o", "--output", type=str, required=True, metavar="FILE", help="the weights file to write, a .safetensors file"
    )
    parser.add_argument("--steps", type=int, default=2000, help="number of training steps")
    parser.add_argument("--batch", type=int, default=4, help="pairs per step")
    parser.add_argument("--crop", type=int, default=64, help="height and width of random crops")
    options.add_short_training(parser)


def run(parsed: Namespace) -> int:
    from deal.evaluate import report
    from deal.fusion.training import train_fuser

    options.set_threads(parsed.threads)
    report.check_folder(Path(parsed.output).parent)
    start = time.perf_counter()
    losses = train_fuser(
        parsed.pairs, parsed.output, steps=parsed.steps, batch=parsed.batch, crop=parsed.crop,
        learning_rate=parsed.learning_rate, seed=parsed.seed, device=parsed.device, progress=not parsed.quiet,
    ).losses  # fmt: skip
    print(f"{options.loss_summary(losses)}: {parsed.output} in {time.perf_counter() - start:.1f} s")
    return 0
