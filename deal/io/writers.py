"""Writing of images with bit depth and metadata preserved."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy
from PIL import Image

from deal.io import tiff
from deal.io.atomic import atomic_write
from deal.io.images import SUFFIXES, Location, UnusableImage
from deal.io.metadata import Metadata, save_options
from deal.io.values import TYPES

FORMATS = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".npy": "NPY",
    ".raw": "RAW",
}  # fmt: skip
FORMAT_DTYPES = {
    "PNG": ("uint8", "uint16"), "TIFF": TYPES, "JPEG": ("uint8",), "BMP": ("uint8",), "NPY": TYPES, "RAW": TYPES,
}  # fmt: skip
BY_PILLOW = ("uint8", "uint16", "float32")  # other types of TIFF are written by `deal.io.tiff`


def write_image(path: Location, pixels: numpy.ndarray, metadata: Metadata | None = None) -> None:
    """Writes an image file atomically. See `image_bytes`."""
    content = image_bytes(path, pixels, metadata)
    with atomic_write(path) as file:
        file.write(content)


def image_bytes(path: Location, pixels: numpy.ndarray, metadata: Metadata | None = None) -> bytes:
    """The content of an image file.

    Args:
        path: the ending sets the format. JPEG is written with quality 95, and .raw without a header.
        pixels: [H, W] of a type that the format stores, or [H, W, 3] of uint8.
        metadata: metadata of the source, to be kept.
    """
    metadata = Metadata() if metadata is None else metadata
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"the ending of {path} must be one of {', '.join(SUFFIXES)}")
    if str(pixels.dtype) not in FORMAT_DTYPES[kind]:
        stored = ", ".join(FORMAT_DTYPES[kind])
        raise UnusableImage(f"{path} cannot store {pixels.dtype}: {kind} stores {stored}, and TIFF every type")
    if pixels.ndim == 3 and pixels.dtype != numpy.uint8 and kind not in ("NPY", "RAW"):
        raise UnusableImage(f"{path} cannot store colours of {pixels.dtype}, only of uint8; .npy can")
    return _encoded_at_least_pixels(path, pixels, kind, metadata)


def _encoded_at_least_pixels(path: Location, pixels: numpy.ndarray, kind: str, metadata: Metadata) -> bytes:
    """The content of a file, without the metadata if it cannot be written. Pillow raises anything for such."""
    try:
        return _encoded(pixels, kind, metadata)
    except MemoryError:
        raise
    except Exception as error:
        reason = error
    try:
        content = _encoded(pixels, kind, Metadata(white_is_zero=metadata.white_is_zero, raw=metadata.raw))
    except OSError as error:
        raise UnusableImage(f"{path} cannot be written as {kind}: {error}") from error
    warnings.warn(f"{path} is without the metadata of its source, which cannot be written: {reason}", stacklevel=3)
    return content


def _encoded(pixels: numpy.ndarray, kind: str, metadata: Metadata) -> bytes:
    encoded = io.BytesIO()
    if kind == "NPY":
        numpy.save(encoded, pixels)
    elif kind == "RAW":
        big_endian = metadata.raw is not None and metadata.raw.dtype.byteorder == ">"
        encoded.write(pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).tobytes())
    elif kind == "TIFF" and (metadata.white_is_zero or str(pixels.dtype) not in BY_PILLOW):
        options = save_options(metadata, kind)
        return tiff.encoded(pixels, white_is_zero=metadata.white_is_zero, **options)
    else:
        options = save_options(metadata, kind)
        if kind == "JPEG":
            options |= {"quality": 95, "subsampling": 0}
        elif kind == "PNG":
            options["compress_level"] = 4  # a third of the time of Pillow's default, and the same size
        dark_is_zero = kind == "TIFF" or not metadata.white_is_zero
        shown = pixels if dark_is_zero else numpy.iinfo(pixels.dtype).max - pixels
        Image.fromarray(shown).save(encoded, kind, **options)
    return encoded.getvalue()
