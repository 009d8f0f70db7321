"""Images and raw frames from standard input and to standard output.

>>> import io
>>> raw = RawFormat.parse("2x1:y8")
>>> [frame.tolist() for frame in raw_frames(io.BytesIO(b"\\1\\2\\3\\4"), raw, "stdin")]
[[[1, 2]], [[3, 4]]]
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import numpy

from deal.io.formats import Content
from deal.io.raw import RawFormat
from deal.io.values import UnusableImage

STDIN, STDOUT, STDERR = 0, 1, 2  # file descriptors


def stdin() -> BinaryIO:
    """Standard input, which must not be a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("stdin is a terminal: send an image to it, such as by < frame.tif")
    return sys.stdin.buffer


def image_of_stdin() -> Content:
    """All of standard input."""
    content = Content("stdin", stdin().read())
    if not content.data:
        raise UnusableImage("stdin is empty")
    return content


@contextlib.contextmanager
def stdout_alone() -> Iterator[BinaryIO]:
    """Standard output, for the block alone: what other code prints meanwhile goes to standard error.

    It has no buffer, see `write_all`.
    """
    if os.isatty(STDOUT):
        raise ValueError("stdout is a terminal: send the image to a file or to a program, such as by > enhanced.tif")
    sys.stdout.flush()
    with open(os.dup(STDOUT), "wb", buffering=0) as file, contextlib.redirect_stdout(sys.stderr):
        os.dup2(STDERR, STDOUT)
        try:
            yield file
        finally:
            os.dup2(file.fileno(), STDOUT)


def write_all(file: BinaryIO, content: bytes) -> None:
    """Writes to a file without a buffer, which may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def raw_frames(stream: BinaryIO, raw: RawFormat, name: str) -> Iterator[numpy.ndarray]:
    """The frames of a stream, each as soon as it is complete.

    Args:
        stream: its `read` returns what was asked for unless the stream ends.
        raw: the format of the frames.
        name: of the stream, for messages.

    Raises:
        UnusableImage: after the last whole frame, if bytes follow it or there is none.
    """
    count = 0
    while content := stream.read(raw.frame_bytes):
        if len(content) < raw.frame_bytes:
            raise UnusableImage(
                f"{name} ends within a frame: after {count} whole frames {raw} come {len(content)} bytes of "
                f"{raw.frame_bytes}"
            )
        count += 1
        yield raw.decode(content)
    if not count:
        raise UnusableImage(f"{name} is empty")
