"""A residual network after MS-ResNet (Hu et al., 2021): neurons stand before the weights, and currents are added."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from .neurons import conv_norm, each_step, neuron, stages

Neuron = Callable[[], nn.Module]


class Layer(nn.Module):
    """Neuron, convolution and norm on [T, B, C, H, W]."""

    def __init__(self, inputs: int, outputs: int, stride: int, spiking: Neuron) -> None:
        super().__init__()
        self.neuron = spiking()
        self.conv = conv_norm(inputs, outputs, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return each_step(self.conv, self.neuron(x))


class Block(nn.Module):
    """The shortcut carries the current that charges the next neurons, not their spikes."""

    def __init__(self, inputs: int, outputs: int, stride: int, spiking: Neuron) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(inputs, outputs, stride, spiking), Layer(outputs, outputs, 1, spiking))
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + (x if self.shortcut is None else each_step(self.shortcut, x))


class MSResNet(nn.Module):
    def __init__(
        self, spiking: Neuron, channels: int, classes: int, width: int, blocks: tuple[int, ...], steps: int
    ) -> None:
        super().__init__()
        self.steps = steps
        self.stem = conv_norm(channels, width, 3, 2)
        self.blocks, outputs = stages(partial(Block, spiking=spiking), width, blocks)
        self.last_neuron = spiking()
        self.head = nn.Linear(outputs, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes] of an image [B, C, H, W] that is shown at every step."""
        x = self.blocks(each_step(self.stem, image.expand(self.steps, *image.shape)))
        return self.head(self.last_neuron(x).mean((-2, -1))).mean(0)


def build(
    library: str, *, channels: int = 3, classes: int = 10, width: int = 32, blocks: tuple[int, ...] = (2, 2, 2),
    steps: int = 4,
) -> nn.Module:  # fmt: skip
    # Keeps a quarter of its state from step to step, and does not divide its input.
    spiking = partial(neuron, library, "LIF", tau=4 / 3, decay_input=False, v_threshold=0.5, detach_reset=True)
    return MSResNet(spiking, channels, classes, width, blocks, steps)
