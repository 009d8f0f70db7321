"""What a caller of a neuron may say, checked. Errors name the argument, what came, and what is accepted."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from deal_kernels.lif import reference
from deal_kernels.lif.op import needs_gradient
from deal_kernels.lif.reference import STATE, Neuron

Number = float | Tensor

ALPHA = {"sigmoid": 4.0, "atan": 2.0, "triangle": 1.0, "rectangle": 1.0}
MOST_LEVELS = 1 << 22  # beyond this float32 no longer rounds to whole numbers by addition


def numbers_and_tensors(
    tau: Number | None, leak: Number | None, v_threshold: Number
) -> tuple[float | None, float | None, float, Tensor | None, Tensor | None]:
    """tau, leak and v_threshold as numbers, then decay and threshold as tensors where they were given so."""
    decay = threshold = None
    if isinstance(v_threshold, Tensor):
        threshold, v_threshold = v_threshold, 1.0
    if isinstance(leak, Tensor):
        decay, leak = leak, 1.0
    elif isinstance(tau, Tensor) and leak is None:
        decay, tau = tau, 2.0
    return tau, leak, v_threshold, decay, threshold  # type: ignore[return-value]


def checked(
    tau: float | None, leak: float | None, decay_input: bool, v_threshold: float, v_reset: float | None,
    reset: str | None, detach_reset: bool, surrogate: str, alpha: float | None, fire: str, levels: int,
) -> Neuron:  # fmt: skip
    """The neuron of these settings."""
    if leak is not None:
        charge, decay = "leak", number("leak", leak)
    elif tau is None:
        charge, decay = "leak", 1.0
    else:
        charge, decay = "decay_input" if decay_input else "decay", number("tau", tau)
        if decay < 1:
            raise ValueError(f"tau must be at least 1; got {tau}")
    one_of("reset", reset, (None, *reference.RESETS))
    one_of("surrogate", surrogate, reference.SURROGATES)
    one_of("fire", fire, reference.FIRES)
    if reset == "hard" and v_reset is None:
        raise ValueError("reset='hard' needs a number as v_reset; got None")
    reset = reset or ("soft" if v_reset is None else "hard")
    rest = number("v_reset", v_reset) if reset == "hard" else 0.0
    threshold = number("v_threshold", v_threshold)
    alpha = ALPHA[surrogate] if alpha is None else number("alpha", alpha)
    if alpha <= 0:
        raise ValueError(f"alpha must be positive; got {alpha}")
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"levels must be a whole number from 1 to {MOST_LEVELS}; got {levels!r}")
    if levels > 1 and threshold <= 0:
        raise ValueError(f"v_threshold must be positive with levels > 1; got {threshold}")
    return Neuron(charge, decay, threshold, reset, rest, bool(detach_reset), surrogate, alpha, fire, levels)


_known = functools.lru_cache(maxsize=1024)(checked)


def neuron_of(*settings: Any) -> Neuron:
    """The neuron of these settings, the same object each time."""
    if torch.compiler.is_dynamo_compiling():
        return checked(*settings)
    try:
        return _known(*settings)
    except TypeError:
        return checked(*settings)  # what cannot be hashed is named by the check, not by the cache


def number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    value = float(value)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite; got {value}")
    return value


def one_of(name: str, value: object, accepted: Sequence[object]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def output_of(reduce: str | None, pack: bool, levels: int) -> str:
    if reduce is None and not pack:
        return "spikes"
    one_of("reduce", reduce, (None, "mean"))
    if pack and reduce:
        raise ValueError("pack=True and reduce='mean' exclude each other")
    if pack and levels > 1:
        raise ValueError(f"pack=True keeps one bit a spike and needs levels=1; got levels={levels}")
    return "packed" if pack else "mean"


def check_input(x: Tensor, steps: int | None) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got {type(x).__name__}")
    if x.dtype not in STATE:
        raise TypeError(f"x must be float32, float16, bfloat16 or float64; got {x.dtype}")
    if x.layout is not torch.strided:
        raise TypeError(f"x must be a dense tensor; got the layout {x.layout}")
    if steps is None:
        if x.dim() == 0 or x.shape[0] == 0:
            raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")
    elif isinstance(steps, bool) or not isinstance(steps, (int, torch.SymInt)) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1; got {steps!r}")


def state_and_parameters(
    x: Tensor, steps: int | None, v0: Tensor | None, decay: Tensor | None, threshold: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """State and parameters, checked and in the state's dtype."""
    row = x.shape if steps is not None else x.shape[1:]
    dtype = STATE[x.dtype]
    if v0 is not None:
        check_companion("v0", v0, x)
        if v0.shape != row:
            raise ValueError(f"v0 must have the shape of one step, {tuple(row)}; got {tuple(v0.shape)}")
        v0 = v0.to(dtype)
    for name, parameter in (("tau or leak", decay), ("v_threshold", threshold)):
        if parameter is None:
            continue
        check_companion(name, parameter, x)
        channels = row[1] if len(row) > 1 else 1
        if parameter.numel() != 1 and (parameter.dim() != 1 or parameter.numel() != channels):
            raise ValueError(
                f"{name} must have one value or one per channel, {channels} for a step of shape {tuple(row)}; "
                f"got the shape {tuple(parameter.shape)}"
            )
    decay = None if decay is None else decay.to(dtype).contiguous()
    threshold = None if threshold is None else threshold.to(dtype).contiguous()
    return v0, decay, threshold


def check_companion(name: str, tensor: Tensor, x: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense floating-point tensor; got {tensor.dtype}, {tensor.layout}")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def refuse_gradient(argument: str, *tensors: Tensor | None) -> None:
    if needs_gradient(*tensors):
        raise ValueError(f"{argument} has no gradient: call it under torch.no_grad(), or detach what requires grad")


def neuron_and_parameters(
    *, tau: Number | None = 2.0, leak: Number | None = None, decay_input: bool = True, v_threshold: Number = 1.0,
    v_reset: float | None = 0.0, reset: str | None = None, detach_reset: bool = False, surrogate: str = "sigmoid",
    alpha: float | None = None, fire: str = "ge", levels: int = 1,
) -> tuple[Neuron, Tensor | None, Tensor | None]:  # fmt: skip
    """The neuron of the keywords of `lif`, and its decay and threshold where they are tensors."""
    tau, leak, v_threshold, decay, threshold = numbers_and_tensors(tau, leak, v_threshold)
    settings = (tau, leak, decay_input, v_threshold, v_reset, reset, detach_reset, surrogate, alpha, fire, levels)
    return neuron_of(*settings), decay, threshold
