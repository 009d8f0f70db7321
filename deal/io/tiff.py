"""TIFF files of one channel with types that Pillow does not read or write: signed, 64-bit, half and double precision.

Pillow unpacks the bytes of every compression. So the tags of such a file are changed to say that it has bytes, in
longer rows, and the bytes become values afterwards. Files are written the other way round.

>>> counts = numpy.array([[-5, 300], [7, 8]], numpy.int16)
>>> content, layouts = as_bytes(encoded(counts))
>>> with Image.open(io.BytesIO(content)) as image:
...     values_of(numpy.array(image), layouts[0])
array([[ -5, 300],
       [  7,   8]], dtype=int16)
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy
from PIL import Image, TiffImagePlugin

WIDTH, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, PREDICTOR = 256, 258, 259, 262, 274, 277, 317
TILE_WIDTH, SAMPLE_FORMAT = 322, 339
DEFAULTS = {BITS: 1, COMPRESSION: 1, ORIENTATION: 1, SAMPLES: 1, PREDICTOR: 1, SAMPLE_FORMAT: 1}
KINDS = {1: "u", 2: "i", 3: "f"}  # numpy's letters for the values of the tag SampleFormat
READ_BY_PILLOW = {"u1", "u2", "f4"}
OF_BYTES = {1, 5, 8, 32773, 32946, 34925, 50000}  # compressions that keep every byte, whatever it is a part of
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of tags, and their letters in struct
MOST_PAGES = 1 << 16
Content = bytes | mmap.mmap


class Layout(NamedTuple):
    """How the values of a page lie in its bytes."""

    dtype: numpy.dtype[Any]
    width: int
    row: int  # values in a row of a tile or strip, on which the predictor works
    predictor: int
    orientation: int
    white_is_zero: bool


class _Directory:
    """The tags of one page."""

    def __init__(self, content: bytearray | mmap.mmap, order: str, big: bool, start: int) -> None:
        self.content, self.order = content, order
        self.count, entry, self.value = ("Q", 20, 12) if big else ("H", 12, 8)  # the value's place in an entry
        self.length = "Q" if big else "I"
        (entries,) = self._unpack(self.count, start)
        first = start + struct.calcsize(order + self.count)
        end = first + entry * entries
        (self.next,) = self._unpack(self.length, end)
        self.at = {self._unpack("H", place)[0]: place for place in range(first, end, entry)}

    def _unpack(self, letters: str, place: int) -> tuple[int, ...]:
        if place + struct.calcsize(self.order + letters) > len(self.content):
            raise ValueError("a TIFF with tags beyond the end of the file")
        return struct.unpack_from(self.order + letters, self.content, place)

    def get(self, tag: int) -> int:
        """The first value of a tag of integers."""
        if tag not in self.at:
            return DEFAULTS.get(tag, 0)
        place = self.at[tag]
        (kind,), (count,) = self._unpack("H", place + 2), self._unpack(self.length, place + 4)
        letter = INTEGERS.get(kind)
        if letter is None or not count:
            raise ValueError(f"a TIFF whose tag {tag} is no integer")
        place += self.value
        if count * struct.calcsize(letter) > struct.calcsize(self.length):
            (place,) = self._unpack(self.length, place)
        return self._unpack(letter, place)[0]

    def set(self, tag: int, value: int) -> None:
        """Changes a tag that the page has, in a bytearray."""
        if tag in self.at:
            letter, kind = ("I", 4) if tag in (WIDTH, TILE_WIDTH) else ("H", 3)
            field = struct.pack(self.order + letter, value).ljust(struct.calcsize(self.length), b"\0")
            entry = struct.pack(self.order + "H" + self.length, kind, 1) + field
            place = self.at[tag] + 2
            self.content[place : place + len(entry)] = entry


def is_tiff(content: Content) -> bool:
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _pages(content: bytearray | mmap.mmap) -> Iterator[_Directory]:
    order, big = "<" if content[:2] == b"II" else ">", 43 in content[2:4]
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    seen: set[int] = set()
    while start and start not in seen and len(seen) < MOST_PAGES:
        seen.add(start)
        page = _Directory(content, order, big, start)
        yield page
        start = page.next


def as_bytes(content: Content) -> tuple[Content, dict[int, Layout]]:
    """A TIFF of which Pillow reads every page, and the layouts of those pages whose bytes are then to become values.

    A mapped file is changed in place, in this process alone.
    """
    if content[:4] == b"MM\0+":  # Pillow takes it for a small one
        raise ValueError("a BigTIFF with the highest bytes first; store it with the lowest bytes first")
    changed, layouts = content if isinstance(content, mmap.mmap) else bytearray(content), {}
    for number, page in enumerate(_pages(changed)):
        layout = _layout(page)
        if layout is None:
            continue
        layouts[number] = layout
        size, tile = layout.dtype.itemsize, page.get(TILE_WIDTH)
        page.set(WIDTH, size * (-(-layout.width // tile) * tile if tile else layout.width))
        page.set(TILE_WIDTH, size * tile)
        for tag, value in ((BITS, 8), (PHOTOMETRIC, 1), (ORIENTATION, 1), (PREDICTOR, 1), (SAMPLE_FORMAT, 1)):
            page.set(tag, value)
    return changed if isinstance(changed, mmap.mmap) else bytes(changed), layouts


def _layout(page: _Directory) -> Layout | None:
    """None for a page that Pillow reads by itself, or not at all."""
    kind, bits, grey = KINDS.get(page.get(SAMPLE_FORMAT)), page.get(BITS), page.get(PHOTOMETRIC)
    if kind is None or bits not in (8, 16, 32, 64) or (kind, bits) == ("f", 8):
        return None
    name = f"{kind}{bits // 8}"
    read_by_pillow = name == "u1" or (name in READ_BY_PILLOW and grey == 1)
    if read_by_pillow or page.get(SAMPLES) != 1 or grey not in (0, 1) or page.get(COMPRESSION) not in OF_BYTES:
        return None
    width, predictor = page.get(WIDTH), page.get(PREDICTOR) if page.get(COMPRESSION) != 1 else 1
    return Layout(
        numpy.dtype(page.order + name), width, page.get(TILE_WIDTH) or width, predictor, page.get(ORIENTATION), not grey
    )


def values_of(rows: numpy.ndarray, layout: Layout) -> numpy.ndarray:
    """The values [H, W] of a page that Pillow has read as bytes."""
    dtype = layout.dtype
    blocks = rows.reshape(len(rows), -1, layout.row, dtype.itemsize)  # the last two axes are a row of one tile
    if layout.predictor == 3:
        planes = blocks.reshape(*blocks.shape[:2], dtype.itemsize, layout.row)
        summed = planes.reshape(*blocks.shape[:2], -1).cumsum(-1, dtype=numpy.uint8).reshape(planes.shape)
        blocks, dtype = numpy.ascontiguousarray(summed.swapaxes(2, 3)), dtype.newbyteorder(">")
    values = numpy.ascontiguousarray(blocks).view(dtype)[..., 0].astype(dtype.newbyteorder("="))
    if layout.predictor == 2:
        whole = values.view(f"u{dtype.itemsize}")
        values = whole.cumsum(-1, dtype=whole.dtype).view(values.dtype)
    return upright(values.reshape(len(rows), -1)[:, : layout.width], layout.orientation)


def upright(values: numpy.ndarray, orientation: int) -> numpy.ndarray:
    """An image [H, W] whose tag Orientation says how it lies, turned to stand upright."""
    if orientation >= 5:
        values = values.T
    down, right = orientation in (3, 4, 7, 6), orientation in (2, 3, 7, 8)
    if orientation in (6, 8):
        down, right = orientation == 8, orientation == 6
    return numpy.ascontiguousarray(values[:: -1 if down else 1, :: -1 if right else 1])


def describe(content: Content) -> str:
    """What the values of a TIFF are that cannot be read, and what to do about it."""
    page = next(_pages(content if isinstance(content, mmap.mmap) else bytearray(content)))
    return (
        f"a TIFF with {page.get(SAMPLES)} samples of {page.get(BITS)} bits, SampleFormat {page.get(SAMPLE_FORMAT)} and "
        f"compression {page.get(COMPRESSION)}; store it with one sample of 8 to 64 bits, uncompressed or deflated"
    )


def encoded(pixels: numpy.ndarray, *, white_is_zero: bool = False, **options: Any) -> bytes:
    """A TIFF of pixels [H, W] of any integer or floating-point type.

    Args:
        pixels: the values.
        white_is_zero: whether small values are shown bright.
        options: of Pillow's `save`.
    """
    tags = options.pop("tiffinfo", None)
    tags = TiffImagePlugin.ImageFileDirectory_v2() if tags is None else tags
    letter = next(number for number, each in KINDS.items() if each == pixels.dtype.kind)
    tags[SAMPLE_FORMAT] = letter
    rows = numpy.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<")))
    content = io.BytesIO()
    Image.fromarray(rows.view(numpy.uint8)).save(content, "TIFF", tiffinfo=tags, **options)
    return _with_tags(
        content.getvalue(),
        {
            WIDTH: pixels.shape[1], BITS: 8 * pixels.dtype.itemsize, SAMPLE_FORMAT: letter,
            PHOTOMETRIC: 0 if white_is_zero else 1,
        },
    )  # fmt: skip


def _with_tags(content: bytes, values: Mapping[int, int]) -> bytes:
    changed = bytearray(content)
    page = next(_pages(changed))
    for tag, value in values.items():
        page.set(tag, value)
    return bytes(changed)
