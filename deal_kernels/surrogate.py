"""Surrogate derivatives: what stands in for the derivative of the spike's step function, at u = h - v_threshold.

>>> import torch
>>> from deal_kernels import surrogate
>>> from deal_kernels.lif import lif
>>> x = torch.tensor([[0.5], [3.0]], requires_grad=True)  # [T, N]
>>> lif(x, surrogate=surrogate.ATan(alpha=3.0)).sum().backward()
>>> surrogate.FastSigmoid(slope=25.0)(torch.tensor([-0.04, 0.0, 0.04]))  # the derivative itself
tensor([0.2500, 1.0000, 0.2500])
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deal_kernels._common.checks import number, one_of, positive

__all__ = [
    "ATan", "Erf", "Exponential", "FastSigmoid", "LeakyReLU", "PiecewiseLeakyReLU", "Rectangle", "Sigmoid",
    "StraightThrough", "Surrogate", "Triangle", "Window",
]  # fmt: skip

Numbers = tuple[float, float, float]


class Surrogate(abc.ABC):
    """A surrogate derivative that every backend has. A kernel knows it by its kind and three numbers."""

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def numbers(self) -> Numbers:
        """What its kernels take."""

    @abc.abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """The derivative at u, in the shape of u."""

    def spike(self, u: Tensor, fire: Literal["ge", "gt"] = "ge") -> Tensor:
        """1 where u >= 0 ("ge") or u > 0 ("gt"), else 0, with this derivative: for steps of your own.

        >>> u = torch.tensor([-0.5, 0.0], requires_grad=True)
        >>> ATan().spike(u)
        tensor([0., 1.], grad_fn=<_SpikeBackward>)
        """
        one_of("fire", fire, ("ge", "gt"))
        return with_slope((u >= 0 if fire == "ge" else u > 0).to(u.dtype), u, self)


def with_slope(spikes: Tensor, u: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """The spikes, with slope(u) as their derivative by u. Its own derivatives are those of the function `slope`."""
    if not torch.compiler.is_dynamo_compiling():
        return _Spike.apply(u, spikes, slope)  # type: ignore[no-any-return]
    if forward_ad._current_level >= 0:
        # The compiler would drop the tangents. It runs a frame that raises without compiling it.
        raise NotImplementedError("torch.compile does not differentiate spikes in forward mode")
    return _CompiledSpike.apply(u, spikes, slope)  # type: ignore[no-any-return]


class _CompiledSpike(torch.autograd.Function):
    """What torch.compile takes into one graph: it does not with a jvp or a rule for vmap."""

    @staticmethod
    def forward(u: Tensor, spikes: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        return spikes.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, _, ctx.slope = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return grad * ctx.slope(u), None, None


class _Spike(_CompiledSpike):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _CompiledSpike.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        (u,) = ctx.saved_tensors
        return tangent * ctx.slope(u)  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class _OfAlpha(Surrogate):
    """A surrogate with one parameter, its sharpness alpha."""

    alpha: float

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)

    @property
    def numbers(self) -> Numbers:
        return self.alpha, 0.0, 0.0


@dataclasses.dataclass(frozen=True)
class Sigmoid(_OfAlpha):
    """4 height s (1 - s) with s = sigmoid(alpha u). Without a height it is the derivative of s, alpha / 4 high.

    The derivative of tanh(b u), b (1 - tanh(b u)^2), is Sigmoid(alpha=2 * b, height=b).
    """

    kind: ClassVar[str] = "sigmoid"
    alpha: float = 4.0
    height: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.height is not None:
            number("height", self.height)

    @property
    def numbers(self) -> Numbers:
        return self.alpha, self.alpha / 4 if self.height is None else self.height, 0.0

    def __call__(self, u: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * u)
        return (1 - s) * s * (4 * self.numbers[1])


@dataclasses.dataclass(frozen=True)
class ATan(_OfAlpha):
    """(alpha / 2) / (1 + (pi / 2 alpha u)^2)."""

    kind: ClassVar[str] = "atan"
    alpha: float = 2.0

    def __call__(self, u: Tensor) -> Tensor:
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * u) ** 2)


@dataclasses.dataclass(frozen=True)
class Triangle(_OfAlpha):
    """max(0, alpha - alpha^2 |u|): SpikingJelly's PiecewiseQuadratic."""

    kind: ClassVar[str] = "triangle"
    alpha: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        return (self.alpha - self.alpha**2 * u.abs()).clamp(min=0)


@dataclasses.dataclass(frozen=True)
class Erf(_OfAlpha):
    """alpha / sqrt(pi) exp(-(alpha u)^2), the derivative of (1 + erf(alpha u)) / 2."""

    kind: ClassVar[str] = "erf"
    alpha: float = 2.0

    def __call__(self, u: Tensor) -> Tensor:
        return self.alpha / math.sqrt(math.pi) * torch.exp(-((self.alpha * u) ** 2))


@dataclasses.dataclass(frozen=True)
class _OfSlope(Surrogate):
    """A surrogate that falls with slope * |u| from a height of its own."""

    slope: float
    height: float

    def __post_init__(self) -> None:
        positive("slope", self.slope)
        number("height", self.height)

    @property
    def numbers(self) -> Numbers:
        return self.slope, self.height, 0.0


