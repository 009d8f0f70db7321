"""Random crops of clean images, augmented, for training."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from deal.io.dataset import Source
from deal.io.images import Size, height_and_width

KEPT = 4096  # images that `Reduced` keeps
LARGEST = 1.5  # factor by which an image is resized
EXTREMES = 0.1, 99.9  # percentiles of an image that are its darkest and brightest parts
MOST_STRETCH = 3.0
MOST_GREY = 0.3  # how far from white the brightest part may stay, or from black the darkest one
MOST_SMOOTHING = 0.6  # the weight of neighbours in correlated noise
SAMPLED = 3  # every third row and column tell the percentiles


class Crops:
    """An endless sequence of random crops of clean images.

    A crop depends only on the seed and on its position in the sequence: a resumed run continues with the same crops,
    and several processes can share the sequence. Every image of the source is used once before any is used again.

    Args:
        source: the images.
        size: of the crops, one number or height and width; None uses whole images.
        flip: mirrors half of the crops left to right, and half of them upside down.
        zoom: resizes each image by a random factor first, at least to the size of a crop, so that a crop shows at least
            1 / zoom of the image's height or width. Reduced images are sharper, and show more of the scene; images
            enlarged by up to 1.5 are softer. None does not.
        panels: pastes one to three panels into a quarter of the crops, upright ones like walls and posts or level ones
            like skies and roads: parts of the same image with other brightness and contrast, which reach over 0.3 of
            the crop to all of it.
        tones: inverts half of the crops, as cameras show hot as white or as black. Half of the crops, chosen apart, get
            a random gamma between 1/2 and 2, and are stretched: the darkest part becomes black and the brightest part
            white in half of them, and only one of them in the others.
        noise: the largest standard deviation of added Gaussian noise; each crop has its own, uniform from 0. Values
            of neighbouring pixels are correlated by a random amount, as in images that a camera has smoothed or
            resized. This noise belongs to the clean image; the noise of degradations is not correlated.
        seed: of all random choices.

    >>> from deal.io.synthetic import SyntheticScenes
    >>> Crops(SyntheticScenes(4), 32).batch(first=100, count=2).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self, source: Source, size: Size = 128, *, flip: bool = True, zoom: float | None = None,
        panels: bool = False, tones: bool = False, noise: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.size = height_and_width("size", size)
        if not len(source):
            raise ValueError("source must have at least one image; got none")
        self.source, self.seed = source, seed
        self.flip, self.zoom, self.panels, self.tones = flip, zoom, panels, tones
        self.noise = noise
        self._order: tuple[int, numpy.ndarray] | None = None

    def batch(self, first: int, count: int) -> Tensor:
        """`count` crops from position `first` on, [count, C, H, W]."""
        return torch.stack([self[position] for position in range(first, first + count)])

    def __getitem__(self, position: int) -> Tensor:
        """The crop [C, H, W] at a position of the sequence, from 0 on."""
        if position < 0:
            raise IndexError(f"position must be at least 0; got {position}")
        image = self.source[self._index(position)]
        random = numpy.random.default_rng((self.seed, 1, position))
        if self.zoom is not None and self.size is not None:
            image = _resized(image, self.size, self.zoom, random)
        if self.size is not None:
            image = _random_crop(image, self.size, random)
        image = image.flip([axis for axis in (1, 2) if self.flip and random.random() < 0.5])
        if self.panels and random.random() < 0.25:
            for _ in range(random.integers(1, 4)):
                level = random.random() < 0.5
                image = _with_panel(image.mT, random).mT if level else _with_panel(image, random)
        if self.tones:
            image = 1 - image if random.random() < 0.5 else image
            if random.random() < 0.5:
                image = _stretched(image.clamp(0, 1) ** (2 ** random.uniform(-1, 1)), random)
        if self.noise:
            deviation = self.noise * random.random()
            image = (image + deviation * _correlated_noise(image, random)).clamp_(0, 1)
        return image

    def _index(self, position: int) -> int:
        """The image at a position: every epoch has a random order of its own."""
        epoch, within = divmod(position, len(self.source))
        if self._order is None or self._order[0] != epoch:
            order = numpy.random.default_rng((self.seed, 0, epoch)).permutation(len(self.source))
            self._order = epoch, order
        return int(self._order[1][within])


class Reduced:
    """The images of a source, reduced until they just cover a size. The last ones are kept in memory."""

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        self.source, self.size = source, size
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[index] = _scaled(image := self.source[index], _covering(image, self.size))
        return self._kept[index]


def _covering(image: Tensor, size: tuple[int, int]) -> float:
    """The least factor by which the image [C, H, W] covers the size, at most 1."""
    return min(1.0, max(wanted / side for wanted, side in zip(size, image.shape[1:], strict=True)))


def _scaled(image: Tensor, factor: float, least: tuple[int, int] = (1, 1)) -> Tensor:
    height, width = (max(low, round(factor * side)) for low, side in zip(least, image.shape[1:], strict=True))
    return functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def _resized(image: Tensor, size: tuple[int, int], zoom: float, random: numpy.random.Generator) -> Tensor:
    """The image [C, H, W], resized by a random factor to at least this size."""
    least = _covering(image, size)
    most = max(least, min(LARGEST, zoom * least))
    return _scaled(image, least * (most / least) ** random.random(), size)


def _stretched(image: Tensor, random: numpy.random.Generator) -> Tensor:
    """The image with its darkest part at 0 and its brightest part at 1; in half of the images one of them is grey."""
    low, high = numpy.percentile(image[:, ::SAMPLED, ::SAMPLED].numpy(), EXTREMES)
    grey = MOST_GREY * max(0.0, random.uniform(-1, 1))
    black, white = (grey, 1.0) if random.random() < 0.5 else (0.0, 1.0 - grey)
    gain = min(MOST_STRETCH, (white - black) / max(high - low, 1e-6))
    centre = (black + white) / 2
    return (centre + gain * (image - (low + high) / 2)).clamp(0, 1)


def _random_crop(image: Tensor, size: tuple[int, int], random: numpy.random.Generator) -> Tensor:
    (height, width), (rows, columns) = image.shape[1:], size
    if height < rows or width < columns:
        raise ValueError(f"an image of {height} x {width} pixels is too small for crops of {rows} x {columns}")
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    return image[:, top : top + rows, left : left + columns]


def _correlated_noise(like: Tensor, random: numpy.random.Generator) -> Tensor:
    """Normal noise of deviation 1, smoothed down and across by the weights (a, 1, a) with a random a for each."""
    noise = torch.from_numpy(random.standard_normal(like.shape, numpy.float32))
    for axis in (1, 2):
        a = random.uniform(0, MOST_SMOOTHING)
        noise = noise + a * (noise.roll(1, axis) + noise.roll(-1, axis))
        noise /= (1 + 2 * a**2) ** 0.5
    return noise


def _with_panel(image: Tensor, random: numpy.random.Generator) -> Tensor:
    """The image [C, H, W] with an upright panel pasted in: a shifted copy of itself with other brightness and contrast,
    blended at its left and right edges."""
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
