"""Infrared images and their visible partners, from folders ir and vis in which both have the same names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image
from torch import Tensor

from deal.data import UnusableImage, find_images, read_frame
from deal.picture import grey


class Pair(NamedTuple):
    name: str
    seen: Tensor  # the infrared image, [1, 1, H, W] in [0, 1]
    infrared: numpy.ndarray  # the same, uint8 [H, W]
    visible: numpy.ndarray  # its brightness, uint8 [H, W]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The infrared and the visible file of every pair, by name."""
    infrared, visible = ({path.name: path for path in find_images(folder / name)} for name in ("ir", "vis"))
    for name in sorted(infrared.keys() ^ visible.keys()):
        has, lacks = ("ir", "vis") if name in infrared else ("vis", "ir")
        raise FileNotFoundError(f"{folder / has / name} has no partner: {folder / lacks / name} is not there")
    return [(path, visible[name]) for name, path in infrared.items()]


def read_pair(infrared: Path, visible: Path) -> Pair:
    """Both images of a pair, which have to be of one size."""
    seen = read_frame(infrared).tensor(1)[None]
    frame = read_frame(visible)
    if frame.pixels.dtype == numpy.uint8:
        luma = numpy.array(Image.fromarray(frame.pixels).convert("L"))
    else:
        luma = grey(frame.tensor(1))
    if luma.shape != seen.shape[2:]:
        sizes = " and ".join(f"{height} x {width}" for height, width in (seen.shape[2:], luma.shape))
        raise UnusableImage(f"{infrared} and {visible} must be of one size; got {sizes} pixels")
    return Pair(infrared.name, seen, grey(seen), luma)
