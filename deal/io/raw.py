"""Frames without a header, as ffmpeg, GStreamer and v4l2 hand them on: values, row after row.

>>> form = RawFormat.parse("640x512:y16le")
>>> form, form.frame_bytes
(RawFormat(width=640, height=512, kind='y16le'), 655360)
>>> str(form)
'640x512:y16le'
"""

from __future__ import annotations

import mmap
import re
from typing import Any, NamedTuple

import numpy

from deal_kernels._common.checks import one_of

# Names as v4l2 and ffmpeg have them: Y is luminance, le and be the order of its bytes.
KINDS = {
    "y8": "|u1", "y16le": "<u2", "y16be": ">u2", "s16le": "<i2", "s16be": ">i2", "f32le": "<f4", "f32be": ">f4",
    "rgb24": "|u1",
}  # fmt: skip
SYNTAX = re.compile(r"([1-9]\d{0,6})x([1-9]\d{0,6}):(\w+)")


class RawFormat(NamedTuple):
    """The size of raw frames and the type of their values."""

    width: int
    height: int
    kind: str  # of KINDS

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """The format that a text such as "640x512:y16le" names: width x height, and a type."""
        match = SYNTAX.fullmatch(text)
        if match is None:
            raise ValueError(f"raw must be WIDTHxHEIGHT:TYPE, such as 640x512:y16le; got {text!r}")
        width, height, kind = match.groups()
        one_of("the type of raw", kind, tuple(KINDS))
        return cls(int(width), int(height), kind)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.kind}"

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """The type of a value, with the order of its bytes."""
        return numpy.dtype(KINDS[self.kind])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a frame: [H, W], or [H, W, 3] for colours."""
        return (self.height, self.width, 3) if self.kind == "rgb24" else (self.height, self.width)

    @property
    def frame_bytes(self) -> int:
        return int(numpy.prod(self.shape, dtype=numpy.int64)) * self.dtype.itemsize

    def frames_in(self, length: int) -> int:
        """How many frames are in so many bytes, which must be whole frames."""
        frames, rest = divmod(length, self.frame_bytes)
        if rest or not frames:
            raise ValueError(f"{length} bytes are no whole number of frames {self}, of {self.frame_bytes} bytes each")
        return frames

    def decode(self, content: bytes | mmap.mmap, frame: int = 0) -> numpy.ndarray:
        """A frame of a file or buffer as an array, in the byte order of this machine."""
        start = frame * self.frame_bytes
        values = numpy.frombuffer(content[start : start + self.frame_bytes], self.dtype)
        return values.reshape(self.shape).astype(self.dtype.newbyteorder("="))

    def encode(self, pixels: numpy.ndarray) -> bytes:
        """The bytes of a frame, which may have another size than this format."""
        if pixels.dtype != self.dtype.newbyteorder("="):
            raise ValueError(f"raw {self.kind} holds {self.dtype.newbyteorder('=')}; got {pixels.dtype}")
        return pixels.astype(self.dtype).tobytes()
