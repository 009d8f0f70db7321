"""Files of several frames: clips, and images of several pages. They are written in a temporary folder.

>>> Given("a clip", b"RIFF\\0\\0\\0\\0AVI LIST").ending
'.avi'
"""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy
from PIL import Image

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.io import formats
from deal.io.images import Frame, ImageFile, to_frame
from deal.io.pages import Page, write_pages
from deal.io.values import UnusableImage
from deal.io.video import Clip, Decoded, rewrite

T = TypeVar("T")
NAME = "the file"  # in messages; the name that a client gives is not used
CLIPS = (".mp4", ".mov", ".avi", ".mkv")


class Stopped(Exception):
    """Nobody waits for the result any more."""


class Given(formats.Content):
    """The content of a file, which may be a clip."""

    @property
    def ending(self) -> str:
        if self.data[4:8] in (b"ftyp", b"moov", b"wide"):
            return ".mov" if self.data[8:12] == b"qt  " else ".mp4"
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"AVI ":
            return ".avi"
        return ".mkv" if self.data.startswith(b"\x1aE\xdf\xa3") else super().ending


def pages(
    ending: str, first: ImageFile, others: Iterator[ImageFile], enhancer: Enhancer, stop: threading.Event
) -> bytes:  # fmt: skip
    """A restored file of several pages."""

    def restored() -> Iterator[Page]:
        yield Page(enhancer.enhance_frame(first.frame), first.metadata)
        for page in others:
            _check(stop)
            yield Page(enhancer.enhance_frame(checked(page.frame)), page.metadata)

    with tempfile.TemporaryDirectory(prefix="deal-serve-") as folder:
        path = Path(folder) / f"result{ending}"
        write_pages(path, restored(), first.pages)
        return path.read_bytes()


def clip(given: Given, enhancer: Enhancer, stop: threading.Event) -> tuple[bytes, Frame, int]:
    """A restored clip, its first frame, and the number of its frames. What is left of a broken one is restored."""
    enhance = Sequence(enhancer).next_frame
    frames: list[Frame] = []  # the first one

    def change(pixels: numpy.ndarray) -> numpy.ndarray:
        _check(stop)
        frame = to_frame(pixels, name=f"a frame of {NAME}")
        frames[:] = frames or [frame]
        return enhance(frame)

    def rewritten(source: Path) -> tuple[bytes, Frame, int]:
        target = source.with_stem("result")
        with _opened(source) as opened:
            try:
                rewrite(opened, target, change)
            except UnusableImage:
                if not opened.fault or not frames or not target.exists():
                    raise
                warnings.warn(f"{NAME} is broken after {opened.count} frames: {opened.fault}", stacklevel=2)
            return target.read_bytes(), frames[0], opened.count

    return _in_folder(given, rewritten)


def first_of_clip(given: Given) -> tuple[Frame, int]:
    """The first frame of a clip, and the number of frames as its header has it."""

    def first(source: Path) -> tuple[Frame, int]:
        with _opened(source) as opened:
            for item in opened.items():
                if isinstance(item, Decoded):
                    return to_frame(item.pixels, name=f"a frame of {NAME}"), opened.expected or 0
        raise UnusableImage(f"{NAME} has no frame that can be read")

    return _in_folder(given, first)


def _in_folder(given: Given, do: Callable[[Path], T]) -> T:
    """Does something with a clip as a file. Errors and warnings then have no path."""
    with tempfile.TemporaryDirectory(prefix="deal-serve-") as folder:
        source = Path(folder) / f"clip{given.ending}"
        source.write_bytes(given.data)
        try:
            with warnings.catch_warnings(record=True) as noticed:
                return do(source)
        except UnusableImage as error:
            raise UnusableImage(_without(source, error)) from error
        finally:
            for each in noticed:
                warnings.warn(_without(source, each.message), each.category, stacklevel=2)


def _without(source: Path, message: object) -> str:
    named = str(message).replace(str(source), NAME)
    return named.replace(str(source.with_stem("result")), "the result")


def _opened(source: Path) -> Clip:
    opened = Clip(source)
    context = opened.stream.codec_context
    try:
        _check_size(context.height, context.width)
    except UnusableImage:
        opened.__exit__()
        raise
    return opened


def checked(frame: Frame) -> Frame:
    """The frame. Raises UnusableImage unless it is in the limit that Pillow has for pictures."""
    _check_size(*frame.pixels.shape[:2])
    return frame


def _check_size(height: int, width: int) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and height * width > most:
        raise UnusableImage(f"{NAME} has {height * width} pixels: at most {most} are accepted")


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