@dataclasses.dataclass(frozen=True)
class FastSigmoid(_OfSlope):
    """height / (1 + slope |u|)^2, the default of snnTorch (slope 25) and of Norse (SuperSpike, slope 100).

    SpikingJelly's SuperSpike(alpha) is FastSigmoid(slope=1.0, height=alpha), and its SoftSign(alpha) is
    FastSigmoid(slope=alpha, height=alpha / 2).
    """

    kind: ClassVar[str] = "fast_sigmoid"
    slope: float = 25.0
    height: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        return self.height / (1 + self.slope * u.abs()) ** 2


@dataclasses.dataclass(frozen=True)
class Exponential(_OfSlope):
    """height exp(-slope |u|). SpikingJelly's PiecewiseExp(alpha) is Exponential(slope=alpha, height=alpha / 2)."""

    kind: ClassVar[str] = "exponential"
    slope: float = 1.0
    height: float = 0.5

    def __call__(self, u: Tensor) -> Tensor:
        return self.height * torch.exp(-self.slope * u.abs())


@dataclasses.dataclass(frozen=True)
class _Plateau(Surrogate):
    """`height` where |u| is less than `width`, and `outside` elsewhere."""

    kind: ClassVar[str] = "rectangle"
    width: float
    height: float
    outside: float

    @property
    def numbers(self) -> Numbers:
        return self.width, self.height, self.outside

    def __call__(self, u: Tensor) -> Tensor:
        return torch.where(u.abs() < self.width, torch.full_like(u, self.height), self.outside)


class Rectangle(_Plateau):
    """alpha where |u| < 1 / (2 alpha), else 0."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(0.5 / positive("alpha", alpha), alpha, 0.0)

    def __repr__(self) -> str:
        return f"Rectangle(alpha={self.height})"


class PiecewiseLeakyReLU(_Plateau):
    """1 / (2 width) where |u| < width, else `leak`."""

    def __init__(self, width: float = 1.0, leak: float = 0.01) -> None:
        super().__init__(width, 0.5 / positive("width", width), number("leak", leak))

    def __repr__(self) -> str:
        return f"PiecewiseLeakyReLU(width={self.width}, leak={self.outside})"


@dataclasses.dataclass(frozen=True)
class LeakyReLU(Surrogate):
    """`slope` where u is at least 0, else `leak`."""

    kind: ClassVar[str] = "sides"
    slope: float = 1.0
    leak: float = 0.0

    def __post_init__(self) -> None:
        number("slope", self.slope)
        number("leak", self.leak)

    @property
    def numbers(self) -> Numbers:
        return 0.0, self.slope, self.leak

    def __call__(self, u: Tensor) -> Tensor:
        return torch.where(u < 0, torch.full_like(u, self.leak), self.slope)


class StraightThrough(LeakyReLU):
    """1 everywhere."""

    def __init__(self) -> None:
        super().__init__(1.0, 1.0)

    def __repr__(self) -> str:
        return "StraightThrough()"


@dataclasses.dataclass(frozen=True)
class Window(Surrogate):
    """1 from `low` to `high`, ends included, else 0. With several levels of spikes u is h / v_threshold."""

    kind: ClassVar[str] = "window"
    low: float
    high: float

    def __post_init__(self) -> None:
        if number("low", self.low) >= number("high", self.high):
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")

    @property
    def numbers(self) -> Numbers:
        return self.low, self.high, 0.0

    def __call__(self, u: Tensor) -> Tensor:
        return ((u >= self.low) & (u <= self.high)).to(u.dtype)


DEFAULTS: dict[str, Surrogate] = {
    each.kind: each for each in (Sigmoid(), ATan(), Triangle(), Rectangle(), FastSigmoid(), Erf(), Exponential())
}

SurrogateLike = (
    Literal["sigmoid", "atan", "triangle", "rectangle", "fast_sigmoid", "erf", "exponential"]
    | Surrogate
    | Callable[..., Tensor]
)


def checked(surrogate: SurrogateLike) -> Surrogate | Callable[[Tensor], Tensor]:
    """The surrogate of a name, or the object or function itself."""
    if isinstance(surrogate, str) and surrogate in DEFAULTS:
        return DEFAULTS[surrogate]
    if callable(surrogate) and not isinstance(surrogate, type):
        return surrogate
    raise ValueError(
        f"surrogate must be one of {', '.join(map(repr, DEFAULTS))}, an object of deal_kernels.surrogate such as "
        f"ATan(alpha=3.0), or a function of u; got {surrogate!r}"
    )


KINDS: dict[str, Callable[[float, float, float], Surrogate]] = {
    "sigmoid": lambda alpha, height, _: Sigmoid(alpha, height),
    "atan": lambda alpha, _, __: ATan(alpha),
    "triangle": lambda alpha, _, __: Triangle(alpha),
    "erf": lambda alpha, _, __: Erf(alpha),
    "fast_sigmoid": lambda slope, height, _: FastSigmoid(slope, height),
    "exponential": lambda slope, height, _: Exponential(slope, height),
    "rectangle": _Plateau,
    "sides": lambda _, slope, leak: LeakyReLU(slope, leak),
    "window": lambda low, high, _: Window(low, high),
}


def of_numbers(kind: str, numbers: Numbers) -> Surrogate:
    """The surrogate of a kind, from the numbers that its kernels take."""
    return KINDS[kind](*numbers)
