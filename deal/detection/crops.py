"""Random crops of labelled images, for the training of a detector.

>>> import numpy
>>> box, label, nothing = torch.tensor([[30.0, 20.0, 50.0, 40.0]]), torch.tensor([0]), torch.zeros(0, 4)
>>> sample = Sample(torch.rand(1, 60, 80), box, label, nothing)
>>> random_crop(sample, (32, 48), numpy.random.default_rng(0)).x.shape
torch.Size([1, 32, 48])
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

ZOOM = 0.7, 1.4  # limits of the factor by which an image is resized
AROUND_OBJECT = 0.8  # share of the crops that have a certain object in them
PLACE = 0.1, 0.9  # where its centre is in the crop, as a share of the width and height
VISIBLE = 0.4  # share of the area of a box; if less of it is in the crop, that part is ignored
GAIN, OFFSET = 0.2, 0.1  # largest changes of contrast and brightness


class Sample(NamedTuple):
    """An image [1, H, W] and its objects, see `deal.detection.annotations.Labelled`."""

    x: Tensor
    boxes: Tensor
    labels: Tensor
    ignored: Tensor


def random_crop(sample: Sample, size: tuple[int, int], random: Generator) -> Sample:
    """A crop of the resized image, mirrored at random, with another contrast and brightness."""
    resized = _resized(sample, random.uniform(*ZOOM), size)
    cropped = _cropped(resized, *_corner(resized, size, random), size)
    for axis in (0, 1):
        if random.random() < 0.5:
            cropped = _mirrored(cropped, axis)
    gain, offset = 1 + random.uniform(-GAIN, GAIN), random.uniform(-OFFSET, OFFSET)
    return cropped._replace(x=(0.5 + gain * (cropped.x - 0.5) + offset).clamp(0, 1))


def _resized(sample: Sample, factor: float, least: tuple[int, int]) -> Sample:
    """The image resized, and extended by black to at least the size of a crop."""
    height, width = sample.x.shape[1:]
    size = round(factor * height), round(factor * width)
    x = functional.interpolate(sample.x[None], size, mode="bilinear", antialias=True)[0]
    x = functional.pad(x, (0, max(0, least[1] - size[1]), 0, max(0, least[0] - size[0])))
    scale = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    return sample._replace(x=x, boxes=sample.boxes * scale, ignored=sample.ignored * scale)


def _corner(sample: Sample, size: tuple[int, int], random: Generator) -> tuple[int, int]:
    """The top and left of a crop, which often has a random object in it."""
    most = [sample.x.shape[1 + axis] - size[axis] for axis in (0, 1)]
    if not len(sample.boxes) or random.random() >= AROUND_OBJECT:
        top, left = (int(random.integers(limit + 1)) for limit in most)
        return top, left
    box = sample.boxes[random.integers(len(sample.boxes))].tolist()
    centre = (box[1] + box[3]) / 2, (box[0] + box[2]) / 2
    places = (centre[axis] - random.uniform(*PLACE) * size[axis] for axis in (0, 1))
    top, left = (int(min(max(place, 0), limit)) for place, limit in zip(places, most, strict=True))
    return top, left


def _cropped(sample: Sample, top: int, left: int, size: tuple[int, int]) -> Sample:
    corner, limits = torch.tensor([left, top]).repeat(2), torch.tensor([size[1], size[0]]).repeat(2)
    boxes, ignored = ((each - corner).clamp_min(0).minimum(limits) for each in (sample.boxes, sample.ignored))
    shown = _area(boxes) / _area(sample.boxes).clamp_min(1e-6)
    kept, rest = shown >= VISIBLE, (shown > 0) & (shown < VISIBLE)
    ignored = torch.cat([ignored[_area(ignored) > 0], boxes[rest]])
    x = sample.x[:, top : top + size[0], left : left + size[1]]
    return Sample(x, boxes[kept], sample.labels[kept], ignored)


def _mirrored(sample: Sample, axis: int) -> Sample:
    """Mirrored along the axis, 0 across and 1 down."""
    length = sample.x.shape[2 - axis]

    def mirror(boxes: Tensor) -> Tensor:
        mirrored = boxes.clone()
        mirrored[:, axis], mirrored[:, axis + 2] = length - boxes[:, axis + 2], length - boxes[:, axis]
        return mirrored

    return Sample(sample.x.flip(2 - axis), mirror(sample.boxes), sample.labels, mirror(sample.ignored))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
