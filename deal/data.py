"""Images from folders, lists and globs, as tensors in [0, 1], and random crops of them for training.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> Image.fromarray(numpy.full((64, 48), 300, numpy.uint16)).save(folder / "frame.png")
>>> images = Images(find_images(folder), window=(0, 1200))
>>> images[0].shape, images[0].max().item()
(torch.Size([1, 64, 48]), 0.25)
"""

from __future__ import annotations

import glob
import operator
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deal_kernels.lif.arguments import number, one_of

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
Location = str | os.PathLike[str]
Window = Literal["auto", "full"] | tuple[float, float]


class UnusableImage(ValueError):
    """A file that is no image, is damaged, or is not what is wanted; its name is in the message."""


class Frame(NamedTuple):
    """An image as its file has it, and which of its values are black and white."""

    pixels: numpy.ndarray  # [H, W] or [H, W, 3] of uint8, uint16 or float32
    low: float
    high: float

    def tensor(self, channels: int) -> Tensor:
        """float32 [channels, H, W], 0 where it is black or below, 1 where it is white or above.

        Of colours the one channel is the usual brightness; of grey images all channels are equal.
        """
        values = torch.from_numpy(self.pixels.astype(numpy.float32))
        values = values.permute(2, 0, 1) if values.dim() == 3 else values[None]
        values = ((values - self.low) / (self.high - self.low)).clamp_(0, 1)
        if channels == 1 and len(values) == 3:
            red, green, blue = values
            return (0.299 * red + 0.587 * green + 0.114 * blue)[None].clamp_(0, 1)
        return values.expand(channels, -1, -1).contiguous() if len(values) != channels else values.contiguous()


def find_images(sources: Location | Sequence[Location], *, recursive: bool = False) -> list[Path]:
    """The files of images that are meant, each once, those of a folder or pattern by name.

    Args:
        sources: one or several of: an image; a folder, for its images; a pattern such as "flights/*/ir_*.png"; a list
            with the ending .txt, which has one of these in every line, seen from its own folder.
        recursive: takes the images in the folders inside of a folder, too.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    found = [path for place in places for path in _meant(Path(place), recursive)]
    return list(dict.fromkeys(found))


def _meant(place: Path, recursive: bool) -> list[Path]:
    if place.is_dir():
        inside = place.rglob("*") if recursive else place.iterdir()
        # A name that starts with a dot is a file in the making, or another system's note on an image.
        found = sorted(path for path in inside if _looks_like_image(path))
        return _not_empty(found, f"{place} has no images ({', '.join(SUFFIXES)})")
    if place.suffix.lower() == ".txt" and place.is_file():
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
        meant = [path for line in lines if line for path in _meant(place.parent / line, recursive)]
        return _not_empty(meant, f"{place} lists no images")
    if place.is_file():
        return [place]
    if glob.has_magic(str(place)):
        found = sorted(path for path in map(Path, glob.glob(str(place), recursive=True)) if _looks_like_image(path))
        return _not_empty(found, f"no images match {place}")
    raise FileNotFoundError(f"{place} is not there")


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _not_empty(found: list[Path], message: str) -> list[Path]:
    if not found:
        raise FileNotFoundError(message)
    return found


def read_frame(path: Location, window: Window = "auto") -> Frame:
    """An image as it is: 8 bits, 16 bits or floating point, grey or colour. Transparency is dropped.

    Args:
        path: PNG, TIFF, JPEG or BMP; of several pages the first. 16-bit colours are read as 8 bits, with a warning.
        window: which values are black and white: a pair; "full", 0 and 255 or 65535; or "auto", the same for 8 bits,
            and else the values that a thousandth of the pixels lies below and above, as 14-bit cameras and kelvins
            fill no whole range.

    Raises:
        UnusableImage: where the file is not a whole image.
    """
    _check_window(window)
    try:
        # From a file, as Pillow would map one that it opens by name, and mix up a turned TIFF's rows.
        with open(path, "rb") as file, Image.open(file) as image:
            pixels = _pixels(image, path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnusableImage(f"{path} cannot be read as an image: {str(error) or type(error).__name__}") from error
    return Frame(pixels, *_range(pixels, window, path))


def _pixels(image: Image.Image, path: Location) -> numpy.ndarray:
    if image.mode not in ("1", "L", "LA", "P", "PA") and not image.mode.startswith(("I", "F")):
        if any("16" in str(tile[3]) for tile in image.tile):  # type: ignore[attr-defined]
            warnings.warn(f"{path} has colours of 16 bits: they are read as 8 bits", stacklevel=4)
        return numpy.array(image.convert("RGB"))
    if image.mode in ("P", "PA"):
        return numpy.array(image.convert("RGB"))
    if image.mode in ("1", "L", "LA"):
        return numpy.array(image.convert("L"))
    values = numpy.array(image)
    if image.mode == "F":
        return values
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise UnusableImage(f"{path} has values beyond 16 bits: {values.min()} to {values.max()}")
    return values.astype(numpy.uint16)


def _check_window(window: Window) -> None:
    if isinstance(window, str):
        one_of("window", window, ("auto", "full"))
        return
    if not isinstance(window, Sequence) or len(window) != 2:
        raise TypeError(f"window must be 'auto', 'full' or a pair of numbers; got {window!r}")
    low, high = (number("window", value) for value in window)
    if low >= high:
        raise ValueError(f"window must have its smaller value first; got {window}")


def _range(pixels: numpy.ndarray, window: Window, path: Location) -> tuple[float, float]:
    if not isinstance(window, str):
        return float(window[0]), float(window[1])
    if pixels.dtype == numpy.uint8:
        return 0.0, 255.0
    if window == "full" and pixels.dtype == numpy.uint16:
        return 0.0, 65535.0
    if window == "full":
        raise UnusableImage(f"{path} has floating-point values, which have no full range: name a window")
    if not numpy.isfinite(pixels).all():
        raise UnusableImage(f"{path} has pixels that are not finite")
    low, high = map(float, numpy.percentile(pixels, (0.1, 99.9)))
    return (low, high) if low < high else (low, low + 1)


Size = int | tuple[int, int] | None


def sides(name: str, size: Size) -> tuple[int, int] | None:
    """Height and width, which may be given as one number.

    >>> sides("crop", 128)
    (128, 128)
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f"{name} must be a whole number of at least 1, two of them, or None; got {size!r}")
    return pair


