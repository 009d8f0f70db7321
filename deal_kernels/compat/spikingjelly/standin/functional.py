"""Functions over networks and over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from deal_kernels.compat.spikingjelly.standin.memory import KeepsStepModes, Memory

Layers = Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]


def reset_net(net: nn.Module) -> None:
    """Resets every module that has a method reset()."""
    for module in net.modules():
        reset = getattr(module, "reset", None)
        if callable(reset):
            reset()


def detach_net(net: nn.Module) -> None:
    """Cuts the gradient of every state."""
    for module in net.modules():
        if isinstance(module, Memory):
            module.detach()


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Sets the step mode of every module that has one, but not of the modules in a container for one mode."""
    inside = {id(m) for each in net.modules() if isinstance(each, KeepsStepModes) for m in each.modules()}
    for module in net.modules():
        if hasattr(module, "step_mode") and id(module) not in inside:
            module.step_mode = step_mode  # type: ignore[assignment]


def set_backend(net: nn.Module, backend: str, instance: type | tuple[type, ...] = nn.Module) -> None:
    """Sets the backend of the stateful modules that are of these classes."""
    for module in net.modules():
        if isinstance(module, Memory) and isinstance(module, instance):
            module.backend = backend


def _chained(layers: Layers, x: Tensor) -> Tensor:
    if not isinstance(layers, (list, tuple, nn.Sequential)):
        layers = [layers]  # type: ignore[list-item]
    for layer in layers:
        x = layer(x)
    return x


def multi_step_forward(x_seq: Tensor, single_step_module: Layers) -> Tensor:
    """Runs a layer, or several, at one time step after the other: [T, ...] -> [T, ...]."""
    return torch.stack([_chained(single_step_module, x) for x in x_seq])


def seq_to_ann_forward(x_seq: Tensor, stateless_module: Layers) -> Tensor:
    """Runs a layer, or several, on all time steps as one batch: [T, B, ...] -> [T, B, ...]."""
    return _chained(stateless_module, x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
