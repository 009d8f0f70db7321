"""What the fused neurons of all libraries have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Fused:
    """A class to put in front of a library's neuron: its methods replace those that compute the neuron."""

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        """Why this neuron cannot run fused; None if it can."""
        return None

    @classmethod
    def note(cls, module: Any) -> str:
        """What the report says of this neuron, if there is more to say than that it was replaced."""
        return ""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class was made here, so pickle cannot find it by its name."""
        reduced: Any = super().__reduce_ex__(protocol)
        return _blank, type(self).__bases__, *reduced[2:]


_CLASSES: dict[tuple[type, type], type] = {}


def fused_class(fused: type, kind: type) -> type[Any]:
    """The neuron's class with the methods of `fused` in front, the same each time."""
    if (fused, kind) not in _CLASSES:
        names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _CLASSES[fused, kind] = type(f"Fused{kind.__name__}", (fused, kind), names)
    return _CLASSES[fused, kind]


def _blank(fused: type, kind: type) -> Any:
    made: Any = fused_class(fused, kind)
    return made.__new__(made)


class Derivative:
    """The derivative of a spike function that some library defines, from its own backward pass."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, u: Tensor) -> Tensor:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            spikes = self.function(u)
            if not spikes.requires_grad:
                return torch.zeros_like(u)
            (slope,) = torch.autograd.grad(spikes.sum(), u)
        return slope


def fires_at(function: Any) -> str | None:
    """The `fire` of `lif` for a spike function: "ge" or "gt", by its value at 0; None if it is not a step function."""
    try:
        with torch.no_grad():
            values = function(torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])).tolist()
    except RuntimeError:
        return None
    return {(0.0, 0.0, 1.0, 1.0, 1.0): "ge", (0.0, 0.0, 0.0, 1.0, 1.0): "gt"}.get(tuple(values))
