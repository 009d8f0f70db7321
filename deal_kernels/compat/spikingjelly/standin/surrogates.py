"""Surrogate functions as modules: spikes with a surrogate derivative, or smooth values if `spiking` is False."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deal_kernels import surrogate
from deal_kernels._common.checks import check_integer, positive
from deal_kernels.lif import lif
from deal_kernels.surrogate import Surrogate

Derivative = Surrogate | Callable[[Tensor], Tensor]


def heaviside(x: Tensor) -> Tensor:
    """1 where x is at least 0, else 0."""
    return (x >= 0).to(x)


def _magnitude(x: Tensor) -> Tensor:
    """|x|, with the derivative 1 at 0."""
    return torch.where(x >= 0, x, -x)


class _Function(nn.Module):
    """A function of u = v - v_threshold, and of the attributes that `arguments` names."""

    arguments: ClassVar[tuple[str, ...]] = ()
    spiking_function: Callable[..., Tensor]
    primitive_function: Callable[..., Tensor]

    def __init__(self, spiking: bool) -> None:
        super().__init__()
        self.spiking = spiking

    def set_spiking_mode(self, spiking: bool) -> None:
        self.spiking = spiking

    def forward(self, x: Tensor) -> Tensor:
        function = self.spiking_function if self.spiking else self.primitive_function
        return function(x, *(getattr(self, name) for name in self.arguments))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in (*self.arguments, "spiking"))


class SurrogateFunctionBase(_Function):
    """The base for a surrogate of your own, with spiking_function(x, alpha) and primitive_function(x, alpha)."""

    arguments = ("alpha",)

    def __init__(self, alpha: float, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.alpha = alpha


class MultiArgsSurrogateFunctionBase(_Function):
    """The base for a surrogate of your own with other arguments than alpha, which defines forward."""

    def __init__(self, spiking: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__(spiking)


class Known(_Function):
    """A surrogate whose derivative kernels can take."""

    @abc.abstractmethod
    def derivative(self) -> Derivative:
        """As the argument `surrogate` of `lif`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.spiking:
            return super().forward(x)
        # One step of a neuron without memory.
        spikes = lif(x.unsqueeze(0), tau=None, v_threshold=0.0, reset="none", surrogate=self.derivative())
        return spikes.squeeze(0)


def derivative_of(function: object) -> Derivative | None:
    """The derivative of the spikes of a neuron's surrogate function; None if it is known as a function alone."""
    if isinstance(function, Surrogate):
        return function
    if isinstance(function, Known) and function.spiking and type(function).forward is Known.forward:
        return function.derivative()
    return None


