"""What the neurons of every age share: one run of `lif` over time, or the three parts of a step where a subclass
replaces one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deal_kernels._common.checks import number
from deal_kernels._common.types import Number
from deal_kernels.compat.deferred import lif, like
from deal_kernels.compat.spikingjelly.standin.memory import Deferred, Memory
from deal_kernels.compat.spikingjelly.standin.surrogates import Derivative, Sigmoid, derivative_of
from deal_kernels.surrogate import Surrogate

Settings = dict[str, Any]

PARTS = "neuronal_charge", "neuronal_fire", "neuronal_reset"  # of a step


class States(Deferred):
    """The membrane potentials after every step, [T, ...], from the input and the states before it.

    `function` is `lif`, or another one with its arguments.
    """

    def __init__(
        self, function: Callable[..., Any], x: Tensor, entered: tuple[Tensor | None, ...], settings: Settings
    ) -> None:
        self.function, self.x, self.entered, self.settings = function, x, entered, settings
        self.gradient = torch.is_grad_enabled()
        self.version = _version(x)

    def compute(self) -> Tensor:
        if self.version is not None and self.version != self.x._version:
            raise RuntimeError("v_seq is computed from the neuron's input, which was since changed in place")
        with torch.set_grad_enabled(self.gradient):
            states: Tensor = self.function(self.x, *self.entered, output="v", **self.settings)
        return states

    def detached(self) -> States:
        settings = {name: _detached(value) for name, value in self.settings.items()}
        found = States(self.function, self.x.detach(), tuple(map(_detached, self.entered)), settings)
        found.version = self.version
        return found


def _version(x: Tensor) -> int | None:
    """The count of changes in place, where it can be read."""
    return None if torch.compiler.is_compiling() or x.is_inference() else x._version


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


class Node(Memory):
    """A layer of neurons with the state `v`: a number until the first step, then a tensor.

    A subclass says how the state decays (`decays`), or defines the charge of a step (`neuronal_charge`). Where the
    input has another shape than the state, the state starts again.
    """

    v: Any
    v_seq: Any
    v_threshold: Number
    v_reset: float | None

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.v_threshold = v_threshold if isinstance(v_threshold, Tensor) else number("v_threshold", v_threshold)
        self.v_reset = None if v_reset is None else number("v_reset", v_reset)
        self.detach_reset = detach_reset
        surrogate_function = Sigmoid() if surrogate_function is None else surrogate_function
        if not callable(surrogate_function) or isinstance(surrogate_function, type):
            raise TypeError(f"surrogate_function must be a function of v - v_threshold; got {surrogate_function!r}")
        self.surrogate_function = surrogate_function
        self.register_memory("v", self.rest)

    @property
    def rest(self) -> float:
        """The state before the first step."""
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def rests_at_zero(self) -> bool:
        return self.rest == 0

    def decays(self) -> Settings:
        """The arguments of `lif` that say how the state decays."""
        raise NotImplementedError(f"{type(self).__name__} has to define neuronal_charge")

    def keeps_states(self) -> bool:
        """Whether v_seq is wanted."""
        return "v_seq" in self._memories

    def single_step_forward(self, x: Tensor) -> Tensor:
        """The spikes of one time step."""
        derivative = self._fused(*PARTS)
        if derivative is not None:
            return self._run(x.unsqueeze(0), derivative, False).squeeze(0)
        self.v_float_to_tensor(x)
        self.neuronal_charge(x)
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike.to(_floating(x))

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """The spikes [T, ...] of the input x_seq [T, ...]."""
        derivative = self._fused(*PARTS, "single_step_forward")
        if derivative is not None:
            return self._run(x_seq, derivative, self.keeps_states())
        spikes, states = [], []
        for x in x_seq:
            spikes.append(self.single_step_forward(x))
            states.append(self.v)
        if self.keeps_states():
            self.v_seq = torch.stack(states)
        return torch.stack(spikes)

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = lif(x.unsqueeze(0), self._start(x), output="h", **self._settings(x)).squeeze(0)

    def neuronal_fire(self) -> Tensor:
        function, u = self.surrogate_function, self.v - self.v_threshold
        spike = function.spike(u) if isinstance(function, Surrogate) else function(u)
        return spike  # type: ignore[no-any-return]

    def neuronal_reset(self, spike: Tensor) -> None:
        s = spike.detach() if self.detach_reset else spike
        if self.v_reset is None:
            self.v = self.v - s * self.v_threshold
        else:
            self.v = (1 - s) * self.v + s * self.v_reset

    def v_float_to_tensor(self, x: Tensor) -> None:
        """Makes `v` a tensor in the shape of one step x."""
        start = self._start(x)
        if start is None:
            start = torch.full_like(x, self.rest, dtype=_floating(x))
        self.v = start

    def extra_repr(self) -> str:
        shown = "v_threshold", "v_reset", "detach_reset", "tau", "decay_input", "step_mode", "backend"
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown if hasattr(self, name))

    def _fused(self, *parts: str) -> Derivative | None:
        """The surrogate derivative, if no subclass replaces one of these methods and kernels can take it; or None."""
        if any(getattr(type(self), part) is not getattr(Node, part) for part in parts):
            return None
        return derivative_of(self.surrogate_function)

    def _run(self, x_seq: Tensor, derivative: Derivative, keep: bool) -> Tensor:
        row = like(x_seq)[0]
        v0 = self._start(row)
        settings = self._settings(row) | {"surrogate": derivative}
        spikes, self.v = lif(x_seq, v0, return_state=True, **settings)
        if keep:
            self.v_seq = States(lif, x_seq, (v0,), settings)
        return spikes

    def _settings(self, x: Tensor) -> Settings:
        threshold = self.v_threshold
        if isinstance(threshold, Tensor) and threshold.numel() > 1:
            threshold = threshold.expand(x.shape)  # aligned from the right: `lif` takes [C] as channels
        return {
            **self.decays(), "v_threshold": threshold, "v_reset": self.v_reset, "detach_reset": self.detach_reset
        }  # fmt: skip

    def _start(self, x: Tensor) -> Tensor | None:
        """The state before a step x; None is at rest."""
        v = self.v
        if isinstance(v, Tensor):
            return v.to(x.device) if v.shape == x.shape else None
        return None if v == self.rest else torch.full_like(x, v, dtype=_floating(x))


def _floating(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def above_one(name: str, tau: float) -> float:
    if number(name, tau) <= 1:
        raise ValueError(f"{name} must be above 1; got {tau}")
    return float(tau)


def decays_by_tau(tau: float, decay_input: bool, shared: bool) -> Settings:
    """A leaky neuron. `shared` computes v (1 - 1 / tau) + x where the input does not decay."""
    if shared and not decay_input:
        return {"beta": 1 - 1 / tau}
    return {"tau": tau, "decay_input": decay_input}


def decays_by_weight(w: Tensor, decay_input: bool, shared: bool) -> Settings:
    """As `decays_by_tau`, with 1 / tau = sigmoid(w)."""
    rate = torch.sigmoid(w)
    if shared and not decay_input:
        return {"beta": 1 - rate}
    return {"rate": rate, "decay_input": decay_input}


def weight_of(init_tau: float) -> nn.Parameter:
    """The w with 1 / sigmoid(w) = init_tau."""
    return nn.Parameter(torch.as_tensor(-math.log(above_one("init_tau", init_tau) - 1)))
