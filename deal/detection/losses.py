"""The loss of the detector: heat with a Gaussian around every centre, and the overlap of boxes where that is warm.

>>> boxes, labels = torch.tensor([[8.0, 8.0, 22.0, 14.0]]), torch.tensor([0])
>>> target = targets(boxes, labels, boxes[:0], 1, (8, 8))
>>> target.heat[0].argmax().item()  # the cell in row 2 and column 3
19
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deal.detection.detector import STRIDE, Maps

SPREAD = 0.09  # deviation of the Gaussian, as a share of the width and of the height of a box
LEAST_SPREAD = 0.6  # cells
WARM = 0.5  # boxes are learned where the heat is higher
BOX_WEIGHT = 2.0
LARGEST = 6.0  # logarithm of the size of a box in cells; beyond it the exponential would overflow in training
EASY, NEAR = 2.0, 4.0  # exponents of the focal loss, and of its weight near centres


class Target(NamedTuple):
    """What the maps of one image should be."""

    heat: Tensor  # [N, H, W] of cells
    counted: Tensor  # [1, H, W], 0 in areas to ignore
    shift: Tensor  # [2, H, W]
    size: Tensor  # [2, H, W]
    weight: Tensor  # of the box in each cell, [1, H, W]


def targets(boxes: Tensor, labels: Tensor, ignored: Tensor, classes: int, cells: tuple[int, int]) -> Target:
    """The target of an image.

    Args:
        boxes, labels, ignored: as of `deal.detection.annotations.Labelled`.
        classes: their number.
        cells: rows and columns of the maps.
    """
    rows, columns = (torch.arange(count) + 0.5 for count in cells)
    heat, weight = torch.zeros(classes, *cells), torch.zeros(1, *cells)
    shift, size = torch.zeros(2, *cells), torch.zeros(2, *cells)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / (2 * STRIDE), (boxes[:, 2:] - boxes[:, :2]) / STRIDE
    largest_first = sides.prod(1).argsort(descending=True)  # where boxes overlap, the smaller one is learned
    for label, centre, side in zip(labels[largest_first], centres[largest_first], sides[largest_first], strict=True):
        spread = (SPREAD * side).clamp_min(LEAST_SPREAD)
        # The cell of the centre has the heat 1: it is the most certain one.
        across, down = (columns - centre[0].floor() - 0.5) / spread[0], (rows - centre[1].floor() - 0.5) / spread[1]
        gaussian = torch.exp(-0.5 * (down.square()[:, None] + across.square()))
        heat[label] = torch.maximum(heat[label], gaussian)
        warm = gaussian >= WARM
        weight[0][warm] = gaussian[warm]
        shift[0][warm] = (centre[0] - columns).expand(cells)[warm]
        shift[1][warm] = (centre[1] - rows)[:, None].expand(cells)[warm]
        size[:, warm] = side.clamp_min(1 / STRIDE).log()[:, None]
    counted = torch.ones(1, *cells)
    for left, top, right, bottom in (ignored / STRIDE).tolist():
        counted[:, int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 0
    return Target(heat, torch.maximum(counted, heat.amax(0, keepdim=True).eq(1).float()), shift, size, weight)


def detection_loss(maps: Maps, wanted: Sequence[Target]) -> Tensor:
    """The focal loss of the heat, over the number of objects, and how little the boxes of the cells around them
    overlap the right ones."""
    stacked = (torch.stack(each) for each in zip(*wanted, strict=True))
    heat, counted, shift, size, weight = (each.to(maps.heat.device) for each in stacked)
    centre = heat.eq(1)
    missed = functional.logsigmoid(maps.heat) * (1 - maps.heat.sigmoid()) ** EASY
    false = functional.logsigmoid(-maps.heat) * maps.heat.sigmoid() ** EASY * (1 - heat) ** NEAR
    of_heat = -(counted * torch.where(centre, missed, false)).sum() / centre.sum().clamp_min(1)
    apart = 1 - generalised_overlap(maps.shift, maps.size, shift, size)
    of_boxes = (weight * apart).sum() / weight.sum().clamp_min(1)
    return of_heat + BOX_WEIGHT * of_boxes


def generalised_overlap(shift: Tensor, size: Tensor, right_shift: Tensor, right_size: Tensor) -> Tensor:
    """The generalised intersection over union of boxes, from -1 to 1, [B, 1, H, W]; arguments as of `Maps`.

    Unlike the plain one it has a gradient for boxes that do not touch: it falls with the empty part of the smallest box
    around both.
    """
    first, last, sides = _corners(shift, size)
    right_first, right_last, right_sides = _corners(right_shift, right_size)
    common = (torch.minimum(last, right_last) - torch.maximum(first, right_first)).clamp_min(0).prod(1, keepdim=True)
    around = (torch.maximum(last, right_last) - torch.minimum(first, right_first)).prod(1, keepdim=True)
    union = sides.prod(1, keepdim=True) + right_sides.prod(1, keepdim=True) - common
    return common / union - (around - union) / around


def _corners(shift: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first and last corner of boxes, relative to their cells, and their sides."""
    sides = size.clamp_max(LARGEST).exp()
    return shift - sides / 2, shift + sides / 2, sides
