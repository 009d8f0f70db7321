"""What a neuron is: its settings, checked once, and kept in the form that kernels take."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels import surrogate as surrogates
from deal_kernels._common.checks import is_integer, number, one_of
from deal_kernels._common.types import Number
from deal_kernels.surrogate import Surrogate, SurrogateLike, Window

DECAYS = {"tau": 2.0, "rate": 0.5, "beta": 1.0}  # of which one is given, with a number in place of a tensor
CHARGES = ("decay_input", "decay", "beta")
FIRES = ("ge", "gt")
RESETS = ("hard", "soft", "none", "next_hard", "next_soft", "twice_soft")
HARD, SOFT = ("hard", "next_hard"), ("soft", "next_soft", "twice_soft")
MOST_LEVELS = 1 << 22  # beyond this float32 no longer rounds to whole numbers by addition

Reset = Literal["auto", "hard", "soft", "none", "next_hard", "next_soft", "twice_soft"]
Fire = Literal["ge", "gt"]

Function = TypeVar("Function", bound=Callable[..., Any])


class NeuronSettings(TypedDict, total=False):
    """The arguments that say what a neuron is. `deal_kernels.lif.lif` explains them."""

    tau: Number | None
    rate: Number | None
    beta: Number | None
    decay_input: bool
    v_threshold: Number
    v_reset: float | None
    v_rest: float | None
    reset: Reset
    reset_by: float | None
    detach_reset: bool
    carry_gradient: bool
    surrogate: SurrogateLike
    fire: Fire
    levels: int
    scale: float


class _Settings(NamedTuple):
    charge: str
    rate: bool  # decay is 1 / tau
    decay: float  # tau, 1 / tau, or beta for the charge "beta"
    threshold: float
    reset: str
    reset_to: float  # the state after a hard reset
    rest: float  # the state that decay leads to, which neurons start from
    amount: float | None  # what a soft reset subtracts; None is the threshold
    detach_reset: bool
    carries: bool  # gradients pass from a step to the one before
    surrogate: Surrogate | Callable[[Tensor], Tensor]
    fire: str
    levels: int
    scale: float  # of the output


class Neuron(_Settings):
    """A neuron without its tensors. A decay or threshold given as a tensor replaces the number.

    What torch.compile meets is a method: torch 2.9 does not compile properties of named tuples.
    """

    def has_kernels(self) -> bool:
        """Whether its surrogate is one that kernels have, and not a function of the caller's."""
        return isinstance(self.surrogate, Surrogate)

    def slope(self) -> tuple[str, surrogates.Numbers]:
        """Kind and numbers of the surrogate, as kernels take them. A function's values are given to them."""
        s = self.surrogate
        return (s.kind, s.numbers) if isinstance(s, Surrogate) else ("given", (0.0, 0.0, 0.0))

    @property
    def multiplies(self) -> bool:
        """Whether tau is a power of two, so that multiplying by its float32 reciprocal gives the division's bits."""
        divides = self.charge != "beta" and not self.rate
        return divides and math.frexp(self.decay)[0] == 0.5 and self.decay <= 2.0**125

    def with_reciprocal(self) -> Neuron:
        """The same neuron, with the reciprocal of tau if that gives the same bits faster."""
        return self._replace(rate=True, decay=1 / self.decay) if self.multiplies else self


SCHEMA = (
    "str charge, bool rate, float decay, float v_threshold, str reset, float reset_to, float rest, float? amount, "
    "bool detach_reset, bool carries, str surrogate, float alpha, float height, float outside, str fire, int levels, "
    "float output_scale"
)
WIDTH = SCHEMA.count(",") + 1  # arguments of the schema


def flat(n: Neuron) -> tuple[Any, ...]:
    """The arguments of SCHEMA."""
    *first, _, fire, levels, scale = n
    kind, numbers = n.slope()
    return *first, kind, *numbers, fire, levels, scale


def structured(arguments: tuple[Any, ...]) -> Neuron:
    """The neuron of arguments of SCHEMA."""
    *first, kind, alpha, height, outside, fire, levels, scale = arguments
    return Neuron._make((*first, surrogates.of_numbers(kind, (alpha, height, outside)), fire, levels, scale))


def compiled(n: Neuron, *, learnt_decay: bool = False) -> Any:
    """The neuron as compiled kernels take it, made once for each Neuron object.

    Args:
        learnt_decay: whether the decay is a tensor.
    """
    name = "compiled_learnt" if learnt_decay else "compiled"
    try:
        return getattr(n, name)
    except AttributeError:
        setattr(n, name, _compiled(n if learnt_decay else n.with_reciprocal()))
        return getattr(n, name)


def _compiled(n: Neuron) -> Any:
    c, (kind, (alpha, height, outside)) = backends.extension(), n.slope()
    return c.Neuron(
        charge=getattr(c.Charge, n.charge), fire=getattr(c.Fire, "levels" if n.levels > 1 else n.fire),
        reset=getattr(c.Reset, n.reset), surrogate=getattr(c.Surrogate, kind), detach_reset=n.detach_reset,
        carries=n.carries, rate=n.rate, own_amount=n.amount is not None, decay=n.decay, threshold=n.threshold,
        rest=n.rest, reset_to=n.reset_to, amount=n.amount or 0.0, alpha=alpha, height=height, outside=outside,
        levels=n.levels, scale=n.scale,
    )  # fmt: skip


