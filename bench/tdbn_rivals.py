"""What a user would run instead of `TDBNLIF` and `SpikingConv`: torch's batch norm and a loop, torch.compile of them,
SpikingJelly, and torch's batch norm in front of this library's own neuron."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import torch
from lif_rivals import DEVICE, TAU, Case, eager_layer
from torch import Tensor, nn

from deal_kernels.lif import LIF

# The integer neuron of the spiking convolution: h = v / 4 + x, s = round(clamp(h, 0, 4)), v = h - s.
LEAK, LEVELS = 0.25, 4


class Shape(NamedTuple):
    """Of a spiking layer, and how it lies in memory."""

    steps: int
    batch: int
    channels: int
    height: int
    width: int
    layout: str = "NCHW"
    dtype: torch.dtype = torch.float32

    def random(self, *, time: bool = True) -> Tensor:
        *sizes, layout, dtype = self
        generator = torch.Generator(DEVICE).manual_seed(0)
        x = torch.randn(sizes[0] * sizes[1], *sizes[2:], generator=generator, device=DEVICE).to(dtype)
        if layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        return x.unflatten(0, sizes[:2]) if time else x[: self.batch]

    @property
    def bytes(self) -> int:
        return self.steps * self.batch * self.channels * self.height * self.width * self.dtype.itemsize

    def __str__(self) -> str:
        *sizes, layout, dtype = self
        return f"{'x'.join(map(str, sizes))} {layout} {str(dtype).removeprefix('torch.')}"


class NormNeuron(nn.Module):
    """torch's batch norm over all steps, then a neuron."""

    def __init__(self, channels: int, neuron: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def spikingjelly_neuron() -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import neuron

    layer = neuron.LIFNode(tau=TAU, step_mode="m").to(DEVICE)

    def run(x: Tensor) -> Tensor:
        layer.reset()
        return layer(x)

    return run


def norm_neurons(shape: Shape, compiled: bool) -> dict[str, nn.Module]:
    """Norm and neuron as they are found elsewhere; ours behind torch's norm comes first."""
    loop = eager_layer(Case("", "spikes", shape.dtype, shape.steps, 0))
    made = {"norm + our lif": NormNeuron(shape.channels, LIF(tau=TAU)), "eager": NormNeuron(shape.channels, loop)}
    if compiled:
        torch._dynamo.reset()
        made["compile"] = torch.compile(NormNeuron(shape.channels, loop), dynamic=False)
    if importlib.util.find_spec("spikingjelly"):
        made["spikingjelly"] = NormNeuron(shape.channels, spikingjelly_neuron())
    return {name: module.to(DEVICE) for name, module in made.items()}


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h.clamp(0, LEVELS).round()

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return grad * ((h >= 0) & (h <= LEVELS)).to(grad.dtype)


class EagerConv(nn.Module):
    """Neuron, convolution, norm and mean over time of one image at every step, as it is usually written."""

    def __init__(self, channels: int, kernel: int, steps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros_like(x)
        spikes = []
        for current in x.expand(self.steps, *x.shape):
            h = LEAK * v + current
            s = Rounded.apply(h)
            v = h - s.detach()
            spikes.append(s)
        y = self.norm(self.conv(torch.stack(spikes).flatten(0, 1)))
        return y.unflatten(0, (self.steps, len(x))).mean(0)


def spiking_convs(shape: Shape, kernel: int, compiled: bool) -> dict[str, nn.Module]:
    make = lambda: EagerConv(shape.channels, kernel, shape.steps).to(DEVICE)  # noqa: E731
    made = {"eager": make()}
    if compiled:
        torch._dynamo.reset()
        made["compile"] = torch.compile(make(), dynamic=False)
    return made
