"""Degrade images, to see or to measure what is restored.

The operations are applied in the given order. With the same seed and the same list of images, every image gets the same
random values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options, piped

if TYPE_CHECKING:
    import numpy

    from deal.io.images import Frame

COMMON = (*options.FILES, "ops", "deviation", "seed", *options.MACHINE)


def add_arguments(parser: ArgumentParser) -> None:
    options.add_files(parser)
    group = parser.add_argument_group("degradation")
    group.add_argument(
        "--ops", nargs="+", type=str, metavar="OP", default=["average_pool_resize_2", "contrast_0.5", "stripe"],
        help="operations, in their order: such as stripe, gain, noise, gaussian_blur_1.5, average_pool_resize_4, "
        "contrast_0.5, posterize_5",
    )  # fmt: skip
    group.add_argument(
        "--deviation", type=float | None, default=None, metavar="NUMBER",
        help="how strong random operations are; random if this is not given: the standard deviation of stripe, "
        "row_stripe, gain, noise and gaussian_blur, for images from 0 to 1, or the strength of another random "
        "operation, see deal_kernels.degradation.sample_params",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="N", help="random seed")
    options.add_machine(parser)


def run(parsed: Namespace) -> int:
    from deal.evaluate.degrader import Degrader
    from deal.inference.streams import process_pages
    from deal.io.images import read_pages

    options.set_threads(parsed.threads)
    window = options.parse_window(parsed.window)
    degrader = Degrader(parsed.ops, deviation=parsed.deviation, device=parsed.device)
    read = functools.partial(read_pages, window=window)

    def degrade_with(seed: int) -> Callable[[Frame], numpy.ndarray]:
        return functools.partial(degrader.degrade_frame, seed=seed)

    if piped.is_piped(parsed):
        return piped.run_image(parsed, read, lambda frame: degrade_with(parsed.seed))
    jobs = options.plan(parsed)
    seeds = {job: parsed.seed + index for index, job in enumerate(jobs)}
    with options.open_batch(parsed, jobs) as batch, options.pages_ahead(parsed, jobs, read) as pages:
        for job in batch:
            with batch.attempt(job):
                again = functools.partial(degrade_with, seeds[job])
                process_pages(batch, job, pages(job.source), again(), again)
    return options.report(batch, parsed.quiet)
