"""Folders of degraded images beside clean ones of the same names, such as other benchmarks publish.

>>> import tempfile
>>> from PIL import Image
>>> folder = Path(tempfile.mkdtemp())
>>> for name, level in (("clean", 51), ("dark", 0)):
...     (folder / name).mkdir()
...     Image.new("L", (4, 3), level).save(folder / name / "scene.png")
>>> [clean] = find_images(folder / "clean")
>>> [degraded] = find_partners([clean], folder / "dark")
>>> read_partners(clean, degraded)[0].shape
torch.Size([1, 1, 3, 4])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from deal.io.images import Location, UnusableImage, read_frame
from deal.io.paths import by_name, find_images


def find_partners(clean: Sequence[Path], folder: Location) -> list[Path]:
    """The image of the folder that has the name of each clean image. Endings of names may differ.

    Raises:
        FileNotFoundError: if an image has no partner.
        ValueError: if two clean images, or two of the folder, have one name.
    """
    named, partners = by_name(clean), by_name(find_images(folder))
    for name, path in (named | partners).items():
        if name not in partners:
            raise FileNotFoundError(f"{path} has no partner: {folder} has no image with the name {name}")
        if name not in named:
            raise FileNotFoundError(f"{path} has no partner: no clean image has the name {name}")
    return [partners[name] for name in named]


def read_partners(clean: Path, degraded: Path) -> tuple[Tensor, Tensor]:
    """The clean and the degraded image, [1, 1, H, W], both by the values that are black and white in the clean one.

    The clean image is in [0, 1]. Values of a degraded image with 16 bits or floating point may leave that range.

    Raises:
        UnusableImage: if the images differ in size or bit depth.
    """
    original, frame = read_frame(clean), read_frame(degraded)
    if original.pixels.shape[:2] != frame.pixels.shape[:2]:
        one, other = (f"{height} x {width}" for height, width in (each.pixels.shape[:2] for each in (frame, original)))
        raise UnusableImage(f"{degraded} and {clean} must have the same size; got {one} and {other} pixels")
    if original.pixels.dtype != frame.pixels.dtype:
        one, other = (str(each.pixels.dtype) for each in (frame, original))
        raise UnusableImage(f"{degraded} and {clean} must have the same bit depth; got {one} and {other}")
    if frame.pixels.ndim == 3:
        return original.tensor(1)[None], frame.tensor(1)[None]
    return original.tensor(1)[None], (frame.values()[None] - original.low) / (original.high - original.low)
