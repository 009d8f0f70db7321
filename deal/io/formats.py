"""What image files hold: pages of pixels, and metadata. Errors say what is wrong, without the name of the file."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy
from PIL import Image, UnidentifiedImageError

from deal.io import flir, tiff
from deal.io.metadata import Metadata, read_metadata
from deal.io.raw import RawFormat

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
MOST_CHANNELS = 4
SUFFIXES = (*PICTURES, ".npy", ".raw")
FIRST_BYTES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"\x93NUMPY": ".npy"}


class Content(NamedTuple):
    """An image file in memory.

    >>> Content("stdin", b"\\x93NUMPY").ending
    '.npy'
    """

    name: str  # for messages
    data: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def ending(self) -> str:
        """That of files of its format, by its first bytes; "" if none of ours has this format."""
        known = (ending for first, ending in FIRST_BYTES.items() if self.data.startswith(first))
        return ".tif" if tiff.is_tiff(self.data) else next(known, "")


class Source(NamedTuple):
    """An open file."""

    pages: int
    pixels: Callable[[int], numpy.ndarray]  # of a page: [H, W] or [H, W, 3]
    metadata: Callable[[int], Metadata]  # of a page, to be read before its pixels
    other_temperatures: bool = False  # beside the pixels, which are a picture
    deep_colours: bool = False  # which Pillow reduces to 8 bits


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str] | Content, raw: RawFormat | None = None, unit: flir.Unit | None = None
) -> Iterator[Source]:  # fmt: skip
    """Opens an image file.

    Args:
        path: the file, or its content.
        raw: the format of files whose ending is none of `SUFFIXES`, or .raw.
        unit: of the temperatures of FLIR cameras, which are then read in place of the picture.
    """
    in_memory = isinstance(path, Content)
    ending = path.ending if isinstance(path, Content) else Path(path).suffix.lower()
    if ending == ".npy":
        yield _array_file(path)
    elif not in_memory and (ending == ".raw" or (raw is not None and ending not in PICTURES)):
        yield _raw_file(_content(path), raw)
    else:
        # Metadata is decoded when it is written to another file, so the content stays in memory, or is mapped. Doing
        # this here also keeps Pillow from mapping the file, which mixes up the rows of rotated TIFFs.
        content = _content(path)
        with _picture(content if tiff.is_tiff(content[:4]) else content[:], unit) as source:
            yield source


class _Mapped(mmap.mmap):
    """The content of a file, of which only what is read takes memory. The file keeps what it has if this is changed."""

    def getvalue(self) -> _Mapped:
        """The whole content, which Pillow asks for where it decompresses pages."""
        return self


def _content(path: str | os.PathLike[str] | Content) -> _Mapped | bytes:
    if isinstance(path, Content):
        return path.data
    with open(path, "rb") as file:
        return _Mapped(file.fileno(), 0, access=mmap.ACCESS_COPY) if os.fstat(file.fileno()).st_size else b""


def _array_file(path: str | os.PathLike[str] | Content) -> Source:
    if isinstance(path, Content):
        values = numpy.load(io.BytesIO(path.data), allow_pickle=False)
    else:  # A mapped file needs no memory for a size that its header claims and the file has not.
        values = numpy.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, numpy.ndarray):
        raise ValueError("a .npz archive, of which the arrays must be saved as .npy files")
    single = is_single(values.shape)
    if not values.size or not (single or is_stack(values.shape)):
        raise ValueError(f"an array must be [H, W], [H, W, 3] or [N, H, W]; got the shape {values.shape}")
    return Source(1 if single else len(values), lambda page: numpy.array(values if single else values[page]), _none)


def _none(page: int) -> Metadata:
    return Metadata()


def is_single(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one image, [H, W] or [H, W, 3], and not a stack of them."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)


def is_stack(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is several images, and not one with other channels than grey or three colours."""
    return (len(shape) == 3 and shape[2] > MOST_CHANNELS) or (len(shape) == 4 and shape[3] == 3)


def _raw_file(content: tiff.Content, raw: RawFormat | None) -> Source:
    if raw is None:
        raise ValueError("a file without a header: name its size and type by --raw, such as 640x512:y16le")
    return Source(raw.frames_in(len(content)), lambda page: raw.decode(content, page), lambda page: Metadata(raw=raw))


@contextlib.contextmanager
def _picture(content: tiff.Content, unit: flir.Unit | None) -> Iterator[Source]:
    readable, layouts = tiff.as_bytes(content) if tiff.is_tiff(content) else (content, {})
    try:
        image = Image.open(io.BytesIO(readable) if isinstance(readable, bytes) else cast(IO[bytes], readable))
    except UnidentifiedImageError as error:
        raise ValueError(tiff.describe(content) if tiff.is_tiff(content) else "unknown format") from error
    with image:
        thermal = flir.has_temperatures(content)
        if unit is not None and image.format in ("JPEG", "MPO") and not thermal:
            raise ValueError("a JPEG file without FLIR temperatures")

        def metadata(page: int) -> Metadata:
            white_is_zero = page in layouts and layouts[page].white_is_zero
            if page != image.tell():
                image.seek(page)
            try:
                return read_metadata(image)._replace(white_is_zero=white_is_zero)
            except Exception as error:  # Pillow raises anything for damaged metadata
                return Metadata(white_is_zero=white_is_zero, damage=str(error) or type(error).__name__)

        def pixels(page: int) -> numpy.ndarray:
            if thermal and unit is not None:
                return flir.temperatures(content, unit)
            if page != image.tell():
                image.seek(page)
            values = pixels_of(image)
            return tiff.values_of(values, layouts[page]) if page in layouts else values

        # A JPEG file of several pictures has previews, and other views, beside the first.
        pages = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        deep = is_colour(image) and any("16" in str(tile[3]) for tile in image.tile)  # type: ignore[attr-defined]
        yield Source(pages, pixels, metadata, thermal and unit is None, deep)


def is_colour(image: Image.Image) -> bool:
    return image.mode not in ("1", "L", "LA") and not image.mode.startswith(("I", "F"))


def pixels_of(image: Image.Image) -> numpy.ndarray:
    """The pixels of a PIL image, without transparency: uint8 [H, W] or [H, W, 3], or uint16, int32, float32 [H, W]."""
    if is_colour(image):
        return numpy.array(image.convert("RGB"))
    if image.mode in ("1", "L", "LA"):
        return numpy.array(image.convert("L"))
    values = numpy.array(image)
    if image.mode == "F":
        return values
    return values.astype(numpy.int32 if image.mode == "I" and image.format != "PNG" else numpy.uint16)
