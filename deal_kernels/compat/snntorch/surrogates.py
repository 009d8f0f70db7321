"""snnTorch's surrogate functions as settings of `lif`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from deal_kernels.compat.fused import Derivative, fires_at, scales_gradients
from deal_kernels.surrogate import ATan, FastSigmoid, Sigmoid, StraightThrough, Surrogate

# By the name of the function that makes the spike function, with the value of its argument.
# snnTorch 1.0.0's sigmoid overflows to NaN where the potential is far below the threshold; Sigmoid does not.
FORMULAS: dict[str, Callable[[float], Surrogate]] = {
    "atan": ATan,
    "fast_sigmoid": lambda slope: FastSigmoid(slope, 1.0),
    "sigmoid": Sigmoid,
    "straight_through_estimator": lambda _: StraightThrough(),
}


def formula(function: Any) -> Surrogate | None:
    """The surrogate of a spike function of `snntorch.surrogate`, if the kernels have it."""
    maker = getattr(function, "__qualname__", "").removesuffix(".<locals>.inner")
    if getattr(function, "__module__", None) != "snntorch.surrogate" or maker not in FORMULAS:
        return None
    values = [cell.cell_contents for cell in function.__closure__ or ()]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0 for value in values):
        return None
    return FORMULAS[maker](values[0] if values else 1.0)


def spike_settings(function: Any) -> dict[str, Any]:
    """The settings `surrogate` and `fire` of `lif`."""
    found = formula(function)
    if found is not None:
        return {"surrogate": found, "fire": "gt"}
    return {"surrogate": Derivative(function), "fire": fires_at(function)}


def refusal(function: Any) -> str | None:
    """Why a spike function cannot be used; None if it can."""
    if formula(function) is not None:
        return None
    if fires_at(function) is None:
        return f"its spike_grad {_name(function)} is not a step function"
    if isinstance(function, nn.Module) and any(True for _ in function.parameters()):
        return f"its spike_grad {_name(function)} has parameters"
    if not scales_gradients(function):
        return f"its spike_grad {_name(function)} does not multiply gradients by a function of the potential alone"
    return None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__).removesuffix(".<locals>.inner")
