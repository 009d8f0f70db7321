"""The network `deal-u`: it separates what a thermal image suffers from, part by part.

Patterns of columns and rows come first, from the statistics of whole columns and rows. Shading is found next, on a
thumbnail of the whole frame, then noise and lost detail by a U-shaped network, and the tone at last. Each part is taken
out before the next one is found. Shading and detail are found on an image of mean 0 and deviation 1 and scaled back.

>>> import torch
>>> network = DealU("deal-u-small").eval()
>>> x = torch.rand(1, 1, 60, 84)
>>> with torch.no_grad():
...     network(x).shape  # [B, C, H, W]
torch.Size([1, 1, 60, 84])
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deal.model.blocks import NORM_FACTORS, Norm
from deal.model.detail import NEURONS, STRIDE, Detail, Neuron
from deal.model.parts import Parts, Runner
from deal.model.saved import SavedNetwork
from deal.model.shading import Shading
from deal.model.strips import Columns, NoColumns, noise_of
from deal.model.tone import Tone
from deal.model.whole_images import cropped
from deal_kernels._common.checks import one_of
from deal_kernels._common.types import no_autocast

LEAST = 1e-3  # lower bound of the deviation of an image in divisions, and of shares before a logarithm
MIN_SIZE = 16  # pixels
LAGS = (1, 2, 4, 8)  # pixels, down and across, between which differences tell blur from noise


class Size(NamedTuple):
    """The widths and depths of a network."""

    widths: tuple[int, int, int]  # of `Detail`
    depths: tuple[int, int, int, int, int]
    shading: tuple[int, int]  # width and layers of `Shading`
    rows: int  # that `Columns` compares


SIZES = {
    "deal-u": Size((32, 64, 80), (2, 2, 3, 1, 2), (80, 3), 256),
    "deal-u-small": Size((16, 32, 48), (1, 1, 2, 1, 1), (48, 2), 128),
}


class DealU(SavedNetwork):
    """The network that separates patterns, shading, noise and tone from images [B, C, H, W] in [0, 1].

    Args:
        size: "deal-u" or "deal-u-small".
        neuron, norm: of the spiking modules, see `deal.DEAL`; with the neuron "none", plain modules of the same
            convolutions stand in their place.
        strips: whether patterns of columns and rows are taken out by `deal.model.strips.Columns`.

    >>> sum(parameter.numel() for parameter in DealU("deal-u-small").parameters()) < 250_000
    True
    """

    METADATA = "deal.separation"
    min_size, stride = MIN_SIZE, STRIDE
    radiometric_parts = ("columns", "rows")  # a smoother image would show other temperatures of small objects

    def __init__(
        self, size: str = "deal-u", *, neuron: Neuron = "integer", norm: Norm = "bn", strips: bool = True
    ) -> None:
        super().__init__()
        one_of("size", size, tuple(SIZES))
        one_of("neuron", neuron, NEURONS)
        one_of("norm", norm, tuple(NORM_FACTORS))
        self.size, self.neuron, self.norm, self.strips = size, neuron, norm, strips
        widths, depths, shading, rows = SIZES[size]
        self.columns = Columns(rows) if strips else NoColumns()
        self.rows = Columns(rows) if strips else NoColumns()
        self.shading = Shading(*shading)
        self.detail = Detail(widths, depths, neuron=neuron, norm=norm)
        self.tone = Tone()

    def forward(self, x: Tensor) -> Tensor:
        """Restored images of x [B, C, H, W]. Values may leave [0, 1]: clamp them for display."""
        return self.separate(x).restored(x)

    def separate(self, x: Tensor, run: Runner | None = None, lines: Sequence[Tensor] | None = None) -> Parts:
        """The parts of x [B, C, H, W].

        Args:
            run: calls the U-shaped network, such as `run(network, image)`, for instance tile by tile.
            lines: the columns, rows and shading of x, which are then not looked for.
        """
        if x.dim() != 4 or x.shape[2] < MIN_SIZE or x.shape[3] < MIN_SIZE:
            raise ValueError(
                f"x must be [B, C, H, W] of {MIN_SIZE} x {MIN_SIZE} pixels or more; got the shape {tuple(x.shape)}"
            )
        channels = x.shape[1]
        image = x.flatten(0, 1)[:, None]  # [B C, 1, H, W]
        with no_autocast(x.device.type):
            # Without detach(), the errors of later parts would teach the earlier ones through the image.
            known = None if lines is None else [part.reshape(image.shape) for part in lines]
            columns = self.columns(image) if known is None else known[0]
            image = image - columns.detach()
            rows = self.rows(image.mT.contiguous()).mT if known is None else known[1]
            image = image - rows.detach()
            condition = self._condition(image, columns, rows)
            shading = self.shading(image) if known is None else known[2]
            image = image - shading.detach()
            mean, deviation = image.mean((2, 3), keepdim=True), image.std((2, 3), keepdim=True).clamp_min(LEAST)
            normal = (image - mean) / deviation
        detail = deviation * self._found(normal, condition, run).to(x.dtype)
        with no_autocast(x.device.type):
            gain, offset = self.tone((image - detail).detach().view_as(x).mean(1, keepdim=True))
        columns, rows, shading, detail = (
            part.view(-1, channels, *x.shape[2:]) for part in (columns, rows, shading, detail)
        )
        return Parts(columns, rows, shading, detail, gain, offset)

    def _found(self, normal: Tensor, condition: Tensor, run: Runner | None) -> Tensor:
        """The detail of normalised images, in units of their deviation."""
        height, width = normal.shape[2:]
        # Not of negative numbers, which ONNX does not round down.
        below, right = ((size + STRIDE - 1) // STRIDE * STRIDE - size for size in (height, width))
        padded = functional.pad(normal, (0, right, 0, below), mode="replicate")

        def network(image: Tensor) -> Tensor:
            found: Tensor = self.detail(image, condition)
            return found

        found = network(padded) if run is None else run(network, padded)
        return cropped(found, (height, width))

    @torch.no_grad()
    def _condition(self, image: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        """Numbers that describe whole images, [B, 8]: logarithms of the noise, of the patterns and of the differences
        between pixels some way apart, relative to the deviation, and of the deviation."""
        noise = noise_of(image[:, 0])
        scale = image.std((1, 2, 3)).clamp_min(LEAST)
        apart = [(image[..., lag:, lag:] - image[..., :-lag, :-lag]).abs().mean((1, 2, 3)) / scale for lag in LAGS]
        sizes = noise / scale, scale, columns.std((1, 2, 3)) / scale, rows.std((1, 2, 3)) / scale, *apart
        return torch.stack(sizes, 1).clamp_min(LEAST).log()

    def prepared(self, channels: int) -> DealU:
        """A copy in evaluation mode. It takes images with any number of channels."""
        return copy.deepcopy(self).eval()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the U-shaped network per pixel; spiking ones count once, as they read mean rates."""
        return self.detail.macs

    @property
    def reach(self) -> int:
        """The receptive radius of the U-shaped network, in pixels."""
        return self.detail.reach

    @property
    def width(self) -> int:
        """Channels of the largest features, for each pixel of the image."""
        return -(-self.detail.widths[0] // 4)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments of this network."""
        return {"size": self.size, "neuron": self.neuron, "norm": self.norm, "strips": self.strips}
