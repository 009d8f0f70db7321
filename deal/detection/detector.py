"""A small detector without anchors: a heat map of centres for each class, and the size of the box around each.

>>> detector = Detector(["Car", "Person"], width=8).eval()
>>> with torch.inference_mode():
...     found = detector.detect(torch.rand(1, 1, 60, 90))
>>> found[0].boxes.shape, found[0].scores.shape  # [N, 4] and [N]
(torch.Size([100, 4]), torch.Size([100]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.model.saved import SavedNetwork
from deal_kernels._common.checks import check_integer

STRIDE = 4  # pixels of a cell of the maps
COARSEST = 16  # pixels of the smallest features
MEAN, DEVIATION = 0.5, 0.25  # of images, about
RARE = -4.6  # initial logit of heat: one cell in a hundred
MOST = 100  # detections of an image


class Maps(NamedTuple):
    """What the network says about every cell."""

    heat: Tensor  # logits of the centres of objects, [B, N, H / 4, W / 4]
    shift: Tensor  # of the centre of the box from that of the cell, in cells across and down, [B, 2, H / 4, W / 4]
    size: Tensor  # logarithms of the width and height of the box in cells, [B, 2, H / 4, W / 4]


class Detections(NamedTuple):
    """The objects of an image, the most certain first."""

    boxes: Tensor  # left, top, right and bottom in pixels, [N, 4]
    scores: Tensor  # [N]
    labels: Tensor  # positions in the classes, [N]


class Detector(SavedNetwork):
    """Detects objects in images [B, 1, H, W] in [0, 1].

    Args:
        classes: the names of the classes.
        width: number of channels at half of the resolution.
    """

    METADATA = "deal.detector"

    def __init__(self, classes: Sequence[str], width: int = 24) -> None:
        super().__init__()
        check_integer("width", width, 1)
        self.classes, self.width = tuple(classes), width
        half, quarter, eighth, least = width, 2 * width, 3 * width, 4 * width
        self.input = _convolution(4, half)
        self.quarter = nn.Sequential(_convolution(half, quarter, 2), Residual(quarter), Residual(quarter))
        self.eighth = nn.Sequential(_convolution(quarter, eighth, 2), Residual(eighth), Residual(eighth))
        self.sixteenth = nn.Sequential(_convolution(eighth, least, 2), Residual(least), Residual(least))
        self.from_sixteenth, self.from_eighth = nn.Conv2d(least, eighth, 1), nn.Conv2d(eighth, quarter, 1)
        self.merged_eighth, self.merged_quarter = Residual(eighth), Residual(quarter)
        self.heat = nn.Sequential(_convolution(quarter, quarter), nn.Conv2d(quarter, len(self.classes), 1))
        self.box = nn.Sequential(_convolution(quarter, quarter), nn.Conv2d(quarter, 4, 1))
        nn.init.constant_(self.heat[1].bias, RARE)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Maps:
        """The maps of images whose height and width are multiples of 16."""
        folded = functional.pixel_unshuffle((x - MEAN) / DEVIATION, 2).contiguous(memory_format=torch.channels_last)
        quarter = self.quarter(self.input(folded))
        eighth = self.eighth(quarter)
        eighth = self.merged_eighth(eighth + _twice(self.from_sixteenth(self.sixteenth(eighth))))
        quarter = self.merged_quarter(quarter + _twice(self.from_eighth(eighth)))
        shift, size = self.box(quarter).float().split(2, 1)
        return Maps(self.heat(quarter).float(), shift, size)

    def detect(self, x: Tensor) -> list[Detections]:
        """The objects of images of any size, at most 100 of each, found at the peaks of the heat maps."""
        height, width = x.shape[2:]
        padded = functional.pad(x, (0, -width % COARSEST, 0, -height % COARSEST), mode="replicate")
        maps = self(padded)
        heat = maps.heat.sigmoid()
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat)
        return [self._found(*each, height, width) for each in zip(peaks, maps.shift, maps.size, strict=True)]

    def _found(self, peaks: Tensor, shift: Tensor, size: Tensor, height: int, width: int) -> Detections:
        columns, cells = peaks.shape[2], peaks[0].numel()
        scores, order = peaks.flatten().topk(min(MOST, peaks.numel()))
        labels, cell = order // cells, order % cells
        place = torch.stack([cell % columns, cell // columns], 1) + 0.5  # [N, 2], across and down
        centre = STRIDE * (place + shift.flatten(1)[:, cell].T)
        half = STRIDE / 2 * size.flatten(1)[:, cell].T.exp()
        corners = torch.stack([centre - half, centre + half], 1)  # [N, 2, 2]
        limits = corners.new_tensor([width, height])
        return Detections(corners.clamp_min(0).minimum(limits).flatten(1), scores, labels)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments of this detector."""
        return {"classes": list(self.classes), "width": self.width}


class Residual(nn.Module):
    """Two convolutions and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
