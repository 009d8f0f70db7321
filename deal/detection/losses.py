"""The loss of the detector: heat with a Gaussian around every centre, and boxes where that is warm.

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
BOX_WEIGHT = 1.0
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
    """The focal loss of the heat, over the number of objects, and the error of the boxes in the cells around them."""
    stacked = (torch.stack(each) for each in zip(*wanted, strict=True))
    heat, counted, shift, size, weight = (each.to(maps.heat.device) for each in stacked)
    centre = heat.eq(1)
    missed = functional.logsigmoid(maps.heat) * (1 - maps.heat.sigmoid()) ** EASY
    false = functional.logsigmoid(-maps.heat) * maps.heat.sigmoid() ** EASY * (1 - heat) ** NEAR
    of_heat = -(counted * torch.where(centre, missed, false)).sum() / centre.sum().clamp_min(1)
    found, right = torch.cat([maps.shift, maps.size], 1), torch.cat([shift, size], 1)
    errors = functional.smooth_l1_loss(found, right, reduction="none")
    of_boxes = (weight * errors).sum() / weight.sum().clamp_min(1)
    return of_heat + BOX_WEIGHT * of_boxes
