"""What the fused neurons of all libraries have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.types import Number


class Run(NamedTuple):
    """What a neuron returns for all steps."""

    spikes: Tensor  # [T, ...]
    last: tuple[Any, ...]  # the states that a step returns beside its spikes, after the last step
    record: tuple[Any, ...] = ()  # the same after every step, each [T, ...], if they were asked for


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

    def prepare(self) -> None:
        """What can be found once, when the neuron has become a fused one."""

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        """Runs all steps at once; None if this neuron has to be called step by step.

        Args:
            x: [T, ...], or one input [...] that is held, with `steps`.
            states: what the first step receives beside its input.
            threaded: whether each step receives the states that the last one returned; otherwise it receives `states`.
            record: also returns the states after every step.
        """
        return None

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
    except (RuntimeError, TypeError):
        return None
    return {(0.0, 0.0, 1.0, 1.0, 1.0): "ge", (0.0, 0.0, 0.0, 1.0, 1.0): "gt"}.get(tuple(values))


def scales_gradients(function: Any) -> bool:
    """Whether a spike function multiplies gradients by a derivative that depends on u alone."""
    slopes = []
    with torch.enable_grad():
        for factor in (1.0, -3.0, 1e-3, 1.0):
            u = torch.linspace(-2, 2, 9, requires_grad=True)
            spikes = function(u)
            if not spikes.requires_grad:
                return True
            (gradient,) = torch.autograd.grad(spikes, u, torch.full_like(spikes, factor))
            slopes.append(gradient / factor)
    return all(torch.allclose(slopes[0], each, equal_nan=True) for each in slopes[1:])


def setting(p: Tensor, row: Tensor) -> Number | None:
    """A decay or threshold that broadcasts from the right against one step, for `lif`; None if `lif` does not take it.

    A single value becomes a number where nothing has to wait for it.
    """
    sizes = zip(reversed(p.shape), reversed(row.shape), strict=False)
    if p.dim() > row.dim() or any(size not in (1, wanted) for size, wanted in sizes):
        return None
    if p.numel() == 1:
        waits = p.requires_grad or p.device.type != "cpu" or torch.compiler.is_compiling()
        return p.to(row.dtype) if waits else float(p)
    if p.dtype == torch.float64 != row.dtype:
        return None
    p = p.reshape(*[1] * (row.dim() - p.dim()), *p.shape)
    if row.dim() > 1 and p.shape[0] == 1:
        p = p[0]
        p = p.reshape(-1) if p.numel() == p.shape[0] else p
    return p if p.is_floating_point() else p.to(row.dtype)
