"""A network under autocast whose convolutions get their weights in bfloat16, cast all at once.

Autocast casts each weight by itself, in the forward and in the backward pass: on a GPU, hundreds of launches a step.

>>> from deal.model.network import DEAL
>>> network, x = DEAL([("scale", 5, 3)], width=4), torch.rand(2, 1, 32, 32)
>>> InHalfPrecision(network)(x).detail.sum().backward()
>>> network.feature_conv.weight.grad.dtype
torch.float32
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deal.model.parts import Parts
from deal.model.pretrained import Network
from deal.model.separation import DealU

HALF = torch.bfloat16


class InHalfPrecision(nn.Module):
    """`network.separate` under autocast. The parameters stay in float32, and get gradients in float32."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.separation = _Separation(network)
        # The other parts of deal-u compute in float32.
        part = "network.detail" if isinstance(network, DealU) else "network"
        self.names = [
            f"{part}.{path}.{name}" if path else f"{part}.{name}"
            for path, module in self.separation.get_submodule(part).named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            for name, _ in module.named_parameters(recurse=False)
        ]

    def forward(self, x: Tensor) -> Parts:
        """The parts of degraded images x [B, C, H, W]."""
        weights = CastTogether.apply(*map(self.separation.get_parameter, self.names))
        with torch.autocast(x.device.type, HALF):
            named = dict(zip(self.names, weights, strict=True))
            parts: Parts = torch.func.functional_call(self.separation, named, (x,))
        return parts


class _Separation(nn.Module):
    """Calls `separate`, as torch.func calls modules only."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Parts:
        return self.network.separate(x)


class CastTogether(torch.autograd.Function):
    """Tensors in bfloat16, and their gradients in float32, each by one operation."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _cast(tensors, HALF)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return _cast(grads, torch.float32)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    results = [each.new_empty(each.shape, dtype=dtype) for each in tensors]  # contiguous, as parameters are
    torch._foreach_copy_(results, tensors)
    return tuple(results)
