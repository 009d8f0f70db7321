"""The moving average of a network over the steps of its training.

>>> average, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
>>> before = average.bias.item()
>>> update_average(average, network, decay=0.75)
>>> bool(torch.isclose(average.bias, 0.75 * before + 0.25 * network.bias))
True
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def tensors_of(module: nn.Module) -> list[Tensor]:
    """The parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Moves the average towards the module; counts are copied."""
    pairs = list(zip(tensors_of(average), tensors_of(module), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, 1 - decay)
    for count, new in pairs:
        if not count.is_floating_point():
            count.copy_(new)
