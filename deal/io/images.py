"""Images with the bit depth and the value range of their files.

>>> frame = Frame(numpy.array([[0, 300, 1500]], numpy.uint16), low=0, high=1200)
>>> frame.tensor(1)
tensor([[[0.0000, 0.2500, 1.0000]]])
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from deal.io import formats, values
from deal.io.flir import UNITS, Unit
from deal.io.metadata import Metadata
from deal.io.raw import RawFormat
from deal.io.reference import Reference
from deal.io.scene import scene_range
from deal.io.values import UnusableImage
from deal_kernels._common.checks import is_integer, number, one_of

SUFFIXES = formats.SUFFIXES
WIDEST = 1e30  # range of values that the automatic window accepts; what is larger stands for missing values
Location = str | os.PathLike[str]
Window = Literal["auto", "full"] | tuple[float, float]


Size = int | tuple[int, int] | None


class Frame(NamedTuple):
    """The pixels of an image, and which of their values mean black and white."""

    pixels: numpy.ndarray  # [H, W] or [H, W, 3], of `deal.io.values.TYPES`
    low: float  # black
    high: float  # white
    name: str = "the image"  # for error messages
    picture: bool | None = None  # whether the values are brightness, and not measured; None: if they have 8 bits

    @property
    def measured(self) -> bool:
        """Whether the values are counts or temperatures."""
        return self.pixels.dtype != numpy.uint8 if self.picture is None else not self.picture

    def values(self) -> Tensor:
        """The pixels as [C, H, W] in their own units, of float32, or of float64 where their type needs it."""
        found = torch.from_numpy(self.pixels.astype(values.working_type(self.pixels.dtype)))
        return found.permute(2, 0, 1) if found.dim() == 3 else found[None]

    def normalise(self, x: Tensor) -> Tensor:
        """Values in the units of the pixels, mapped to [0, 1] and clamped, as float32."""
        return ((x - self.low) / (self.high - self.low)).clamp_(0, 1).float()

    def to_pixels(self, x: Tensor) -> numpy.ndarray:
        """Values [C, H, W] in the units of the pixels, as an array of the dtype and layout of the pixels.

        Integers are rounded, and values limited to the range of their dtype.
        """
        return values.within((x.permute(1, 2, 0) if len(x) == 3 else x[0]).numpy(), self.pixels.dtype)

    def tensor(self, channels: int) -> Tensor:
        """float32 [channels, H, W] in [0, 1], black 0 and white 1.

        One channel of a colour image is its luma (BT.601); the three channels of a grey image are equal.
        """
        x = self.normalise(self.values())
        if channels == 1 and len(x) == 3:
            red, green, blue = x
            return (0.299 * red + 0.587 * green + 0.114 * blue)[None].clamp_(0, 1)
        return x.expand(channels, -1, -1).contiguous() if len(x) != channels else x.contiguous()


class ImageFile(NamedTuple):
    """All that is read from an image file."""

    frame: Frame  # of one page
    pages: int
    metadata: Metadata


def read_image(
    path: Location | formats.Content, window: Window = "auto", *, page: int | None = None, raw: RawFormat | None = None,
    flir: Unit | None = None, reference: Reference | None = None,
) -> ImageFile:  # fmt: skip
    """Reads the pixels and the metadata of an image file, which is opened once.

    Args:
        path: a PNG, TIFF, JPEG, BMP or .npy file, or one without a header. PNG and TIFF may have 16 bits, and TIFF and
            .npy any type of `deal.io.values.TYPES`. Transparency is dropped. Colours of 16 bits are reduced to 8 bits,
            with a warning. Or the content of such a file.
        window: which values mean black and white. A pair gives both. "full" is the range of the integers. "auto" is 0
            and 255 for uint8, and else the range of the scene, see `deal.io.scene`, because 14-bit cameras and
            temperatures do not fill the range of their type.
        page: of a file with several pages, such as a TIFF or an array [N, H, W]. None reads the first, and warns of
            others.
        raw: the size and type of files without a header.
        flir: "celsius" or "centikelvin" reads the temperatures of FLIR's JPEG files in place of their picture.
        reference: the fixed pattern of the camera, which is subtracted.

    Raises:
        UnusableImage: if the file is not a complete image.
    """
    one_of("flir", flir, (None, *UNITS))
    with _opened(path, window, raw, flir) as source:
        found = _with_metadata(source, path, window, page or 0, reference)
    if source.pages > 1 and page is None:
        warnings.warn(f"{path}: only the first of {source.pages} pages is read", stacklevel=2)
    _warn_of_temperatures(source, path)
    return found


def read_pages(
    path: Location | formats.Content, window: Window = "auto", *, raw: RawFormat | None = None,
    flir: Unit | None = None, reference: Reference | None = None,
) -> Iterator[ImageFile]:  # fmt: skip
    """The pages of an image file, one after the other. The file is opened once. See `read_image`.

    Use the metadata of a page before the next page is read.
    """
    one_of("flir", flir, (None, *UNITS))
    with _opened(path, window, raw, flir) as source:
        _warn_of_temperatures(source, path)
        for page in range(source.pages):
            yield _with_metadata(source, path, window, page, reference)


def read_frames(
    path: Location, window: Window = "auto", *, raw: RawFormat | None = None, flir: Unit | None = None,
    reference: Reference | None = None,
) -> Iterator[Frame]:  # fmt: skip
    """The pages of an image file without their metadata. See `read_pages`."""
    one_of("flir", flir, (None, *UNITS))
    with _opened(path, window, raw, flir) as source:
        _warn_of_temperatures(source, path)
        for page in range(source.pages):
            yield _page(source, path, window, page, reference)


def read_frame(path: Location, window: Window = "auto", *, reference: Reference | None = None) -> Frame:
    """Reads the first page of an image file, without its metadata. See `read_image`."""
    with _opened(path, window) as source:
        return _page(source, path, window, 0, reference)


def to_frame(
    image: numpy.ndarray | Image.Image, window: Window = "auto", *, reference: Reference | None = None,
    name: str = "the image",
) -> Frame:  # fmt: skip
    """A frame from an array [H, W] or [H, W, 3], of `deal.io.values.TYPES`, or a PIL image. See `read_image`.

    Messages about the frame have its name.
    """
    check_window(window)
    pixels = formats.pixels_of(image) if isinstance(image, Image.Image) else image
    if not isinstance(pixels, numpy.ndarray):
        raise TypeError(f"image must be a path, a numpy array, a PIL image or a tensor; got {type(image).__name__}")
    if not formats.is_single(pixels.shape) or not pixels.size:
        raise ValueError(
            "image must be [H, W] or [H, W, 3] with at least one pixel, or a stack of more than 4 columns; got the "
            f"shape {pixels.shape}"
        )
    return _frame(values.native(pixels), window, name, reference)


def _warn_of_temperatures(source: formats.Source, path: Location | formats.Content) -> None:
    if source.other_temperatures:
        warnings.warn(
            f"{path} has temperatures of a FLIR camera beside its picture, which is read: --flir celsius, or in Python "
            "flir='celsius', reads the temperatures", stacklevel=3,
        )  # fmt: skip


@contextlib.contextmanager
def _opened(
    path: Location | formats.Content, window: Window, raw: RawFormat | None = None, flir: Unit | None = None
) -> Iterator[formats.Source]:  # fmt: skip
    check_window(window)
    try:
        with formats.opened(path, raw, flir) as source:
            if source.deep_colours:
                warnings.warn(f"{path} has colours of 16 bits: they are reduced to 8 bits", stacklevel=4)
            yield source
    except (FileNotFoundError, MemoryError, ModuleNotFoundError, UnusableImage):
        raise
    except Exception as error:  # decoders raise anything for a damaged file
        raise UnusableImage(f"{path} cannot be read as an image: {str(error) or type(error).__name__}") from error


def _page(
    source: formats.Source, path: Location | formats.Content, window: Window, page: int, reference: Reference | None
) -> Frame:  # fmt: skip
    if not 0 <= page < source.pages:
        raise UnusableImage(f"{path} has {source.pages} pages; page {page} was asked for")
    return _frame(values.native(source.pixels(page)), window, str(path), reference)


def _with_metadata(
    source: formats.Source, path: Location | formats.Content, window: Window, page: int, reference: Reference | None
) -> ImageFile:  # fmt: skip
    metadata = source.metadata(page) if page < source.pages else Metadata()
    frame = _page(source, path, window, page, reference)
    if metadata.damage:
        warnings.warn(f"{path}: its metadata is damaged and left out: {metadata.damage}", stacklevel=3)
    return ImageFile(frame, source.pages, metadata)


def check_window(window: Window) -> None:
    """Raises TypeError or ValueError unless the window is valid, see `read_image`."""
    if isinstance(window, str):
        one_of("window", window, ("auto", "full"))
        return
    if not isinstance(window, Sequence) or len(window) != 2:
        raise TypeError(f"window must be 'auto', 'full' or a pair of numbers; got {window!r}")
    low, high = (number("window", value) for value in window)
    if low >= high:
        raise ValueError(f"window must have its smaller value first; got {window}")


def _frame(pixels: numpy.ndarray, window: Window, name: str, reference: Reference | None) -> Frame:
    """The frame of these pixels, with the values that the window makes black and white."""
    if reference is not None:
        pixels = reference.subtracted_from(pixels, name)
    if not isinstance(window, str):
        return Frame(pixels, float(window[0]), float(window[1]), name)
    if pixels.dtype == numpy.uint8:
        return Frame(pixels, 0.0, 255.0, name)
    if window == "full" and pixels.dtype.kind in "iu":
        limits = numpy.iinfo(pixels.dtype)
        return Frame(pixels, float(limits.min), float(limits.max), name)
    if window == "full":
        raise UnusableImage(f"{name} has floating-point values, which have no full range: give a window of two numbers")
    if not numpy.isfinite(pixels).all():
        raise UnusableImage(f"{name} has pixels that are not finite")
    low, high = scene_range(Frame(pixels, 0.0, 1.0).values())
    if high - low > WIDEST:
        raise UnusableImage(
            f"{name} has values from {low:g} to {high:g}, some for missing pixels: give a window of two numbers"
        )
    return Frame(pixels, low, high, name)


def to_uint8(x: Tensor) -> numpy.ndarray:
    """An image [..., C, H, W] in [0, 1] as uint8: [H, W] for one channel, [H, W, 3] for three."""
    image = x.reshape(x.shape[-3:] if x.dim() > 2 else (1, *x.shape))  # of a single image
    pixels = (255 * image.clamp(0, 1)).round().to(torch.uint8)
    return numpy.asarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The centre of images [..., H, W] that are at least as large.

    >>> centre_crop(torch.arange(5).expand(1, 3, 5), 1, 3)
    tensor([[[1, 2, 3]]])
    """
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


def height_and_width(name: str, size: Size) -> tuple[int, int] | None:
    """A size as height and width. One number means a square, None means no limit.

    >>> height_and_width("crop", 128)
    (128, 128)
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(not is_integer(side) or side < 1 for side in pair):
        raise ValueError(f"{name} must be an integer of at least 1, a pair of them, or None; got {size!r}")
    return pair
