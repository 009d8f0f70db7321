"""Commands in a pipe: an image or raw frames from standard input, or to standard output.

Nothing but images goes to standard output; the rest is said on standard error.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jsonargparse import Namespace

from deal.cli import within_budget

if TYPE_CHECKING:
    import numpy

    from deal.io.formats import Content
    from deal.io.images import Frame, ImageFile
    from deal.io.raw import RawFormat

    Process = Callable[[Frame], numpy.ndarray]

PIPE = "-"  # in place of a path
OF_FILES = ("suffix", "skip_existing", "manifest")  # options that need names of files


def is_piped(parsed: Namespace) -> bool:
    """Whether the images of a command with `options.add_files` come or go through a pipe. Checks its options."""
    if PIPE not in (*parsed.input, parsed.output):
        return False
    if PIPE in parsed.input and len(parsed.input) > 1:
        raise ValueError(f"input must be - alone, or files; got {' '.join(parsed.input)}")
    for name in OF_FILES:
        if parsed[name]:
            raise ValueError(f"--{name.replace('_', '-')} needs names of files: it does not go with -")
    return True


def run_image(
    parsed: Namespace, read: Callable[[Path | Content], Iterator[ImageFile]], make: Callable[[Frame], Process]
) -> int:  # fmt: skip
    """Runs a command on one image file, and returns the exit code.

    Args:
        parsed: the options of `options.add_files`.
        read: the pages of a file.
        make: what processes the pages, from the first one.
    """
    from deal.io.atomic import atomic_write
    from deal.io.pipes import image_of_stdin, stdout_alone, write_all

    if parsed.output != PIPE:  # the image comes from standard input
        target, given = _target_file(parsed), image_of_stdin()
        begin, pages = time.perf_counter(), read(given)
        content = _processed(target, next(pages), pages, make)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(content)
    else:
        with stdout_alone() as stdout:
            source = image_of_stdin() if parsed.input == [PIPE] else _only_image(parsed)
            begin, pages = time.perf_counter(), read(source)
            first = next(pages)  # what is no image is told first
            name = Path(f"stdout{_ending(parsed, source)}")
            write_all(stdout, _processed(name, first, pages, make))
    if not parsed.quiet:
        within_budget.say(f"1 done in {time.perf_counter() - begin:.1f} s")
    return 0


def _processed(target: Path, first: ImageFile, others: Iterator[ImageFile], make: Callable[[Frame], Process]) -> bytes:
    """The content of the result of an image file, from its pages."""
    from deal.io.pages import Page, file_bytes

    process = make(first.frame)
    results = (Page(process(page.frame), page.metadata) for page in itertools.chain([first], others))
    return file_bytes(target, results, first.pages)


def _target_file(parsed: Namespace) -> Path:
    from deal.io.formats import SUFFIXES

    target = Path(parsed.output)
    accepted = SUFFIXES if parsed.ext == "auto" else (f".{parsed.ext}",)
    if target.suffix.lower() not in accepted or target.is_dir():
        raise ValueError(
            f"output must be an image file, {', '.join(accepted)}, or -, where the input is -; got {parsed.output}"
        )
    return target


def _only_image(parsed: Namespace) -> Path:
    from deal.io.paths import find_images

    found = find_images(parsed.input, recursive=parsed.recursive)
    if len(found) != 1:
        raise ValueError(f"output must be a folder for {len(found)} images; got -")
    return found[0]


def _ending(parsed: Namespace, source: Path | Content) -> str:
    """That of a file of the format in which the result is written."""
    ending = source.suffix if isinstance(source, Path) else source.ending
    if parsed.ext == "auto" and not ending:
        raise ValueError(f"the format of {source} is read and not written: name another one by --ext, such as png")
    return ending if parsed.ext == "auto" else f".{parsed.ext}"


def has_raw_frames(parsed: Namespace) -> bool:
    """Whether the input is frames without a header, and not one image file."""
    from deal.io.formats import PICTURES

    if parsed.raw is None or parsed.input == [PIPE]:
        return parsed.raw is not None
    return _only_image(parsed).suffix.lower() not in (*PICTURES, ".npy")


def run_frames(
    parsed: Namespace, raw: RawFormat, to_frame: Callable[..., Frame], make: Callable[[Frame | None], Process]
) -> int:  # fmt: skip
    """Enhances frames without a header, each as soon as it is there, and returns the exit code.

    Args:
        parsed: the options of `options.add_files`.
        raw: the format of the frames.
        to_frame: the frame of an array and a name.
        make: what enhances frames; for a budget, it is made when the first one is there.
    """
    from deal.inference.budget import Latencies
    from deal.io.images import UnusableImage
    from deal.io.pipes import raw_frames, stdout_alone, write_all

    if parsed.output != PIPE or parsed.ext != "auto":
        raise ValueError("raw frames are written as they came, to -: give neither another output nor --ext")
    latencies, failed = Latencies(), 0
    process = make(None) if parsed.budget is None else None
    try:
        with _opened(parsed) as (stream, name), stdout_alone() as stdout:
            for number, pixels in enumerate(raw_frames(stream, raw, name), 1):
                named = f"frame {number} of {name}"
                try:
                    process = process or make(to_frame(pixels, name=named))
                    with latencies.frame():
                        write_all(stdout, raw.encode(process(to_frame(pixels, name=named))))
                except UnusableImage as error:
                    if not parsed.keep_going:
                        raise
                    failed += 1
                    warnings.warn(f"{error}: it is passed on as it came", stacklevel=2)
                    write_all(stdout, raw.encode(pixels.repeat(parsed.scale, 0).repeat(parsed.scale, 1)))
    finally:
        within_budget.report(latencies, parsed.quiet)
    return 1 if failed else 0


@contextlib.contextmanager
def _opened(parsed: Namespace) -> Iterator[tuple[BinaryIO, str]]:
    """The stream of frames, and its name."""
    from deal.io.pipes import stdin

    if parsed.input == [PIPE]:
        yield stdin(), "stdin"
        return
    path = _only_image(parsed)
    with open(path, "rb") as file:
        yield file, str(path)