def lif_neuron(
    *, tau: Number | None = 2.0, rate: Number | None = None, beta: Number | None = None, decay_input: bool = True,
    v_threshold: Number = 1.0, v_reset: float | None = 0.0, v_rest: float | None = None, reset: Reset = "auto",
    reset_by: float | None = None, detach_reset: bool = False, carry_gradient: bool = True,
    surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1, scale: float = 1.0,
) -> Neuron:  # fmt: skip
    """The neuron of these settings, all of them numbers."""
    charge, decay = _charge_and_decay(tau, rate, beta, decay_input)
    one_of("reset", reset, ("auto", *RESETS))
    one_of("fire", fire, FIRES)
    if reset in HARD and v_reset is None:
        raise ValueError(f"reset={reset!r} needs a number as v_reset; got None")
    if reset == "auto":
        reset = "soft" if v_reset is None else "hard"
    if reset_by is not None and reset not in SOFT:
        raise ValueError(f"reset_by is the amount of a soft reset; got reset_by={reset_by!r} and a {reset} reset")
    reset_to = number("v_reset", v_reset) if reset in HARD else 0.0
    rest = reset_to if v_rest is None else number("v_rest", v_rest)
    amount = None if reset_by is None else number("reset_by", reset_by)
    threshold = number("v_threshold", v_threshold)
    if not is_integer(levels) or not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"levels must be an integer from 1 to {MOST_LEVELS}; got {levels!r}")
    if levels > 1 and threshold <= 0:
        raise ValueError(f"v_threshold must be positive with levels > 1; got {threshold}")
    slope = surrogates.checked(surrogate)
    if levels > 1 and not isinstance(slope, Window):
        slope = Window(0.0, float(levels))
    return Neuron(
        charge, rate is not None, decay, threshold, reset, reset_to, rest, amount, bool(detach_reset),
        bool(carry_gradient), slope, fire, levels, number("scale", scale),
    )  # fmt: skip


DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(lif_neuron).parameters.items()}


def _charge_and_decay(
    tau: Number | None, rate: Number | None, beta: Number | None, decay_input: bool
) -> tuple[str, float]:  # fmt: skip
    of_tau = "decay_input" if decay_input else "decay"
    if beta is not None:
        return "beta", number("beta", beta)
    if rate is not None:
        return of_tau, number("rate", rate)
    if tau is None:
        return "beta", 1.0
    if number("tau", tau) < 1:
        raise ValueError(f"tau must be at least 1; got {tau}")
    return of_tau, float(tau)


_known = functools.lru_cache(maxsize=1024, typed=True)(lif_neuron)


def shows(source: Callable[..., Any]) -> Callable[[Function], Function]:
    """A decorator of functions that pass keywords on: help and editors show the keywords of `source` by name."""
    passed_on = [
        each for each in inspect.signature(source).parameters.values() if each.kind is inspect.Parameter.KEYWORD_ONLY
    ]

    def decorated(function: Function) -> Function:
        shown = inspect.signature(function)
        own = [each for each in shown.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*own, *passed_on])  # type: ignore[attr-defined]
        return function

    return decorated


def refuse_unknown(owner: str, settings: Mapping[str, object]) -> None:
    """Raises what Python would raise, if the arguments were named in the signature."""
    for name in settings.keys() - DEFAULTS.keys():
        raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}")


def neuron_of(settings: NeuronSettings) -> Neuron:
    """The neuron of settings without tensors: the same object each time, unless its surrogate is a function of the
    caller's."""
    if not isinstance(settings.get("surrogate", ""), (str, Surrogate)) or torch.compiler.is_dynamo_compiling():
        return lif_neuron(**settings)  # type: ignore[arg-type]
    try:
        return _known(**settings)  # type: ignore[arg-type]
    except TypeError:
        return lif_neuron(**settings)  # type: ignore[arg-type]


def neuron_and_tensors(settings: NeuronSettings) -> tuple[Neuron, Tensor | None, Tensor | None]:
    """The neuron, and the tensors of its decay and threshold where the settings have them."""
    given = [name for name in DECAYS if settings.get(name) is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} exclude each other; got "
            + ", ".join(f"{name}={settings[name]!r}" for name in given)  # type: ignore[literal-required]
        )
    decay = threshold = None
    changes: dict[str, Any] = {}
    if given:
        (name,) = given
        value = settings[name]  # type: ignore[literal-required]
        changes = {**dict.fromkeys(DECAYS), name: value}
        if isinstance(value, Tensor):
            decay, changes[name] = value, DECAYS[name]
    v_threshold = settings.get("v_threshold")
    if isinstance(v_threshold, Tensor):
        threshold, changes["v_threshold"] = v_threshold, 1.0
    return neuron_of({**settings, **changes}), decay, threshold  # type: ignore[typeddict-item]
