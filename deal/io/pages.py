"""Files of several pages, which are written page by page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy

from deal.io.atomic import atomic_write
from deal.io.images import Location, UnusableImage
from deal.io.metadata import DESCRIPTION, Metadata
from deal.io.tiff_pages import MOST_OF_SMALL, TiffPages, description_of_pages
from deal.io.writers import FORMATS, image_bytes


class Page(NamedTuple):
    """A page to write."""

    pixels: numpy.ndarray  # [H, W] or [H, W, 3]
    metadata: Metadata  # of the same page of the source


def write_pages(path: Location, pages: Iterable[Page], count: int) -> None:
    """Writes a file of several pages atomically. Only one page is in memory at a time.

    Args:
        path: a TIFF, .npy or .raw file. In the latter two, all pages have one size and type.
        pages: the pages.
        count: their number.
    """
    kind = _kind(path, count)
    with atomic_write(path) as file:
        _append(kind, path, file, pages, count)


def file_bytes(path: Location, pages: Iterable[Page], count: int) -> bytes:
    """The content of a file of one page or several, see `write_pages`."""
    if count == 1:
        [page] = pages
        return image_bytes(path, page.pixels, page.metadata)
    content = io.BytesIO()
    _append(_kind(path, count), path, content, pages, count)
    return content.getvalue()


def _kind(path: Location, count: int) -> Kind:
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None or kind not in KINDS:
        raise UnusableImage(f"{path} cannot hold {count} pages; .tif can")
    return KINDS[kind]


def _append(kind: Kind, path: Location, file: BinaryIO, pages: Iterable[Page], count: int) -> None:
    written: _Tiff | _Plain | None = None
    for page in pages:
        written = written or kind(path, file, page, count)
        written.append(page)


class _Tiff:
    def __init__(self, path: Location, file: BinaryIO, first: Page, count: int) -> None:
        self.path, self._shape, self._count = path, first.pixels.shape, count
        self._file = TiffPages(file, big=count * (first.pixels.nbytes + 4096) > MOST_OF_SMALL)

    def append(self, page: Page) -> None:
        tags = page.metadata.tiff_tags
        told = "" if tags is None else str(tags.get(DESCRIPTION, ""))
        described = description_of_pages(told, self._count, self._shape)
        self._file.append(image_bytes(self.path, page.pixels, page.metadata._replace(pages=described)))


class _Plain:
    """Values, frame after frame, without a header."""

    def __init__(self, path: Location, file: BinaryIO, first: Page, count: int) -> None:
        self.path, self._file, self._first = path, file, first.pixels

    def append(self, page: Page) -> None:
        if page.pixels.shape != self._first.shape or page.pixels.dtype != self._first.dtype:
            raise UnusableImage(f"{self.path} cannot hold pages of different sizes or types; .tif can")
        self._file.write(image_bytes(f"{self.path}.raw", page.pixels, page.metadata))


class _Numpy(_Plain):
    def __init__(self, path: Location, file: BinaryIO, first: Page, count: int) -> None:
        super().__init__(path, file, first, count)
        form = numpy.lib.format
        little = first.pixels.dtype.newbyteorder("<")  # as .raw has it
        form.write_array_header_1_0(
            file, {"descr": form.dtype_to_descr(little), "fortran_order": False, "shape": (count, *first.pixels.shape)}
        )

    def append(self, page: Page) -> None:
        super().append(page._replace(metadata=Metadata()))


Kind = Callable[[Location, BinaryIO, Page, int], _Tiff | _Plain]
KINDS: dict[str, Kind] = {"TIFF": _Tiff, "NPY": _Numpy, "RAW": _Plain}
