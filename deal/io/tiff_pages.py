"""TIFF files of several pages, which are written one after the other. Each page comes as a TIFF of its own.

>>> from PIL import Image
>>> file = io.BytesIO()
>>> pages = TiffPages(file, big=False)
>>> for value in (10, 20):
...     page = io.BytesIO()
...     Image.new("L", (4, 3), value).save(page, "TIFF")
...     pages.append(page.getvalue())
>>> with Image.open(file) as image:
...     image.n_frames, [image.seek(k) or image.getpixel((0, 0)) for k in (0, 1)]
(2, [10, 20])
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from collections.abc import Sequence
from typing import BinaryIO

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
PLACES = {273, 324}  # tags of the offsets of strips and of tiles
DIRECTORIES = {330, 34665, 34853, 40965}  # tags of the offsets of other tags: EXIF, GPS
LONGS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of offsets, and their letters in struct
LONG, LONG8 = 4, 16
MOST_OF_SMALL = 0xF0000000  # bytes of a file with offsets of 32 bits
SHAPE_OF_TIFFFILE, IMAGEJ = '{"shape":', "ImageJ="  # beginnings of descriptions


class TiffPages:
    """Writes a TIFF page by page.

    Args:
        file: an empty file.
        big: whether offsets have 64 bits, which files of more than 4 GB need.
    """

    def __init__(self, file: BinaryIO, *, big: bool) -> None:
        self.file, self.big = file, big
        self._order = ""
        self._count, self._offset, self._entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        self._link = 8 if big else 4  # where the offset of the next page goes

    def append(self, content: bytes) -> None:
        """Appends the only page of a TIFF with offsets of 32 bits."""
        if not self._order:
            self._order = "<" if content[:2] == b"II" else ">"
            marks = struct.pack(self._order + "HHH", 43, 8, 0) if self.big else struct.pack(self._order + "H", 42)
            self.file.write(content[:2] + marks + bytes(struct.calcsize(self._offset)))
        base = self._end()
        self.file.write(content)
        (start,) = struct.unpack_from(self._order + "I", content, 4)
        place = self._write_directory(content, start, base)
        self._set(self._link, place)
        (entries,) = struct.unpack_from(self._order + "H", content, start)
        self._link = place + struct.calcsize("<" + self._count) + self._entry * entries

    def _end(self) -> int:
        """The end of the file, where the next part begins, after filling up to a multiple of 8 bytes."""
        self.file.seek(0, io.SEEK_END)
        self.file.write(bytes(-self.file.tell() % 8))
        return self.file.tell()

    def _set(self, place: int, offset: int) -> None:
        self.file.seek(place)
        self.file.write(struct.pack(self._order + self._offset, offset))

    def _write_directory(self, content: bytes, start: int, base: int) -> int:
        """Writes the tags at `start` of a page that now is at `base`, and returns their place."""
        (entries,) = struct.unpack_from(self._order + "H", content, start)
        tags = []
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(self._order + "HHI", content, entry)
            length = SIZES.get(kind, 1) * count
            (at,) = struct.unpack_from(self._order + "I", content, entry + 8) if length > 4 else (entry + 8,)
            value = content[at : at + length]
            if tag in PLACES or tag in DIRECTORIES:
                offsets = struct.unpack(f"{self._order}{count}{LONGS[kind]}", value)
                if tag in PLACES:
                    offsets = tuple(base + each for each in offsets)
                else:
                    offsets = tuple(self._write_directory(content, each, base) for each in offsets)
                kind = LONG8 if self.big else LONG
                value = struct.pack(f"{self._order}{count}{self._offset}", *offsets)
            tags.append((tag, kind, count, value))
        room = struct.calcsize(self._offset)
        written = [struct.pack(self._order + self._count, entries)]
        for tag, kind, count, value in tags:
            field = value.ljust(room, b"\0")
            if len(value) > room:
                place = self._end()
                self.file.write(value)
                field = struct.pack(self._order + self._offset, place)
            written.append(struct.pack(self._order + "HH" + self._offset, tag, kind, count) + field)
        place = self._end()
        self.file.write(b"".join(written) + bytes(room))
        return place


def describes_pages(description: str) -> bool:
    """Whether a description tells how many pages the file has, as those of tifffile and ImageJ do."""
    return description.startswith((SHAPE_OF_TIFFFILE, IMAGEJ))


def description_of_pages(description: str, pages: int, shape: Sequence[int]) -> str:
    """The description of a file with these pages, after that of its source. "" if the source's does not fit.

    >>> description_of_pages('{"shape": [5, 96, 128]}', 5, (192, 256))
    '{"shape": [5, 192, 256]}'
    """
    if description.startswith(IMAGEJ):
        found = re.search(r"^images=(\d+)\s*$", description, re.MULTILINE)
        return description if found and int(found[1]) == pages else ""
    try:
        told = json.loads(description)
        before = told["shape"][: -len(shape)]
        fits = math.prod(before) == pages
    except (ValueError, TypeError, KeyError):
        return ""
    return json.dumps({**told, "shape": [*before, *shape]}) if fits else ""
