"""Image files and clips in, the same files restored out.

The network runs once for an image: what it separates is kept until another image comes, so that other parts and
strengths of the same image cost no more than their arithmetic.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from deal.inference.enhancer import Enhancer
from deal.io.images import Frame, read_image, read_pages, to_uint8
from deal.io.writers import image_bytes
from deal.model.parts import Parts
from deal.serve import several
from deal.serve.request import Wanted

MEDIA_TYPES = {
    ".png": "image/png", ".tif": "image/tiff", ".jpg": "image/jpeg", ".bmp": "image/bmp",
    ".npy": "application/octet-stream", ".mp4": "video/mp4", ".mov": "video/quicktime", ".avi": "video/x-msvideo",
    ".mkv": "video/x-matroska",
}  # fmt: skip
PREVIEW = 2048  # pixels of the longer side
FAST = 1  # compression of a PNG


class UnknownFormat(ValueError):
    """The content is no file of the formats that are read."""


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

    def file(self, content: bytes, wanted: Wanted, stop: threading.Event) -> Result:
        """The restored file, as `deal enhance` writes it: in its format and type, with its metadata.

        Files of several frames end with `several.Stopped` at the next frame after `stop` is set.
        """
        given, enhancer = _known(content), self.enhancer.adjusted(**wanted._asdict())
        with _noticed() as notes:
            if given.ending in several.CLIPS:
                restored, frame, count = several.clip(given, enhancer, stop)
            else:
                pages = read_pages(given)
                first = next(pages)
                frame, count = several.checked(first.frame), first.pages
                if count > 1:
                    restored = several.pages(given.ending, first, pages, enhancer, stop)
                else:
                    pixels = enhancer.enhance_frame(frame)
                    restored = image_bytes(f"the result{given.ending}", pixels, first.metadata)
        return Result(restored, MEDIA_TYPES[given.ending], _told(given, frame, enhancer, count) | notes)

    def preview(self, content: bytes, wanted: Wanted, stop: threading.Event) -> Result:
        """The first frame, restored, as a PNG of 8 bits, black and white as the window of the original has them."""
        given, enhancer = _known(content), self.enhancer.adjusted(**wanted._asdict())
        white_is_zero, count = False, 0
        with _noticed() as notes:
            if given.ending in several.CLIPS:
                frame, count = several.first_of_clip(given)
            else:
                image = read_image(given, page=0)
                frame, count, white_is_zero = several.checked(image.frame), image.pages, image.metadata.white_is_zero
            pixels = enhancer.enhance_frame(frame)
        shown = to_uint8(frame._replace(pixels=pixels).tensor(3 if pixels.ndim == 3 else 1))
        picture = Image.fromarray(255 - shown if white_is_zero else shown)
        picture.thumbnail((PREVIEW, PREVIEW))
        encoded = io.BytesIO()
        picture.save(encoded, "PNG", compress_level=FAST)
        return Result(encoded.getvalue(), MEDIA_TYPES[".png"], _told(given, frame, enhancer, count) | notes)


def _told(given: several.Given, frame: Frame, enhancer: Enhancer, frames: int) -> dict[str, Any]:
    radiometric = frame.measured if enhancer.radiometric is None else enhancer.radiometric
    strengths = enhancer.radiometric_strengths if radiometric else enhancer.strengths
    height, width = frame.pixels.shape[:2]
    return {
        "width": width, "height": height, "frames": frames, "type": str(frame.pixels.dtype), "ending": given.ending,
        "window": [frame.low, frame.high], "radiometric": radiometric, "parts": list(strengths),
    }  # fmt: skip


def _known(content: bytes) -> several.Given:
    name = several.NAME
    if not content:
        raise UnknownFormat("there is no image in the request: send the bytes of a file as its body")
    given = several.Given(name, content)
    if given.ending not in MEDIA_TYPES:
        raise UnknownFormat(f"{name} is not in a format that is read: PNG, TIFF, JPEG, BMP, .npy, MP4, MOV, AVI, MKV")
    return given


@contextlib.contextmanager
def _noticed() -> Iterator[dict[str, list[str]]]:
    """The warnings of the block. That of an image which is far larger than its file is an error."""
    notes: dict[str, list[str]] = {"notes": []}
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield notes
    texts = (str(each.message) for each in noticed if issubclass(each.category, UserWarning))
    notes["notes"] += dict.fromkeys(texts)
