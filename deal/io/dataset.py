"""Image files as tensors for training.

>>> import tempfile
>>> import numpy
>>> from PIL import Image
>>> folder = Path(tempfile.mkdtemp())
>>> Image.fromarray(numpy.full((64, 48), 300, numpy.uint16)).save(folder / "frame.png")
>>> images = ImageDataset([folder / "frame.png"], window=(0, 1200))
>>> images[0].shape, images[0].max().item()
(torch.Size([1, 64, 48]), 0.25)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from deal.io.images import Frame, Location, UnusableImage, Window, check_window, height_and_width, read_frame
from deal_kernels._common.checks import one_of


class Source(Protocol):
    """A collection of images [C, H, W] in [0, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class ImageDataset:
    """Image files as tensors [C, H, W] in [0, 1]. Decoded images are cached in memory up to a budget.

    Args:
        paths: image files, see `find_images`.
        channels: 1 or 3.
        window: see `read_frame`.
        budget: bytes for cached images, in the dtype of their files. Further images are read again each time.
        keep_going: replaces an unusable image by the next one and warns once, instead of raising.
        min_size: the least size of a usable image, one number or height and width.

    Attributes:
        unusable: the error message of each unusable file found so far.
    """

    def __init__(
        self, paths: Sequence[Location], *, channels: int = 1, window: Window = "auto", budget: int = 1 << 30,
        keep_going: bool = False, min_size: int | tuple[int, int] = 1,
    ) -> None:  # fmt: skip
        one_of("channels", channels, (1, 3))
        check_window(window)
        if not paths:
            raise ValueError("paths must have at least one image; got none")
        self.paths = [Path(path) for path in paths]
        self.channels, self.window, self.budget = channels, window, budget
        self.keep_going, self.min_sides = keep_going, height_and_width("min_size", min_size) or (1, 1)
        self.unusable: dict[Path, str] = {}
        self._cache: dict[Path, Frame] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.frame(index).tensor(self.channels)

    def frame(self, index: int) -> Frame:
        """The image in the dtype of its file."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}, the number of images; got {index}")
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
                warnings.warn(f"skipped: {error}", stacklevel=2)
        raise UnusableImage(f"none of the {len(self)} images is usable; the first: {self.unusable[self.paths[0]]}")

    def _frame(self, path: Path) -> Frame:
        frame = self._cache.get(path)
        if frame is None:
            frame = read_frame(path, self.window)
            height, width = frame.pixels.shape[:2]
            if height < self.min_sides[0] or width < self.min_sides[1]:
                raise UnusableImage(
                    f"{path} has {height} x {width} pixels; at least {'{} x {}'.format(*self.min_sides)} are required"
                )
            if self._cached_bytes + frame.pixels.nbytes <= self.budget:
                self._cached_bytes += frame.pixels.nbytes
                self._cache[path] = frame
        return frame
