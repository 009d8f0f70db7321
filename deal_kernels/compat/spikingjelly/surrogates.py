"""SpikingJelly's surrogate functions as settings of `lif`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deal_kernels.compat.fused import Derivative, fires_at
from deal_kernels.surrogate import (
    ATan,
    Erf,
    Exponential,
    FastSigmoid,
    LeakyReLU,
    Rectangle,
    Sigmoid,
    StraightThrough,
    Surrogate,
    Triangle,
    of_numbers,
)

# By the name of the class; the modules that have these attributes have these formulas in all versions.
FORMULAS: dict[str, Callable[[Any], Surrogate]] = {
    "Sigmoid": lambda s: Sigmoid(s.alpha),
    "ATan": lambda s: ATan(s.alpha),
    "PiecewiseQuadratic": lambda s: Triangle(s.alpha),
    "PiecewiseExp": lambda s: Exponential(s.alpha, s.alpha / 2),
    "SoftSign": lambda s: FastSigmoid(s.alpha, s.alpha / 2),
    "SuperSpike": lambda s: FastSigmoid(1.0, s.alpha),
    "Erf": lambda s: Erf(s.alpha),
    "Rect": lambda s: Rectangle(s.alpha),
    "LeakyKReLU": lambda s: LeakyReLU(s.k, s.leak),
    "DeterministicPass": lambda s: StraightThrough(),
}
MODULES = ("spikingjelly.activation_based.surrogate", "spikingjelly.clock_driven.surrogate")


def spike_settings(function: Any, version: int) -> dict[str, Any]:
    """The settings `surrogate` and `fire` of `lif`.

    Args:
        function: an object of SpikingJelly's surrogate classes, or any spike function of u.
        version: 2, or 0 for the versions before it.
    """
    kind = type(function)
    if kind.__module__ in MODULES:
        if kind.__name__ == "PiecewiseLeakyReLU":  # its height became half of what it was
            height = (0.5 if version == 2 else 1.0) / function.w
            return {"surrogate": of_numbers("rectangle", (function.w, height, function.c))}
        if kind.__name__ in FORMULAS:
            return {"surrogate": FORMULAS[kind.__name__](function)}
    return {"surrogate": Derivative(function), "fire": fires_at(function)}


def refusal(function: Any) -> str | None:
    """Why a spike function cannot be used; None if it can."""
    if not getattr(function, "spiking", True):
        return "its surrogate function has spiking=False and returns no spikes"
    if type(function).__module__ not in MODULES or type(function).__name__ not in FORMULAS:
        return None if fires_at(function) else f"its surrogate function {function} is not a step function"
    return None
