"""Measure methods on clean images with known degradations, or on the fusion of infrared with visible images.

The tables are printed, and results.csv, results.md and sheet.png are written to the output folder.
"""

from __future__ import annotations

import time
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", type=str, default=[], metavar="PATH", help="clean images or folders")
    parser.add_argument(
        "--pairs", type=str | None, default=None, metavar="FOLDER",
        help="instead of --data: images of the same names in the folders ir and vis, which are fused by maximum and by "
        "mean",
    )  # fmt: skip
    parser.add_argument(
        "--fuser", type=str | None, default=None, metavar="FILE",
        help="with --pairs: weights from deal train-fuser, to fuse by a network as well",
    )  # fmt: skip
    parser.add_argument("--suite", type=str, default="standard", help="degradations: standard, short or thermal")
    parser.add_argument(
        "--methods", nargs="+", type=str, default=["none", "best-classical", "deal"], metavar="NAME",
        help="classical methods, or cascades of them joined by +; best-classical; deal, which is the bundled weights; "
        "weights files; checkpoints of the authors' released code, .pt",
    )  # fmt: skip
    parser.add_argument(
        "--crop", nargs="+", type=str, default=["256", "320"], metavar="SIZE",
        help="height and width of the centre of each image, or one number for both; none uses whole images",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "-o", "--output", type=str, default="evaluation", metavar="FOLDER", help="folder for the results"
    )
    options.add_device(parser)
    options.add_threads(parser)
    options.add_quiet(parser)


def run(parsed: Namespace) -> int:
    if bool(parsed.data) == bool(parsed.pairs):
        raise ValueError("either --data or --pairs must be given")
    if parsed.fuser and not parsed.pairs:
        raise ValueError("--fuser can only be used with --pairs")
    from deal.evaluate import report
    from deal.evaluate.benchmark import run_benchmark
    from deal.evaluate.method_registry import find_pair_methods
    from deal.fusion.benchmark import run_pair_benchmark

    options.set_threads(parsed.threads)
    start = time.perf_counter()
    report.check_folder(parsed.output)
    results: Any
    if parsed.pairs:
        methods = find_pair_methods(parsed.methods, device=parsed.device)
        results = run_pair_benchmark(
            parsed.pairs, methods, fuser=parsed.fuser, device=parsed.device, progress=not parsed.quiet
        )
    else:
        results = run_benchmark(
            parsed.data, parsed.suite, parsed.methods, crop=options.parse_crop(parsed.crop), seed=parsed.seed,
            device=parsed.device, progress=not parsed.quiet,
        )  # fmt: skip
    print(report.as_markdown(results))
    written = ", ".join(map(str, report.write(results, parsed.output)))
    print(f"{written} in {time.perf_counter() - start:.1f} s")
    return 0
