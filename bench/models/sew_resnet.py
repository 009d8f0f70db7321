"""A residual network after SEW-ResNet (Fang et al., NeurIPS 2021): spikes are added to spikes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from .neurons import conv_norm, each_step, neuron, stages

Neuron = Callable[[], nn.Module]


class Layer(nn.Module):
    """Convolution, norm and neuron on [T, B, C, H, W]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, spiking: Neuron) -> None:
        super().__init__()
        self.conv = conv_norm(inputs, outputs, kernel, stride)
        self.neuron = spiking()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(each_step(self.conv, x))


class Block(nn.Module):
    """Two layers whose spikes are added to those of the shortcut, so that spikes become whole numbers."""

    def __init__(self, inputs: int, outputs: int, stride: int, spiking: Neuron) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(inputs, outputs, 3, stride, spiking), Layer(outputs, outputs, 3, 1, spiking))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else Layer(inputs, outputs, 1, stride, spiking)

    def forward(self, x: Tensor) -> Tensor:
        out, identity = self.layers(x), self.shortcut(x)
        out += identity
        return out


class SEWResNet(nn.Module):
    def __init__(
        self, spiking: Neuron, channels: int, classes: int, width: int, blocks: tuple[int, ...], steps: int
    ) -> None:
        super().__init__()
        self.steps = steps
        self.stem, self.stem_neuron = conv_norm(channels, width, 7, 2), spiking()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks, outputs = stages(partial(Block, spiking=spiking), width, blocks)
        self.head = nn.Linear(outputs, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes] of an image [B, C, H, W]; the stem computes it once and its neurons see it each step."""
        current = self.stem(image)
        x = self.stem_neuron(current.repeat(self.steps, 1, 1, 1, 1))
        x = self.blocks(each_step(self.pool, x))
        return self.head(x.mean((-2, -1))).mean(0)


def build(
    library: str, *, channels: int = 3, classes: int = 10, width: int = 32, blocks: tuple[int, ...] = (2, 2, 2, 2),
    steps: int = 4,
) -> nn.Module:  # fmt: skip
    spiking = partial(neuron, library, "IF", detach_reset=True)
    return SEWResNet(spiking, channels, classes, width, blocks, steps)
