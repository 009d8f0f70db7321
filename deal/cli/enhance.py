"""Enhance images and clips, folders of them, or lists.

Bit depth and metadata are preserved. Frames of 16 bits are mapped to the range of the network by --window; the change
that the network makes is mapped back and added to the original values. They keep their temperatures, see --radiometric.
"""

from __future__ import annotations

import functools
import os
from argparse import BooleanOptionalAction
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options, piped, within_budget

if TYPE_CHECKING:
    from deal.inference.enhancer import Enhancer
    from deal.io.images import Frame

COMMON = (*options.FILES, "model", "budget", "parts", "strength", "radiometric", *options.MACHINE)
NAMES = ("columns", "rows", "shading", "detail", "tone")  # of `deal.model.parts`, which imports torch


def add_arguments(parser: ArgumentParser) -> None:
    options.add_files(
        parser, inputs="images, clips, folders, patterns, lists",
        windows="; or ema, which is auto as a moving average over frames, as a sequence has it",
    )  # fmt: skip
    group = parser.add_argument_group("enhancement")
    group.add_argument(
        "--raw", type=str | None, default=None, metavar="WIDTHxHEIGHT:TYPE",
        help="size and type of .raw files, which have no header, such as 640x512:y16le; also y8, y16be, s16le, f32le",
    )  # fmt: skip
    group.add_argument(
        "--flir", type=Literal["celsius", "centikelvin"] | None, default=None,
        help="read the temperatures of FLIR's JPEG files in place of their picture; files are written as TIFF",
    )  # fmt: skip
    group.add_argument(
        "--reference", nargs="+", type=str, default=None, metavar="PATH",
        help="frames of a target that has one temperature, such as the shutter; their pattern is subtracted first",
    )  # fmt: skip
    group.add_argument(
        "-m", "--model", type=str | None, default=None, metavar="FILE",
        help="weights of deal train, or deal-u-small; or of deal convert; the default is the bundled deal-u",
    )  # fmt: skip
    group.add_argument(
        "--budget", type=float | None, default=None, metavar="MILLISECONDS",
        help="time for a frame: takes the largest bundled network that holds it on this machine, for the size of the "
        "first frame, and tells how long frames took",
    )  # fmt: skip
    group.add_argument(
        "--scale", type=Literal[1, 2, 4], default=1, help="enlarge images first, by bicubic interpolation"
    )
    group.add_argument(
        "-t", "--tile", type=int | Literal["auto"], default="auto", metavar="PIXELS",
        help="size of the tiles that a frame is computed in; 0 computes the whole frame at once, auto uses the largest "
        "tiles that memory allows",
    )  # fmt: skip
    group.add_argument(
        "--tile-overlap", type=int | None, default=None, metavar="PIXELS",
        help="pixels that tiles extend to each side, at least the network's receptive radius; tiles are blended",
    )  # fmt: skip
    group.add_argument(
        "--radiometric", action=BooleanOptionalAction, default=None,
        help="keep temperatures; the default for 16 bits and float32: the tone, the mean of the frame and rows of "
        "telemetry stay, and shading stays unless --parts names it",
    )  # fmt: skip
    group.add_argument(
        "--parts", nargs="+", type=Literal[NAMES], default=None, metavar="NAME",
        help=f"what is taken out: all of {', '.join(NAMES)} if this is not given",
    )  # fmt: skip
    group.add_argument(
        "--sequence", action=BooleanOptionalAction, default=None,
        help="the images, or the pages of each file, are frames of one camera in their order: what it adds to all of "
        "them is found better, and nothing flickers; the default for clips, and for raw frames in a pipe",
    )  # fmt: skip
    group.add_argument("--strength", type=float, default=1.0, metavar="NUMBER", help="a factor for what is taken out")
    machine = options.add_machine(parser)
    options.add_precision(machine)
    options.add_graph(machine)


