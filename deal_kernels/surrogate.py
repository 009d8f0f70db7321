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

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from deal_kernels._common.checks import number, positive

__all__ = ["ATan", "Erf", "FastSigmoid", "Rectangle", "Sigmoid", "Surrogate", "Triangle"]


class Surrogate:
    """A surrogate derivative that every backend has. `alpha` and `height` are the numbers its kernels take."""

    kind: ClassVar[str]
    alpha: float
    height: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        """The derivative at u, in the shape of u."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _OfAlpha(Surrogate):
    """A surrogate with one parameter, its sharpness alpha."""

    alpha: float

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)


@dataclasses.dataclass(frozen=True)
class Sigmoid(_OfAlpha):
    """alpha s (1 - s) with s = sigmoid(alpha u)."""

    kind: ClassVar[str] = "sigmoid"
    alpha: float = 4.0

    def __call__(self, u: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * u)
        return (1 - s) * s * self.alpha


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
class Rectangle(_OfAlpha):
    """alpha where |u| < 1 / (2 alpha), else 0."""

    kind: ClassVar[str] = "rectangle"
    alpha: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        return self.alpha * (u.abs() < 0.5 / self.alpha).to(u.dtype)


@dataclasses.dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """height / (1 + slope |u|)^2, the default of snnTorch (slope 25) and of Norse (SuperSpike, slope 100).

    SpikingJelly's SuperSpike(alpha) is FastSigmoid(slope=1.0, height=alpha).
    """

    kind: ClassVar[str] = "fast_sigmoid"
    slope: float = 25.0
    height: float = 1.0

    def __post_init__(self) -> None:
        positive("slope", self.slope)
        number("height", self.height)

    @property
    def alpha(self) -> float:  # type: ignore[override]
        return self.slope

    def __call__(self, u: Tensor) -> Tensor:
        return self.height / (1 + self.slope * u.abs()) ** 2


@dataclasses.dataclass(frozen=True)
class Erf(_OfAlpha):
    """alpha / sqrt(pi) exp(-(alpha u)^2), the derivative of (1 + erf(alpha u)) / 2."""

    kind: ClassVar[str] = "erf"
    alpha: float = 2.0

    def __call__(self, u: Tensor) -> Tensor:
        return self.alpha / math.sqrt(math.pi) * torch.exp(-((self.alpha * u) ** 2))


KINDS: dict[str, Callable[..., Surrogate]] = {
    each.kind: each for each in (Sigmoid, ATan, Triangle, Rectangle, FastSigmoid, Erf)
}
DEFAULTS = {kind: make() for kind, make in KINDS.items()}


def of_numbers(kind: str, alpha: float, height: float) -> Surrogate:
    """The surrogate of a kind, from the numbers that its kernels take."""
    return FastSigmoid(alpha, height) if kind == "fast_sigmoid" else KINDS[kind](alpha)
