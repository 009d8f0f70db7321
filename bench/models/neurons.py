"""What the networks share: neurons as public code asks for them, and layers without time run over all steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


def neuron(library: str, kind: str, **settings: Any) -> nn.Module:
    """A neuron for [T, B, ...] that asks for SpikingJelly's fast backend; kind is "LIF" or "IF"."""
    known = importlib.import_module(f"spikingjelly.{library}.neuron")
    if library == "clock_driven":
        return getattr(known, f"MultiStep{kind}Node")(**settings, backend="cupy")
    return getattr(known, f"{kind}Node")(**settings, step_mode="m", backend="cupy")


def reset(library: str, network: nn.Module) -> None:
    """Brings all neurons to rest, as between two batches."""
    importlib.import_module(f"spikingjelly.{library}.functional").reset_net(network)


def each_step(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer for [B, ...] on x [T, B, ...], with T and B in one axis."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )  # fmt: skip


def stages(
    block: Callable[[int, int, int], nn.Module], width: int, blocks: Sequence[int]
) -> tuple[nn.Sequential, int]:  # fmt: skip
    """The blocks of a residual network, from `block(inputs, outputs, stride)`, and the channels of the last one.

    Every stage after the first halves the image and doubles the channels.
    """
    made, inputs = [], width
    for stage, count in enumerate(blocks):
        for index in range(count):
            made.append(block(inputs, width << stage, 2 if stage and not index else 1))
            inputs = width << stage
    return nn.Sequential(*made), inputs