def middle(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of images [..., H, W] that are at least as large.

    >>> middle(torch.arange(5).expand(1, 3, 5), 1, 3)
    tensor([[[1, 2, 3]]])
    """
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


class Source(Protocol):
    """What crops are taken from: images [C, H, W] in [0, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Images:
    """Files as tensors [C, H, W] in [0, 1], which stay in memory, decoded, up to a budget.

    Args:
        paths: of the images, see `find_images`.
        channels: 1 or 3.
        window: see `read_frame`.
        budget: bytes for decoded images, as their files have them: a byte per grey pixel of 8 bits. What comes when it
            is spent is read anew every time.
        keep_going: takes the next image in place of one that is unusable, and warns of that once. Otherwise it is an
            error.
        least_size: that images have to have to be usable, one number or height and width.

    Attributes:
        unusable: the message for each such file so far.
    """

    def __init__(
        self, paths: Sequence[Location], *, channels: int = 1, window: Window = "auto", budget: int = 1 << 30,
        keep_going: bool = False, least_size: int | tuple[int, int] = 1,
    ) -> None:  # fmt: skip
        one_of("channels", channels, (1, 3))
        _check_window(window)
        if not paths:
            raise ValueError("paths must have at least one image; got none")
        self.paths = [Path(path) for path in paths]
        self.channels, self.window, self.budget = channels, window, budget
        self.keep_going, self.least_sides = keep_going, sides("least_size", least_size) or (1, 1)
        self.unusable: dict[Path, str] = {}
        self._kept: dict[Path, Frame] = {}
        self._spent = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.frame(index).tensor(self.channels)

    def frame(self, index: int) -> Frame:
        """The image as its file has it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} images; got the index {index}")
        for step in range(len(self)):
            path = self.paths[(index + step) % len(self)]
            if path in self.unusable:
                continue
            try:
                return self._frame(path)
            except (FileNotFoundError, UnusableImage) as error:
                if not self.keep_going:
                    raise
                self.unusable[path] = str(error)
                warnings.warn(f"left out: {error}", stacklevel=2)
        raise UnusableImage(f"none of the {len(self)} images is usable; the first: {self.unusable[self.paths[0]]}")

    def _frame(self, path: Path) -> Frame:
        frame = self._kept.get(path)
        if frame is None:
            frame = read_frame(path, self.window)
            height, width = frame.pixels.shape[:2]
            if height < self.least_sides[0] or width < self.least_sides[1]:
                raise UnusableImage(
                    f"{path} has {height} x {width} pixels; needed are {'{} x {}'.format(*self.least_sides)} or more"
                )
            if self._spent + frame.pixels.nbytes <= self.budget:
                self._spent += frame.pixels.nbytes
                self._kept[path] = frame
        return frame


def _with_panel(image: Tensor, random: numpy.random.Generator) -> Tensor:
    """The image [C, H, W] with an upright part of it in another place and of another brightness, its sides soft."""
    height, width = image.shape[1:]
    high, wide = height * random.uniform(0.3, 1.0), width * random.uniform(0.03, 0.4)
    top, left = random.uniform(0, height - high), random.uniform(-wide / 2, width - wide / 2)
    rows, columns = torch.arange(height), torch.arange(width)
    inside = ((rows >= top) & (rows < top + high))[:, None]  # [H, 1]
    share = ((wide / 2 - (columns - left - wide / 2).abs()) / random.uniform(1, 16) + 0.5).clamp(0, 1)  # [W]
    contrast, brightness = random.uniform(0.3, 1.0), random.random()
    moved = image.roll((int(random.integers(height)), int(random.integers(width))), (1, 2))
    panel = brightness + contrast * (moved - brightness)
    return torch.lerp(image, panel, inside * share)


class Crops:
    """An endless row of training images, cut at random places and mirrored.

    Which they are depends on the seed and on their place in the row alone: one who stopped before the k-th goes on with
    it, and several processes take turns. Every image of the source comes once before any comes again.

    Args:
        source: the images.
        size: of the cuts, one number or height and width; None takes whole images.
        flips: mirrors half of them left to right, and half of them upside down.
        halves: takes half of them from images at half their size, which are sharper; not where that is too small.
        panels: puts one to three upright panels into a quarter of them, as walls and posts are: parts of the image
            itself from elsewhere, of another brightness, as high as nearly a third of the cut or as all of it.
        tones: shows half of them in negative, as cameras show heat in white or in black, and each with a gamma of its
            own, between 1/2 and 2.
        grain: the largest deviation of normal noise that is added; each cut has its own, from 0 on.
        seed: of all the choices.

    >>> from deal.scenes import Scenes
    >>> Crops(Scenes(4), 32).batch(first=100, count=2).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self, source: Source, size: Size = 128, *, flips: bool = True, halves: bool = False, panels: bool = False,
        tones: bool = False, grain: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.sides = sides("size", size)
        if not len(source):
            raise ValueError("source must have at least one image; got none")
        self.source, self.seed = source, seed
        self.flips, self.halves, self.panels, self.tones, self.grain = flips, halves, panels, tones, grain
        self._order: tuple[int, numpy.ndarray] | None = None

    def __getitem__(self, place: int) -> Tensor:
        """The one at a place from 0 on, [C, H, W]."""
        if place < 0:
            raise IndexError(f"places start at 0; got {place}")
        image = self.source[self._index(place)]
        random = numpy.random.default_rng((self.seed, 1, place))
        if self.halves and random.random() < 0.5:
            half = functional.avg_pool2d(image, 2)
            if self.sides is None or all(map(operator.ge, half.shape[1:], self.sides)):
                image = half
        if self.sides is not None:
            (height, width), (high, wide) = image.shape[1:], self.sides
            if height < high or width < wide:
                raise ValueError(f"an image of {height} x {width} pixels is too small for crops of {high} x {wide}")
            top, left = random.integers(height - high + 1), random.integers(width - wide + 1)
            image = image[:, top : top + high, left : left + wide]
        axes = [axis for axis in (1, 2) if self.flips and random.random() < 0.5]
        image = image.flip(axes)
        if self.panels and random.random() < 0.25:
            for _ in range(random.integers(1, 4)):
                image = _with_panel(image, random)
        if self.tones:
            image = (1 - image if random.random() < 0.5 else image).clamp(0, 1) ** (2 ** random.uniform(-1, 1))
        if self.grain:
            deviation = self.grain * random.random()
            noise = random.standard_normal(image.shape, numpy.float32)
            image = (image + deviation * torch.from_numpy(noise)).clamp_(0, 1)
        return image

    def batch(self, first: int, count: int) -> Tensor:
        """Those at `count` places from `first` on, [count, C, H, W]."""
        return torch.stack([self[place] for place in range(first, first + count)])

    def _index(self, place: int) -> int:
        turn, within = divmod(place, len(self.source))
        if self._order is None or self._order[0] != turn:
            order = numpy.random.default_rng((self.seed, 0, turn)).permutation(len(self.source))
            self._order = turn, order
        return int(self._order[1][within])