def run(parsed: Namespace) -> int:
    # One feature map of a megapixel takes 128 MiB, and several are in memory at the same time.
    os.environ.setdefault("DEAL_KERNELS_KEEP_MB", "1024")
    from deal.inference.streams import enhancement_of_frames
    from deal.io.images import read_image, read_pages, to_frame
    from deal.io.paths import find_images
    from deal.io.raw import RawFormat
    from deal.io.reference import Reference

    options.set_threads(parsed.threads)
    within_budget.check(parsed)
    if parsed.flir and parsed.ext == "auto":
        parsed.ext = "tif"
    raw = RawFormat.parse(parsed.raw) if parsed.raw else None
    steady = parsed.window == ["ema"]
    window = options.parse_window(["auto"] if steady else parsed.window)
    form: dict[str, Any] = {"window": window, "raw": raw, "flir": parsed.flir}
    frames = [read_image(path, **form).frame.pixels for path in find_images(parsed.reference or [])]
    form["reference"] = reference = Reference.of(frames) if frames else None

    def process_for(frame: Frame | None) -> Callable[[Frame], Any]:
        return enhancement_of_frames(_enhancer(parsed, frame), sequence=bool(parsed.sequence), steady=steady)

    if not piped.is_piped(parsed):
        return _run_files(parsed, form, steady)
    if raw is not None and piped.has_raw_frames(parsed):
        parsed.sequence = parsed.sequence is not False
        given = functools.partial(to_frame, window=window, reference=reference)
        return piped.run_frames(parsed, raw, given, process_for)
    return piped.run_image(parsed, functools.partial(read_pages, **form), process_for)


def _run_files(parsed: Namespace, form: dict[str, Any], steady: bool) -> int:
    """Enhances files.

    Args:
        parsed: the options.
        form: how they are read, see `deal.io.images.read_image`.
        steady: whether the window of single frames is a moving average.
    """
    from deal.inference.budget import Latencies
    from deal.inference.streams import enhance_clip, enhancement_of_frames, first_of_clip, process_pages
    from deal.io.images import read_image, read_pages
    from deal.io.video import is_clip

    of_clips = {name: form[name] for name in ("window", "reference")}

    def first_frame(path: Path) -> Frame:
        return first_of_clip(path, **of_clips) if is_clip(path) else read_image(path, **form).frame

    jobs, latencies = options.plan(parsed, clips=True), Latencies()
    enhancer = _enhancer(parsed, None if parsed.budget is None else within_budget.first_frame(jobs, first_frame))

    def way(sequence: bool) -> Callable[[Frame], Any]:
        enhance = enhancement_of_frames(enhancer, sequence=sequence, steady=steady)

        def timed(frame: Frame) -> Any:
            with latencies.frame():
                return enhance(frame)

        return timed

    of_pages = functools.partial(way, bool(parsed.sequence))
    of_images = of_pages()
    read = functools.partial(read_pages, **form)
    with options.open_batch(parsed, jobs) as batch, options.pages_ahead(parsed, jobs, read) as pages:
        for job in batch:
            with batch.attempt(job):
                if is_clip(job.source):
                    enhance_clip(batch, job, way(parsed.sequence is not False), **of_clips)
                else:
                    process_pages(batch, job, pages(job.source), of_images, of_pages)
    if parsed.budget is not None:
        within_budget.report(latencies, parsed.quiet)
    return options.report(batch, parsed.quiet)


def _enhancer(parsed: Namespace, frame: Frame | None) -> Enhancer:
    """The enhancer that the options describe; with a budget, for this frame, if there is one."""
    from deal.inference.enhancer import Enhancer

    make = functools.partial(
        Enhancer, scale=parsed.scale, tile=parsed.tile, overlap=parsed.tile_overlap, device=parsed.device,
        precision=parsed.precision, radiometric=parsed.radiometric, parts=parsed.parts, strength=parsed.strength,
        graph=parsed.graph,
    )  # fmt: skip
    if parsed.budget is None or frame is None:
        return make(parsed.model)
    return within_budget.enhancer_for(parsed, frame, make)
