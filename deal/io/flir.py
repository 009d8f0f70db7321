"""Temperatures of radiometric JPEG files of FLIR cameras, by the package flyr.

Such a file has a picture in colours, which is what other programs show, and beside it the counts of the sensor with the
constants that make temperatures of them.
"""

from __future__ import annotations

import io
import mmap
from typing import Literal

import numpy

Unit = Literal["celsius", "centikelvin"]
UNITS = ("celsius", "centikelvin")
EXIF_SEGMENT, SCAN = 0xE1, 0xDA  # markers of JPEG


def has_temperatures(content: bytes | mmap.mmap) -> bool:
    """Whether this is a JPEG file with a segment of a FLIR camera."""
    place = 2 if content[:2] == b"\xff\xd8" else len(content)
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != SCAN:
        if content[place + 1] == EXIF_SEGMENT and content[place + 4 : place + 9] == b"FLIR\0":
            return True
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def temperatures(content: bytes | mmap.mmap, unit: Unit) -> numpy.ndarray:
    """The temperatures [H, W] of a radiometric JPEG: float32 in Celsius, or uint16 in hundredths of a kelvin."""
    try:
        import flyr
    except ModuleNotFoundError as error:
        message = "temperatures of FLIR cameras are read by the package flyr: pip install 'deal-kernels[flir]'"
        raise ModuleNotFoundError(message) from error
    try:
        kelvin = numpy.asarray(flyr.unpack(io.BytesIO(content[:])).kelvin)
    except Exception as error:  # flyr raises anything for a damaged file
        reason = str(error) or type(error).__name__
        raise ValueError(f"flyr finds no temperatures in its FLIR data: {reason}") from error
    if not numpy.isfinite(kelvin).all():
        raise ValueError("its FLIR data has counts for which its constants give no temperature")
    if unit == "celsius":
        return (kelvin - 273.15).astype(numpy.float32)
    counts = (100 * kelvin).round()
    if counts.max() > 65535:
        raise ValueError(f"its {kelvin.max() - 273.15:.0f} degrees are too many for centikelvin: read them as celsius")
    return counts.astype(numpy.uint16)
