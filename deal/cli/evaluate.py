"""Measure methods of restoration, in tables and pictures.

Clean images are degraded by a suite, or have degraded partners in other folders. Restored images are also measured by
what a detector finds, or by fusion with visible images. The tables are printed, and
results.csv, results.md, summary.csv and sheet.png are written to the output folder.
"""

from __future__ import annotations

import time
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = (
    "data", "degraded", "pairs", "detect", "detector", "suite", "methods", "crop", "output", *options.MACHINE,
)  # fmt: skip


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("measurement")
    group.add_argument("--data", nargs="+", type=str, default=[], metavar="PATH", help="clean images or folders")
    group.add_argument(
        "--degraded", nargs="+", type=str, default=[], metavar="FOLDER",
        help="folders of degraded images, instead of a suite: with --data, each a row of the tables, with an image of "
        "the same name, size and bit depth for every clean one; endings of names may differ",
    )  # fmt: skip
    group.add_argument(
        "--pairs", type=str | None, default=None, metavar="FOLDER",
        help="a folder with ir and vis, instead of --data: images of the same names, which are fused by maximum and by "
        "mean; with --suite, the infrared images are degraded first",
    )  # fmt: skip
    group.add_argument(
        "--fuser", type=str | None, default=None, metavar="FILE",
        help="with --pairs: weights from deal train-fuser, to fuse by a network as well; without this option, the "
        "bundled weights; with none, no network",
    )  # fmt: skip
    group.add_argument(
        "--detect", type=str | None, default=None, metavar="FILE",
        help="boxes in the COCO format: a file for --data and --detector, whose images are in the folder --data. "
        "Whole images are degraded and restored, and the detections in them are measured",
    )  # fmt: skip
    group.add_argument(
        "--detector", type=str | None, default=None, metavar="FILE",
        help="weights from deal train-detector; with --detect",
    )  # fmt: skip
    group.add_argument(
        "--suite", type=str | None, default=None, metavar="NAME",
        help="degradations, standard, short, thermal or camera; camera is the two composed rows of thermal; the "
        "default is standard, camera with --detect, and none with --pairs",
    )  # fmt: skip
    group.add_argument(
        "--methods", nargs="+", type=str, default=[], metavar="NAME",
        help="networks and classical methods; the default is none best-classical deal, or none deal with --pairs and "
        "--detect. Classical methods, or cascades of them joined by +, such as midway, rows:midway against stripes of "
        "rows, or gaussian-blur-1.5; destripe and nl-means, of packages that the extra evaluate installs; "
        "best-classical; deal, which is the default of the bundled weights; deal-u-small; weights files; checkpoints "
        "of the authors' released code, .pt",
    )  # fmt: skip
    group.add_argument(
        "--crop", nargs="+", type=str, default=[], metavar="SIZE",
        help="part of each image: HEIGHTxWIDTH of its centre, one number or none; none uses whole images; the default "
        "is 256x320 with a suite and none with --degraded",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="N", help="random seed")
    group.add_argument(
        "-o", "--output", type=str, default="evaluation", metavar="FOLDER", help="folder for the results"
    )
    options.add_machine(parser)


def run(parsed: Namespace) -> int:
    if bool(parsed.data) == bool(parsed.pairs):
        raise ValueError("either --data or --pairs must be given")
    if parsed.fuser and not parsed.pairs:
        raise ValueError("--fuser can only be used with --pairs")
    if parsed.degraded and parsed.pairs:
        raise ValueError("--degraded can only be used with --data")
    if parsed.degraded and parsed.suite:
        raise ValueError("either --suite or --degraded can be given")
    if bool(parsed.detect) != bool(parsed.detector):
        raise ValueError("--detect and --detector must be given together")
    if parsed.detect and (len(parsed.data) != 1 or parsed.degraded or parsed.crop):
        raise ValueError("--detect needs --data with one folder, without --degraded and --crop")
    from deal.evaluate import report

    options.set_threads(parsed.threads)
    start = time.perf_counter()
    report.check_folder(parsed.output)
    results = _results(parsed)
    print(report.as_markdown(results))
    written = ", ".join(map(str, report.write(results, parsed.output)))
    print(f"{written} in {time.perf_counter() - start:.1f} s")
    return 0


def _results(parsed: Namespace) -> Any:
    from deal.detection.benchmark import run_detection_benchmark
    from deal.evaluate.benchmark import run_benchmark, run_on_degraded
    from deal.evaluate.degradation_suites import degradations
    from deal.evaluate.method_registry import find_methods, find_pair_methods
    from deal.fusion.benchmark import run_pair_benchmark
    from deal.model.pretrained import bundled_fuser

    shared = {"device": parsed.device, "progress": not parsed.quiet}
    names = parsed.methods or ["none", *([] if parsed.pairs or parsed.detect else ["best-classical"]), "deal"]
    if parsed.pairs:
        methods = find_pair_methods(names, device=parsed.device)
        rows = degradations(parsed.suite, parsed.seed) if parsed.suite else None
        fuser = None if parsed.fuser == "none" else parsed.fuser or bundled_fuser()
        return run_pair_benchmark(parsed.pairs, methods, degradations=rows, fuser=fuser, **shared)
    if parsed.detect:
        methods = find_methods(names, device=parsed.device)
        rows = degradations(parsed.suite or "camera", parsed.seed)
        return run_detection_benchmark(parsed.detect, parsed.data[0], parsed.detector, methods, rows, **shared)
    if parsed.degraded:
        crop = options.parse_crop(parsed.crop or ["none"])
        return run_on_degraded(parsed.data, parsed.degraded, names, crop=crop, **shared)
    crop = options.parse_crop(parsed.crop or ["256x320"])
    suite = parsed.suite or "standard"
    return run_benchmark(parsed.data, suite, names, crop=crop, seed=parsed.seed, **shared)
