"""Pairs of infrared and visible images: files of the same name, with any ending, in the folders ir and vis."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image
from torch import Tensor

from deal.io.images import UnusableImage, read_frame, to_uint8
from deal.io.paths import by_name, find_images


class Pair(NamedTuple):
    """An infrared and a visible image of the same scene and size."""

    name: str
    x: Tensor  # the infrared image, [1, 1, H, W] in [0, 1]
    infrared: numpy.ndarray  # the infrared image, uint8 [H, W]
    visible: numpy.ndarray  # the luma of the visible image, uint8 [H, W]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The infrared and the visible file of every pair, sorted by name."""
    infrared, visible = (by_name(find_images(folder / name)) for name in ("ir", "vis"))
    for name in sorted(infrared.keys() ^ visible.keys()):
        path, lacks = (infrared[name], "vis") if name in infrared else (visible[name], "ir")
        raise FileNotFoundError(f"{path} has no partner: {folder / lacks} has no image with the name {name}")
    return [(path, visible[name]) for name, path in infrared.items()]


def read_pair(infrared: Path, visible: Path) -> Pair:
    """Reads a pair, whose images must have the same size."""
    x = read_frame(infrared).tensor(1)[None]
    frame = read_frame(visible)
    if frame.pixels.dtype == numpy.uint8:
        luma = numpy.array(Image.fromarray(frame.pixels).convert("L"))
    else:
        luma = to_uint8(frame.tensor(1))
    if luma.shape != x.shape[2:]:
        sizes = " and ".join(f"{height} x {width}" for height, width in (x.shape[2:], luma.shape))
        raise UnusableImage(f"{infrared} and {visible} must have the same size; got {sizes} pixels")
    return Pair(infrared.name, x, to_uint8(x), luma)
