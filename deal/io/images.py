"""Images with the bit depth and the value range of their files.

>>> frame = Frame(numpy.array([[0, 300, 1500]], numpy.uint16), low=0, high=1200)
>>> frame.tensor(1)
tensor([[[0.0000, 0.2500, 1.0000]]])
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deal.io.metadata import Metadata, read_metadata
from deal.io.scene import scene_range
from deal_kernels._common.checks import is_integer, number, one_of

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
DTYPES = ("uint8", "uint16", "float32")
Location = str | os.PathLike[str]
Window = Literal["auto", "full"] | tuple[float, float]


Size = int | tuple[int, int] | None


class UnusableImage(ValueError):
    """A file that is not an image, is damaged, or does not meet the requirements. The message names the file."""


class Frame(NamedTuple):
    """The pixels of an image, and which of their values mean black and white."""

    pixels: numpy.ndarray  # [H, W] or [H, W, 3] of uint8, uint16 or float32
    low: float  # black
    high: float  # white
    name: str = "the image"  # for error messages

    def values(self) -> Tensor:
        """The pixels as float32 [C, H, W], in their own units."""
        values = torch.from_numpy(self.pixels.astype(numpy.float32))
        return values.permute(2, 0, 1) if values.dim() == 3 else values[None]

    def normalise(self, values: Tensor) -> Tensor:
        """Values in the units of the pixels, mapped to [0, 1] and clamped."""
        return ((values - self.low) / (self.high - self.low)).clamp_(0, 1)

    def to_pixels(self, values: Tensor) -> numpy.ndarray:
        """Values [C, H, W] in the units of the pixels, as an array of the dtype and layout of the pixels.

        Integers are rounded and limited to the range of their dtype.
        """
        array = (values.permute(1, 2, 0) if len(values) == 3 else values[0]).numpy()
        if self.pixels.dtype != numpy.float32:
            array = array.round().clip(0, numpy.iinfo(self.pixels.dtype).max)
        return numpy.ascontiguousarray(array.astype(self.pixels.dtype))

    def tensor(self, channels: int) -> Tensor:
        """float32 [channels, H, W] in [0, 1], black 0 and white 1.

        One channel of a colour image is its luma (BT.601); the three channels of a grey image are equal.
        """
        values = self.normalise(self.values())
        if channels == 1 and len(values) == 3:
            red, green, blue = values
            return (0.299 * red + 0.587 * green + 0.114 * blue)[None].clamp_(0, 1)
        return values.expand(channels, -1, -1).contiguous() if len(values) != channels else values.contiguous()


class ImageFile(NamedTuple):
    """All that is read from an image file."""

    frame: Frame  # of the first page
    pages: int
    metadata: Metadata


def read_image(path: Location, window: Window = "auto") -> ImageFile:
    """Reads the pixels and the metadata of an image file, which is opened once. See `read_frame`."""
    with _opened(path, window) as image:
        pages = getattr(image, "n_frames", 1)
        metadata = read_metadata(image)
        frame = _frame(_pixels(image, str(path)), window, str(path))
    if pages > 1:
        warnings.warn(f"{path}: only the first of {pages} pages is read", stacklevel=2)
    return ImageFile(frame, pages, metadata)


def read_frame(path: Location, window: Window = "auto") -> Frame:
    """Reads an image with 8 bits, 16 bits or floating point, grey or colour. Transparency is dropped.

    Args:
        path: a PNG, TIFF, JPEG or BMP file. Only the first page is read. Colours of 16 bits are reduced to 8 bits, with
            a warning.
        window: which values mean black and white. A pair gives both. "full" is 0 and 255, or 0 and 65535. "auto" is the
            same as "full" for 8 bits, and else the range of the scene, see `deal.io.scene`, because 14-bit cameras and
            temperatures do not fill the range of their type.

    Raises:
        UnusableImage: if the file is not a complete image.
    """
    with _opened(path, window) as image:
        return _frame(_pixels(image, str(path)), window, str(path))


def to_frame(image: Location | numpy.ndarray | Image.Image, window: Window = "auto") -> Frame:
    """A frame from a file, an array or a PIL image.

    Args:
        image: a path, an array [H, W] or [H, W, 3] of uint8, uint16 or float32, or a PIL image.
        window: see `read_frame`.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_frame(image, window)
    check_window(window)
    if isinstance(image, Image.Image):
        return _frame(_pixels(image, "the image"), window, "the image")
    if not isinstance(image, numpy.ndarray):
        raise TypeError(f"image must be a path, a numpy array or a PIL image; got {type(image).__name__}")
    if str(image.dtype) not in DTYPES:
        raise TypeError(f"image must be one of {', '.join(DTYPES)}; got {image.dtype}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise ValueError(f"image must be [H, W] or [H, W, 3] with at least one pixel; got the shape {image.shape}")
    return _frame(image, window, "the image")


@contextlib.contextmanager
def _opened(path: Location, window: Window) -> Iterator[Image.Image]:
    check_window(window)
    try:
        # Metadata is decoded when it is written to another file, so the content stays in memory. Reading the file here
        # also keeps Pillow from mapping it, which mixes up the rows of rotated TIFFs.
        with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
            _warn_of_deep_colours(image, path)
            yield image
    except (FileNotFoundError, UnusableImage):
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise UnusableImage(f"{path} cannot be read as an image: {reason}") from error


def _is_colour(image: Image.Image) -> bool:
    return image.mode not in ("1", "L", "LA") and not image.mode.startswith(("I", "F"))


def _warn_of_deep_colours(image: Image.Image, path: Location) -> None:
    """Pillow reduces colours of 16 bits to 8 bits without a message."""
    if _is_colour(image) and any("16" in str(tile[3]) for tile in image.tile):  # type: ignore[attr-defined]
        warnings.warn(f"{path} has colours of 16 bits: they are reduced to 8 bits", stacklevel=5)


def _pixels(image: Image.Image, name: str) -> numpy.ndarray:
    if _is_colour(image):
        return numpy.array(image.convert("RGB"))
    if image.mode in ("1", "L", "LA"):
        return numpy.array(image.convert("L"))
    values = numpy.array(image)
    if image.mode == "F":
        return values
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise UnusableImage(f"{name} has values outside of 16 bits: {values.min()} to {values.max()}")
    return values.astype(numpy.uint16)


def check_window(window: Window) -> None:
    """Raises TypeError or ValueError unless the window is valid, see `read_frame`."""
    if isinstance(window, str):
        one_of("window", window, ("auto", "full"))
        return
    if not isinstance(window, Sequence) or len(window) != 2:
        raise TypeError(f"window must be 'auto', 'full' or a pair of numbers; got {window!r}")
    low, high = (number("window", value) for value in window)
    if low >= high:
        raise ValueError(f"window must have its smaller value first; got {window}")


def _frame(pixels: numpy.ndarray, window: Window, name: str) -> Frame:
    """The frame of these pixels, with the values that the window makes black and white."""
    if not isinstance(window, str):
        return Frame(pixels, float(window[0]), float(window[1]), name)
    if pixels.dtype == numpy.uint8:
        return Frame(pixels, 0.0, 255.0, name)
    if window == "full" and pixels.dtype == numpy.uint16:
        return Frame(pixels, 0.0, 65535.0, name)
    if window == "full":
        raise UnusableImage(f"{name} has floating-point values, which have no full range: give a window of two numbers")
    if not numpy.isfinite(pixels).all():
        raise UnusableImage(f"{name} has pixels that are not finite")
    low, high = scene_range(Frame(pixels, 0.0, 1.0).values())
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
