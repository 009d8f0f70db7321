"""Noise and lost detail, found by a U-shaped network of scale-transform and spiking-separation modules.

Modules that transform the scale go to a half, a quarter and an eighth of the resolution and back. At a quarter and an
eighth, where features are small, every second module separates by spikes: a norm and a neuron over four time steps.

>>> import torch
>>> Detail(widths=(8, 12, 16))(torch.rand(1, 1, 64, 96), torch.zeros(1, CONDITIONS)).shape
torch.Size([1, 1, 64, 96])
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.model import blocks
from deal.model.blocks import LEVELS, NORM_FACTORS, TIME_STEPS, Norm
from deal_kernels.conv import Conv2d
from deal_kernels.tdbn import TDBNLIF

Neuron = Literal["integer", "binary", "none"]

NEURONS: tuple[Neuron, ...] = typing.get_args(Neuron)
STRIDE = 8  # between the pixels of the smallest features
CONDITIONS = 8  # numbers that describe the whole image
LEAST_SHARE = 0.05  # of what was found; at 0 no gradient would pass
RESIDUAL_SCALE = 0.3  # initial scale of convolutions that are added to a residual


class Detail(nn.Module):
    """What has to be subtracted from an image beside its patterns.

    Args:
        widths: numbers of channels at a half, a quarter and an eighth of the resolution.
        depths: numbers of modules at a half, a quarter, an eighth, and back at a quarter and a half.
        neuron, norm: of the spiking modules, see `deal.model.network.DEAL`; the neuron "none" replaces them by plain
            ones.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 80), depths: Sequence[int] = (2, 2, 3, 1, 2), *,
        neuron: Neuron = "integer", norm: Norm = "bn",
    ) -> None:  # fmt: skip
        super().__init__()
        half, quarter, eighth = widths

        def modules(width: int, depth: int, spiking: bool) -> nn.Sequential:
            return nn.Sequential(
                *(
                    Separation(width, neuron, norm) if spiking and neuron != "none" and k % 2 == 0 else Transform(width)
                    for k in range(depth)
                )
            )

        self.condition = nn.Sequential(nn.Linear(CONDITIONS, 32), nn.ReLU(), nn.Linear(32, sum(widths)))
        self.gate = nn.Sequential(nn.Linear(CONDITIONS, 32), nn.ReLU(), nn.Linear(32, 1))
        self.widths, self.depths = tuple(widths), tuple(depths)
        self.input = Conv2d(4, half, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(half, quarter, 2, 2), nn.Conv2d(quarter, eighth, 2, 2)])
        self.up = nn.ModuleList([nn.Conv2d(eighth, 4 * quarter, 1), nn.Conv2d(quarter, 4 * half, 1)])
        self.encoder = nn.ModuleList([modules(half, depths[0], False), modules(quarter, depths[1], True)])
        self.middle = modules(eighth, depths[2], True)
        self.decoder = nn.ModuleList([modules(quarter, depths[3], True), modules(half, depths[4], False)])
        self.output = Conv2d(half, 4, 3, padding=1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B, 1, H, W] with H and W multiples of 8; condition [B, 8]."""
        half, quarter, eighth = (each[..., None, None] for each in self.condition(condition).split(self.widths, 1))
        folded = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        first = self.encoder[0](self.input(folded) + half)
        second = self.encoder[1](self.down[0](first) + quarter)
        y = self.middle(self.down[1](second) + eighth)
        y = self.decoder[0](functional.pixel_shuffle(self.up[0](y), 2) + second)
        y = self.decoder[1](functional.pixel_shuffle(self.up[1](y), 2) + first)
        share = LEAST_SHARE + (1 - LEAST_SHARE) * self.gate(condition).add(2).sigmoid()
        return functional.pixel_shuffle(self.output(y), 2) * share[..., None, None]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions per pixel of the image."""
        levels = {
            4: [self.input, self.encoder[0], self.decoder[1], self.output],
            16: [self.down[0], self.encoder[1], self.decoder[0], self.up[1]],
            64: [self.down[1], self.middle, self.up[0]],
        }
        return round(sum(_weights(parts) / pixels for pixels, parts in levels.items()))

    @property
    def reach(self) -> int:
        """The receptive radius in pixels, with the rest of a smallest cell."""
        down_half, down_quarter, at_eighth, up_quarter, up_half = self.depths
        return 4 * (down_half + up_half + 1) + 8 * (down_quarter + up_quarter) + 16 * at_eighth + STRIDE


def _weights(parts: Sequence[nn.Module]) -> int:
    """How many weights the convolutions have."""
    found = (each for part in parts for each in part.modules() if isinstance(each, nn.Conv2d))
    return sum(each.weight.numel() for each in found)


class Transform(nn.Module):
    """Two convolutions and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3, padding=1, activation="relu")
        self.second = Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= RESIDUAL_SCALE

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x), residual=x)


class Separation(nn.Module):
    """Two convolutions with a norm and a spiking neuron between them, and a residual.

    The neuron receives the same input at each of four time steps, and its mean output is passed on.
    """

    def __init__(self, width: int, neuron: blocks.Neuron, norm: Norm) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3, padding=1, bias=False)
        self.neuron = TDBNLIF(
            width, alpha=NORM_FACTORS[norm], beta=0.25, levels=LEVELS[neuron], v_reset=None, detach_reset=True,
            steps=TIME_STEPS, reduce="mean",
        )  # fmt: skip
        self.second = Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= RESIDUAL_SCALE

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.neuron(self.first(x)), residual=x)
