"""What a neuron is: its settings, checked once, and kept in the form that kernels take."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels import surrogate as surrogates
from deal_kernels._common.checks import is_integer, number, one_of
from deal_kernels._common.types import Number
from deal_kernels.surrogate import Surrogate

CHARGES = ("decay_input", "decay", "beta")
FIRES = ("ge", "gt")
RESETS = ("hard", "soft", "none")
MOST_LEVELS = 1 << 22  # beyond this float32 no longer rounds to whole numbers by addition

SurrogateLike = (
    Literal["sigmoid", "atan", "triangle", "rectangle", "fast_sigmoid", "erf"] | Surrogate | Callable[..., Tensor]
)
Reset = Literal["auto", "hard", "soft", "none"]
Fire = Literal["ge", "gt"]


class Default(enum.Enum):
    """The value of tau where the caller names none, told apart from the same value named: beta takes its place."""

    TAU = 2.0

    def __repr__(self) -> str:
        return repr(self.value)

    __str__ = __repr__


class _Settings(NamedTuple):
    charge: str
    decay: float  # tau, or beta for the charge "beta"
    threshold: float
    reset: str
    rest: float  # the reset value of a hard reset, else 0
    detach_reset: bool
    surrogate: Surrogate | Callable[[Tensor], Tensor]
    fire: str
    levels: int


class Neuron(_Settings):
    """A neuron without its tensors. A decay or threshold given as a tensor replaces the number."""

    @property
    def has_kernels(self) -> bool:
        """Whether every backend has its surrogate. A function of the caller's runs on the torch backend alone."""
        return isinstance(self.surrogate, Surrogate)

    @property
    def multiplies(self) -> bool:
        """Whether tau is a power of two, so that multiplying by its float32 reciprocal gives the division's bits."""
        return self.charge != "beta" and math.frexp(self.decay)[0] == 0.5 and self.decay <= 2.0**125


SCHEMA = (
    "str charge, float decay, float v_threshold, str reset, float rest, bool detach_reset, "
    "str surrogate, float alpha, float height, str fire, int levels"
)
WIDTH = SCHEMA.count(",") + 1  # arguments of the schema


def flat(n: Neuron) -> tuple[Any, ...]:
    """The arguments of SCHEMA."""
    *first, surrogate, fire, levels = n
    assert isinstance(surrogate, Surrogate)
    return *first, surrogate.kind, surrogate.alpha, surrogate.height, fire, levels


def structured(arguments: tuple[Any, ...]) -> Neuron:
    """The neuron of arguments of SCHEMA."""
    *first, kind, alpha, height, fire, levels = arguments
    return Neuron._make((*first, surrogates.of_numbers(kind, alpha, height), fire, levels))


def compiled(n: Neuron) -> Any:
    """The neuron as compiled kernels take it, made once for each Neuron object."""
    try:
        return n.compiled  # type: ignore[attr-defined]
    except AttributeError:
        c, s = backends.extension(), n.surrogate
        assert isinstance(s, Surrogate)
        n.compiled = c.Neuron(  # type: ignore[attr-defined]
            charge=getattr(c.Charge, n.charge), fire=getattr(c.Fire, "levels" if n.levels > 1 else n.fire),
            reset=getattr(c.Reset, n.reset), surrogate=getattr(c.Surrogate, s.kind), detach_reset=n.detach_reset,
            multiply=n.multiplies, decay=n.decay, threshold=n.threshold, rest=n.rest, alpha=s.alpha, height=s.height,
            levels=n.levels,
        )  # fmt: skip
        return n.compiled  # type: ignore[attr-defined]


def checked(
    tau: float | None, beta: float | None, decay_input: bool, v_threshold: float, v_reset: float | None, reset: Reset,
    detach_reset: bool, surrogate: SurrogateLike, fire: Fire, levels: int,
) -> Neuron:  # fmt: skip
    """The neuron of these settings."""
    if beta is not None:
        charge, decay = "beta", number("beta", beta)
    elif tau is None:
        charge, decay = "beta", 1.0
    else:
        charge, decay = "decay_input" if decay_input else "decay", number("tau", tau)
        if decay < 1:
            raise ValueError(f"tau must be at least 1; got {tau}")
    one_of("reset", reset, ("auto", *RESETS))
    one_of("fire", fire, FIRES)
    if reset == "hard" and v_reset is None:
        raise ValueError("reset='hard' needs a number as v_reset; got None")
    if reset == "auto":
        reset = "soft" if v_reset is None else "hard"
    rest = number("v_reset", v_reset) if reset == "hard" else 0.0
    threshold = number("v_threshold", v_threshold)
    if not is_integer(levels) or not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"levels must be an integer from 1 to {MOST_LEVELS}; got {levels!r}")
    if levels > 1 and threshold <= 0:
        raise ValueError(f"v_threshold must be positive with levels > 1; got {threshold}")
    slope = checked_surrogate(surrogate)
    return Neuron(charge, decay, threshold, reset, rest, bool(detach_reset), slope, fire, levels)


def checked_surrogate(surrogate: SurrogateLike) -> Surrogate | Callable[[Tensor], Tensor]:
    if isinstance(surrogate, str) and surrogate in surrogates.DEFAULTS:
        return surrogates.DEFAULTS[surrogate]
    if callable(surrogate) and not isinstance(surrogate, type):
        return surrogate
    raise ValueError(
        f"surrogate must be one of {', '.join(map(repr, surrogates.DEFAULTS))}, an object of deal_kernels.surrogate "
        f"such as ATan(alpha=3.0), or a function of u; got {surrogate!r}"
    )


_known = functools.lru_cache(maxsize=1024, typed=True)(checked)


def neuron_of(
    tau: float | None, beta: float | None, decay_input: bool, v_threshold: float, v_reset: float | None, reset: Reset,
    detach_reset: bool, surrogate: SurrogateLike, fire: Fire, levels: int,
) -> Neuron:  # fmt: skip
    """The neuron of these settings, the same object each time, unless its surrogate is a function of the caller's."""
    settings = (tau, beta, decay_input, v_threshold, v_reset, reset, detach_reset, surrogate, fire, levels)
    if not isinstance(surrogate, (str, Surrogate)) or torch.compiler.is_dynamo_compiling():
        return checked(*settings)
    try:
        return _known(*settings)
    except TypeError:
        return checked(*settings)  # the check names what cannot be hashed


def numbers_and_tensors(
    tau: Number | Default | None, beta: Number | None, v_threshold: Number
) -> tuple[float | None, float | None, float, Tensor | None, Tensor | None]:
    """tau, beta and v_threshold as numbers, then decay and threshold as tensors where they were given so."""
    if beta is not None:
        if tau is not None and tau is not Default.TAU:
            raise ValueError(f"tau and beta exclude each other; got tau={tau!r} and beta={beta!r}")
        tau = None
    elif tau is Default.TAU:
        tau = 2.0
    decay = threshold = None
    if isinstance(v_threshold, Tensor):
        threshold, v_threshold = v_threshold, 1.0
    if isinstance(beta, Tensor):
        decay, beta = beta, 1.0
    elif isinstance(tau, Tensor):
        decay, tau = tau, 2.0
    return tau, beta, v_threshold, decay, threshold  # type: ignore[return-value]
