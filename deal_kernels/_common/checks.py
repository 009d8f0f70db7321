"""Argument validation. An error names the argument, what came, and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from deal_kernels._common.dispatch import needs_gradient
from deal_kernels._common.types import STATE


def number(name: str, value: object) -> float:
    if isinstance(value, torch.fx.Proxy):  # torch.compile makes a surrogate again, of the symbols in its graph
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    value = float(value)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite; got {value}")
    return value


def positive(name: str, value: object) -> float:
    found = number(name, value)
    if not isinstance(found, torch.fx.Proxy) and found <= 0:
        raise ValueError(f"{name} must be positive; got {found}")
    return found


def is_integer(value: object) -> bool:
    """Whether the value is an int; a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_integer(name: str, value: Any, least: int) -> None:
    if not is_integer(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")


def one_of(name: str, value: object, accepted: Sequence[object]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def check_strided(name: str, x: Tensor) -> None:
    """Checks that x is a dense tensor."""
    if isinstance(x, torch.fx.Proxy):
        raise TypeError(
            f"{name} is a torch.fx.Proxy, and torch.fx does not trace through this function: write torch.fx.wrap with "
            "the function's name at the top of the module that calls it, or use its layer"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(x).__name__}")
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got the layout {x.layout}")


def check_tensor(name: str, x: Tensor) -> None:
    """Checks that x is a dense tensor of a dtype that kernels take."""
    check_strided(name, x)
    if x.dtype not in STATE:
        raise TypeError(f"{name} must be float32, float16, bfloat16 or float64; got {x.dtype}")


def floating(x: Tensor) -> Tensor:
    """x, or its numbers in the default dtype if they are integers or truth values."""
    whole = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())
    return x.to(torch.get_default_dtype()) if whole else x


def check_steps(x: Tensor) -> None:
    """Checks that x, time first, has a step."""
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")


def check_companion(name: str, tensor: Tensor, x: Tensor) -> None:
    """Checks a tensor that belongs to the input x."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense floating-point tensor; got {tensor.dtype}, {tensor.layout}")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def refuse_gradient(argument: str, *tensors: Tensor | None) -> None:
    if needs_gradient(*tensors):
        raise ValueError(f"{argument} has no gradient: call it under torch.no_grad(), or detach what requires grad")
