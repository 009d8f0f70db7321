"""Train a detector for deal evaluate --detect."""

from __future__ import annotations

import time
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = ("annotations", "images", "output", "steps", "batch", "crop", "learning_rate", *options.MACHINE)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", type=str, required=True, metavar="FILE", help="boxes in the COCO format, a .json file"
    )
    parser.add_argument("--images", type=str, required=True, metavar="FOLDER", help="the folder of its images")
    parser.add_argument(
        "-o", "--output", type=str, required=True, metavar="FILE", help="the weights file to write, a .safetensors file"
    )
    parser.add_argument("--steps", type=int, metavar="N", default=5000, help="number of training steps")
    parser.add_argument("--batch", type=int, metavar="N", default=4, help="crops per step")
    parser.add_argument(
        "--crop", nargs="+", type=str, default=["256x320"], metavar="SIZE",
        help="of random crops, HEIGHTxWIDTH or one number; multiples of 16",
    )  # fmt: skip
    options.add_short_training(parser)


def run(parsed: Namespace) -> int:
    from deal.detection.training import train_detector
    from deal.evaluate import report

    options.set_threads(parsed.threads)
    report.check_folder(Path(parsed.output).parent)
    start = time.perf_counter()
    losses = train_detector(
        parsed.annotations, parsed.images, parsed.output, steps=parsed.steps, batch=parsed.batch,
        crop=options.parse_crop(parsed.crop), learning_rate=parsed.learning_rate, seed=parsed.seed,
        device=parsed.device, progress=not parsed.quiet,
    ).losses  # fmt: skip
    print(f"{options.loss_summary(losses)}: {parsed.output} in {time.perf_counter() - start:.1f} s")
    return 0