class Sigmoid(Known, SurrogateFunctionBase):
    """alpha s (1 - s) with s = sigmoid(alpha u)."""

    def __init__(self, alpha: float = 4.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return surrogate.Sigmoid(self.alpha)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        return torch.sigmoid(x * alpha)


class ATan(Known, SurrogateFunctionBase):
    """(alpha / 2) / (1 + (pi / 2 alpha u)^2)."""

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return surrogate.ATan(self.alpha)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        return torch.atan(math.pi / 2 * alpha * x) / math.pi + 0.5


class PiecewiseQuadratic(Known, SurrogateFunctionBase):
    """max(0, alpha - alpha^2 |u|)."""

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return surrogate.Triangle(self.alpha)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        inside = x.clamp(-1 / alpha, 1 / alpha)
        return alpha * inside - alpha**2 / 2 * inside.abs() * inside + 0.5


class PiecewiseExp(Known, SurrogateFunctionBase):
    """alpha / 2 exp(-alpha |u|)."""

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return surrogate.Exponential(slope=self.alpha, height=self.alpha / 2)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        tail = torch.exp(-alpha * _magnitude(x)) / 2
        return torch.where(x >= 0, 1 - tail, tail)


class SoftSign(Known, SurrogateFunctionBase):
    """(alpha / 2) / (1 + alpha |u|)^2."""

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(positive("alpha", alpha), spiking)

    def derivative(self) -> Derivative:
        return surrogate.FastSigmoid(slope=self.alpha, height=self.alpha / 2)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        return (F.softsign(x * alpha) + 1) / 2


class Erf(Known, SurrogateFunctionBase):
    """alpha / sqrt(pi) exp(-(alpha u)^2)."""

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return surrogate.Erf(self.alpha)

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        return torch.erfc(-alpha * x) / 2


class PiecewiseLeakyReLU(Known, MultiArgsSurrogateFunctionBase):
    """1 / w where |u| < w, else c. This is twice the slope of `primitive_function`, as in SpikingJelly before 2.0."""

    arguments = "w", "c"

    def __init__(self, w: float = 1.0, c: float = 0.01, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.w, self.c = positive("w", w), c

    def derivative(self) -> Derivative:
        return surrogate.of_numbers("rectangle", (self.w, 1 / self.w, self.c))

    @staticmethod
    def primitive_function(x: Tensor, w: float, c: float) -> Tensor:
        inside = x.clamp(-w, w)
        return inside / (2 * w) + 0.5 + c * (x - inside)


class LeakyKReLU(Known, MultiArgsSurrogateFunctionBase):
    """k where u is at least 0, else leak."""

    arguments = "leak", "k"

    def __init__(self, spiking: bool = True, leak: float = 0.0, k: float = 1.0) -> None:
        super().__init__(spiking)
        self.leak, self.k = leak, k

    def derivative(self) -> Derivative:
        return surrogate.LeakyReLU(slope=self.k, leak=self.leak)

    @staticmethod
    def primitive_function(x: Tensor, leak: float, k: float) -> Tensor:
        return torch.where(x >= 0, k * x, leak * x)


class QPseudoSpike(Known, SurrogateFunctionBase):
    """(1 + 2 / (alpha - 1) |u|)^-alpha."""

    def __init__(self, alpha: float = 2.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        if self.alpha == 2:
            return surrogate.FastSigmoid(slope=2.0, height=1.0)
        return lambda u: (1 + 2 / (self.alpha - 1) * u.abs()) ** -self.alpha

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        tail = 0.5 * (1 + 2 / (alpha - 1) * _magnitude(x)) ** (1 - alpha)
        return torch.where(x >= 0, 1 - tail, tail)


class NonzeroSignLogAbs(Known, SurrogateFunctionBase):
    """1 / (1 / alpha + |u|)."""

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(alpha, spiking)

    def derivative(self) -> Derivative:
        return lambda u: 1 / (1 / self.alpha + u.abs())

    @staticmethod
    def primitive_function(x: Tensor, alpha: float) -> Tensor:
        value = torch.log(alpha * _magnitude(x) + 1)
        return torch.where(x >= 0, value, -value)


class S2NN(Known, MultiArgsSurrogateFunctionBase):
    """alpha s (1 - s) with s = sigmoid(alpha u) where u < 0, else beta / (u + 1)."""

    arguments = "alpha", "beta"

    def __init__(self, alpha: float = 4.0, beta: float = 1.0, spiking: bool = True) -> None:
        super().__init__(spiking)
        self.alpha, self.beta = alpha, beta

    def derivative(self) -> Derivative:
        below = surrogate.Sigmoid(self.alpha)
        return lambda u: torch.where(u < 0, below(u), self.beta / (u + 1))

    @staticmethod
    def primitive_function(x: Tensor, alpha: float, beta: float) -> Tensor:
        return torch.where(x < 0, torch.sigmoid(x * alpha), beta * torch.log((x + 1).abs() + 1e-5) + 0.5)


class SquarewaveFourierSeries(Known, MultiArgsSurrogateFunctionBase):
    """4 / T_period times the sum of cos((2 i - 1) 2 pi u / T_period) over i from 1 to n - 1."""

    arguments = "n", "T_period"

    def __init__(self, n: int = 2, T_period: float = 8, spiking: bool = True) -> None:
        super().__init__(spiking)
        check_integer("n", n, 2)
        self.n, self.T_period = n, positive("T_period", T_period)

    def derivative(self) -> Derivative:
        def waves(u: Tensor) -> Tensor:
            each = [torch.cos((2 * i - 1) * (2 * math.pi / self.T_period) * u) for i in range(1, self.n)]
            return 4 / self.T_period * torch.stack(each).sum(0)

        return waves

    @staticmethod
    def primitive_function(x: Tensor, n: int, T_period: float) -> Tensor:
        each = [torch.sin(i * (2 * math.pi / T_period) * x) / i for i in range(1, 2 * n - 2, 2)]
        return 0.5 + 2 / math.pi * torch.stack(each).sum(0)
