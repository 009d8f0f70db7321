"""The types that pixels have, how values get back into them, and the error of images that are none.

>>> within(numpy.array([-3.2, 99.7, 300.0]), numpy.dtype("uint8"))
array([  0, 100, 255], dtype=uint8)
"""

from __future__ import annotations

from typing import Any

import numpy

TYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip
EXACT = 1 << 53  # integers up to here are computed with exactly, in float64


class UnusableImage(ValueError):
    """A file that is not an image, is damaged, or does not meet the requirements. The message names the file."""


def working_type(dtype: numpy.dtype[Any]) -> type[numpy.floating[Any]]:
    """The type to compute in, which has all values of this one."""
    return numpy.float32 if dtype.itemsize <= 2 or dtype == numpy.float32 else numpy.float64


def native(pixels: numpy.ndarray) -> numpy.ndarray:
    """Pixels in the byte order of this machine. Raises TypeError for other types, ValueError for too large integers."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if str(pixels.dtype) not in TYPES:
        raise TypeError(f"pixels must be one of {', '.join(TYPES)}; got {pixels.dtype}")
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 8:
        low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
        if max(-low, high) > EXACT:
            raise ValueError(f"pixels must be integers of at most 2**53; got {low} to {high}: subtract an offset first")
    return pixels


def within(values: numpy.ndarray, dtype: numpy.dtype[Any]) -> numpy.ndarray:
    """Values of floating point in this type: integers are rounded, and all are limited to its range."""
    if dtype.kind == "f":
        low, high = float(numpy.finfo(dtype).min), float(numpy.finfo(dtype).max)
    else:
        low, high = max(numpy.iinfo(dtype).min, -EXACT), min(numpy.iinfo(dtype).max, EXACT)
        values = values.round()
    return numpy.ascontiguousarray(values.clip(low, high).astype(dtype))
