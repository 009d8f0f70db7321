"""Image files in, image files out, in memory.

The network runs once for an image: what it separates is kept until another image comes, so that other parts and
strengths of the same image cost no more than their arithmetic.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from deal.inference.enhancer import Enhancer
from deal.io.formats import Content
from deal.io.images import Frame, ImageFile, UnusableImage, read_image, to_uint8
from deal.io.writers import image_bytes
from deal.model.parts import Parts
from deal.serve.request import Wanted

MEDIA_TYPES = {
    ".png": "image/png", ".tif": "image/tiff", ".jpg": "image/jpeg", ".bmp": "image/bmp",
    ".npy": "application/octet-stream",
}  # fmt: skip
NAME = "the file"  # in messages; the name that a client gives is not used
PREVIEW = 2048  # pixels of the longer side
FAST = 1  # compression of a PNG


class UnknownFormat(ValueError):
    """The content is no image file of the formats that are read."""


class Result(NamedTuple):
    """A file, and what is to be told of it."""

    content: bytes
    media_type: str
    told: dict[str, Any]


class Remembering(Enhancer):
    """Keeps what the network separated from the last image. Copies by `adjusted` share it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._last: list[tuple[Tensor, bool, Parts]] = []  # at most one

    def separate(self, x: Tensor, *, bf16: bool = False, lines: tuple[Tensor, ...] | None = None) -> Parts:
        if lines is not None:
            return super().separate(x, bf16=bf16, lines=lines)
        for image, precision, parts in self._last:
            if precision == bf16 and torch.equal(image, x):
                return parts
        self._last.clear()  # before the next one needs memory
        parts = super().separate(x, bf16=bf16)
        self._last[:] = [(x, bf16, parts)]
        return parts


class Restorer:
    """Restores files, one at a time."""

    def __init__(self, enhancer: Remembering) -> None:
        self.enhancer = enhancer

    def file(self, content: bytes, wanted: Wanted) -> Result:
        """The restored file, as `deal enhance` writes it: in its format and type, with its metadata."""
        given = _known(content)
        with warnings.catch_warnings(record=True) as noticed:
            _strict()
            image, pixels, told = self._restored(given, wanted)
            restored = image_bytes(f"the result{given.ending}", pixels, image.metadata)
        return Result(restored, MEDIA_TYPES[given.ending], told | _notes(noticed))

    def preview(self, content: bytes, wanted: Wanted) -> Result:
        """The restored image as a PNG of 8 bits, black and white as the window of the original has them."""
        with warnings.catch_warnings(record=True) as noticed:
            _strict()
            image, pixels, told = self._restored(_known(content), wanted)
        shown = to_uint8(image.frame._replace(pixels=pixels).tensor(3 if pixels.ndim == 3 else 1))
        picture = Image.fromarray(255 - shown if image.metadata.white_is_zero else shown)
        picture.thumbnail((PREVIEW, PREVIEW))
        encoded = io.BytesIO()
        picture.save(encoded, "PNG", compress_level=FAST)
        return Result(encoded.getvalue(), MEDIA_TYPES[".png"], told | _notes(noticed))

    def _restored(self, content: Content, wanted: Wanted) -> tuple[ImageFile, numpy.ndarray, dict[str, Any]]:
        enhancer = self.enhancer.adjusted(**wanted._asdict())
        image = read_image(content)
        _check_size(image.frame)
        radiometric = image.frame.measured if wanted.radiometric is None else wanted.radiometric
        strengths = enhancer.radiometric_strengths if radiometric else enhancer.strengths
        height, width = image.frame.pixels.shape[:2]
        told = {
            "width": width, "height": height, "type": str(image.frame.pixels.dtype), "ending": content.ending,
            "window": [image.frame.low, image.frame.high], "radiometric": radiometric, "parts": list(strengths),
        }  # fmt: skip
        return image, enhancer.enhance_frame(image.frame), told


def _known(content: bytes) -> Content:
    given = Content(NAME, content)
    if not content:
        raise UnknownFormat("there is no image in the request: send the bytes of a file as its body")
    if content[4:8] == b"ftyp" or content.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        raise UnknownFormat(f"{NAME} is a clip, of which deal enhance restores each frame")
    if given.ending not in MEDIA_TYPES:
        raise UnknownFormat(f"{NAME} is not an image in a format that is read: PNG, TIFF, JPEG, BMP or .npy")
    return given


def _strict() -> None:
    """Makes Pillow's warning of an image that is larger when it is decoded than its file suggests an error."""
    warnings.simplefilter("always", UserWarning)
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _check_size(frame: Frame) -> None:
    """Holds arrays to the limit that Pillow has for pictures."""
    most, pixels = Image.MAX_IMAGE_PIXELS, frame.pixels.shape[0] * frame.pixels.shape[1]
    if most is not None and pixels > most:
        raise UnusableImage(f"{frame.name} has {pixels} pixels: at most {most} are accepted")


def _notes(noticed: list[warnings.WarningMessage]) -> dict[str, list[str]]:
    return {"notes": [str(each.message) for each in noticed if issubclass(each.category, UserWarning)]}
