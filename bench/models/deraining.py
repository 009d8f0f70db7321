"""An image-to-image network after ESDNet (Song et al., IJCAI 2024), which removes rain: its neuron, norm and shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from deal_kernels.compat.spikingjelly import ThresholdDependentBatchNorm2d

from .neurons import each_step, neuron

THRESHOLD = 0.15

Neuron = Callable[[], nn.Module]


class Unit(nn.Module):
    """Neuron, convolution and threshold-dependent norm on [T, B, C, H, W]."""

    def __init__(self, inputs: int, outputs: int, spiking: Neuron, stride: int = 1) -> None:
        super().__init__()
        self.neuron = spiking()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = ThresholdDependentBatchNorm2d(2**-0.5, THRESHOLD, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(each_step(self.conv, self.neuron(x)))


class Gate(nn.Module):
    """Weights each channel at each step by what its mean and its maximum say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.mlp(x.mean((-2, -1))) + self.mlp(x.amax((-2, -1))))
        return x * weights[..., None, None]


class Residual(nn.Module):
    def __init__(self, width: int, spiking: Neuron) -> None:
        super().__init__()
        self.units = nn.Sequential(Unit(width, width, spiking), Unit(width, width, spiking), Gate(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.units(x)


class Deraining(nn.Module):
    """An encoder and a decoder with a shortcut at each scale. The result is the image less the rain that was found."""

    def __init__(self, spiking: Neuron, channels: int, width: int, scales: int, blocks: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        widths = [width << scale for scale in range(scales)]

        def stack(size: int) -> nn.Sequential:
            return nn.Sequential(*(Residual(size, spiking) for _ in range(blocks)))

        self.encoder = nn.ModuleList(map(stack, widths[:-1]))
        self.down = nn.ModuleList(Unit(size, 2 * size, spiking, stride=2) for size in widths[:-1])
        self.middle = stack(widths[-1])
        self.up = nn.ModuleList(Unit(2 * size, size, spiking) for size in widths[:-1])
        self.decoder = nn.ModuleList(map(stack, widths[:-1]))
        self.grow = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.last_neuron = spiking()
        self.head = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """The image [B, C, H, W] without its rain; H and W are multiples of 2 ** (scales - 1)."""
        x = self.stem(image).repeat(self.steps, 1, 1, 1, 1)
        kept = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            kept.append(x)
            x = down(x)
        x = self.middle(x)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = blocks(up(each_step(self.grow, x)) + kept.pop())
        return image - self.head(self.last_neuron(x).mean(0))


def build(
    library: str, *, channels: int = 3, width: int = 24, scales: int = 3, blocks: int = 1, steps: int = 4
) -> nn.Module:
    spiking = partial(neuron, library, "LIF", v_threshold=THRESHOLD, decay_input=False)
    return Deraining(spiking, channels, width, scales, blocks, steps)
