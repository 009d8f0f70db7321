"""The pixels of the frames of clips. Frames are those of the package av.

A clip of a thermal camera is mostly stored with colours that are all grey. Its frames are grey up to the first one that
has a colour, and from there on all have colours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    import av

NEARLY = 2  # by how much the colours of a grey frame, in 8 bits, differ from grey after compression
GREY = ("gray", "ya8", "ya16", "mono")  # beginnings of names of pixel formats


class ColourOrGrey:
    """Reads the frames of one clip one after the other."""

    def __init__(self, name: str) -> None:
        self.name, self.colour = name, False

    def pixels(self, frame: av.VideoFrame) -> numpy.ndarray:
        """uint8 [H, W] or [H, W, 3], or uint16 [H, W]."""
        form = frame.format
        bits = form.components[0].bits
        if is_grey(form.name):
            return _plane(frame, 0) if bits > 8 else frame.to_ndarray(format="gray")
        planar = form.is_planar and not form.is_rgb
        if not self.colour and planar and _is_neutral(frame, bits):
            return _plane(frame, 0) if bits > 8 else frame.to_ndarray(format="gray")
        if bits > 8 and not self.colour:
            warnings.warn(f"{self.name} has colours of {bits} bits: they are reduced to 8 bits", stacklevel=2)
        values = frame.to_ndarray(format="rgb24")
        if not self.colour and not planar and numpy.ptp(values, axis=2).max() <= NEARLY:
            return values[:, :, 1].copy()
        self.colour = True
        return values


def is_grey(name: str) -> bool:
    """Whether a pixel format has no colours."""
    return name.startswith(GREY)


def to_video(pixels: numpy.ndarray, source: av.VideoFrame, name: str) -> Any:
    """A frame with these pixels, in the pixel format of this name, with the range and colours of its source."""
    import av

    if pixels.dtype != numpy.uint8:
        frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], name)
        most = (1 << frame.format.components[0].bits) - 1
        for number, plane in enumerate(frame.planes):
            values = numpy.zeros((plane.height, plane.line_size // 2), "<u2")
            values[:, : plane.width] = most // 2 + 1 if number else pixels.clip(0, most)
            plane.update(values.tobytes())
        return frame
    if pixels.ndim == 3 and name.startswith(("gray", "mono")):
        raise ValueError("a colour frame in a grey clip")
    frame = av.VideoFrame.from_ndarray(numpy.ascontiguousarray(pixels), "gray" if pixels.ndim == 2 else "rgb24")
    known = source.format.name == name and not is_grey(name)
    same = {"dst_color_range": source.color_range, "dst_colorspace": source.colorspace} if known else {}
    return frame if frame.format.name == name else frame.reformat(format=name, **same)


def _plane(frame: av.VideoFrame, number: int) -> numpy.ndarray:
    """The values of a plane of more than 8 bits."""
    plane: Any = frame.planes[number]
    order = ">" if frame.format.is_big_endian else "<"
    values = numpy.frombuffer(plane, order + "u2").reshape(plane.height, -1)[:, : plane.width]
    return values.astype(numpy.uint16)


def _is_neutral(frame: av.VideoFrame, bits: int) -> bool:
    """Whether the planes of colour differences have none."""
    middle, near = 1 << (bits - 1), NEARLY << (bits - 8)
    planes: Sequence[Any] = frame.planes[1:3]
    for plane in planes:
        row = plane.line_size // (2 if bits > 8 else 1)
        values = numpy.frombuffer(plane, "u1" if bits <= 8 else ">u2" if frame.format.is_big_endian else "<u2")
        wide = plane.width * (2 if len(frame.planes) == 2 else 1)  # both differences in one plane
        inside = values.reshape(-1, row)[: plane.height, :wide]
        if int(inside.max()) > middle + near or int(inside.min()) < middle - near:
            return False
    return True
