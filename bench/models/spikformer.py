"""A spiking transformer after Spikformer (Zhou et al., ICLR 2023): attention without a softmax, on spikes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from .neurons import conv_norm, each_step, neuron

Neuron = Callable[..., nn.Module]


class PatchSplitting(nn.Module):
    """Convolution, norm and neuron in stages, each but the first of which halves the image; then tokens."""

    def __init__(self, channels: int, width: int, stages: int, spiking: Neuron) -> None:
        super().__init__()
        widths = [channels, *(width >> (stages - 1 - i) for i in range(stages))]
        self.convs = nn.ModuleList(conv_norm(a, b) for a, b in itertools.pairwise(widths))
        self.neurons = nn.ModuleList(spiking() for _ in self.convs)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.position, self.position_neuron = conv_norm(width, width), spiking()

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [T, B, N, C] of x [T, B, C, H, W]."""
        for stage, (conv, fire) in enumerate(zip(self.convs, self.neurons, strict=True)):
            x = fire(each_step(conv, x))
            if stage:
                x = each_step(self.pool, x)
        x = x + self.position_neuron(each_step(self.position, x))
        return x.flatten(3).transpose(2, 3)


class TokenLayer(nn.Module):
    """Linear layer, norm and neuron on tokens [T, B, N, C]; the first two see T and B in one axis."""

    def __init__(self, inputs: int, outputs: int, spiking: Neuron) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.neuron = spiking()

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, tokens, _ = x.shape
        y = self.norm(self.linear(x.flatten(0, 1)).transpose(1, 2)).transpose(1, 2)
        return self.neuron(y.reshape(steps, batch, tokens, -1).contiguous())


class SelfAttention(nn.Module):
    """(q k^T) v on the spikes of each head, scaled, and a neuron with half the threshold behind it."""

    def __init__(self, width: int, heads: int, spiking: Neuron) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (TokenLayer(width, width, spiking) for _ in range(3))
        self.attention_neuron = spiking(v_threshold=0.5)
        self.projection = TokenLayer(width, width, spiking)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1)) @ v * 0.125  # [T, B, heads, N, C / heads]
        return self.projection(self.attention_neuron(y.transpose(2, 3).flatten(3).contiguous()))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int, spiking: Neuron) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, spiking)
        self.mlp = nn.Sequential(
            TokenLayer(width, expansion * width, spiking), TokenLayer(expansion * width, width, spiking)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Spikformer(nn.Module):
    def __init__(
        self, spiking: Neuron, channels: int, classes: int, width: int, depth: int, heads: int, stages: int, steps: int
    ) -> None:
        super().__init__()
        self.steps = steps
        self.patches = PatchSplitting(channels, width, stages, spiking)
        self.blocks = nn.Sequential(*(Block(width, heads, 4, spiking) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes] of an image [B, C, H, W] that is shown at every step."""
        tokens = self.blocks(self.patches(image.expand(self.steps, *image.shape)))
        return self.head(tokens.mean(2)).mean(0)


def build(
    library: str, *, channels: int = 3, classes: int = 10, width: int = 192, depth: int = 2, heads: int = 6,
    stages: int = 3, steps: int = 4,
) -> nn.Module:  # fmt: skip
    spiking = partial(neuron, library, "LIF", tau=2.0, detach_reset=True)
    return Spikformer(spiking, channels, classes, width, depth, heads, stages, steps)
