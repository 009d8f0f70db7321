"""`lif` as a layer, and time constants that are learnt within their range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deal_kernels._common.checks import is_integer, number
from deal_kernels._common.types import Number
from deal_kernels.lif.functional import Reduce, lif
from deal_kernels.lif.neuron import Default, Fire, Reset, SurrogateLike

_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(lif).parameters.items()}


class Learned:
    """A time constant that training cannot move out of its range: ``LIF(tau=Learned(2.0))``.

    The layer gets a parameter `w`, with tau = 1 / sigmoid(w), always above 1, or beta = sigmoid(w), between 0 and 1.
    That is the parameter of SpikingJelly's ParametricLIFNode, whose state_dict loads.

    Args:
        start: the initial value: above 1 for tau, between 0 and 1 for beta.
        channels: how many values there are, one per channel; None is one for the whole layer.
    """

    def __init__(self, start: float, channels: int | None = None) -> None:
        self.start = number("start", start)
        if channels is not None and (not is_integer(channels) or channels < 1):
            raise ValueError(f"channels must be None or an integer of at least 1; got {channels!r}")
        self.channels = channels

    def parameter(self, name: str) -> nn.Parameter:
        """The initial w of "tau" or "beta"."""
        beta = 1 / self.start if name == "tau" and self.start else self.start
        if not 0 < beta < 1:
            accepted = "above 1" if name == "tau" else "above 0 and below 1"
            raise ValueError(f"{name}=Learned(start) needs a start {accepted}; got {self.start}")
        w = torch.tensor(math.log(beta / (1 - beta)))
        return nn.Parameter(w if self.channels is None else w.repeat(self.channels))

    def __repr__(self) -> str:
        return f"Learned({self.start:g})" if self.channels is None else f"Learned({self.start:g}, {self.channels})"


class LIF(nn.Module):
    """`lif` as a layer.

    Args:
        tau, beta: as in `lif`; or `Learned`, which training keeps in its range. A Parameter is learnt as it is.
        v_threshold: as in `lif`; a Parameter is learnt.
        decay_input, v_reset, reset, detach_reset, surrogate, fire, levels, steps, reduce, pack, backend: as in `lif`.
        stateful: starts each call from the state that the last call left, until `reset`. The state is not part of the
            state_dict, and a copy of the module starts at rest.
        detach_state: cuts the gradient between calls.
        return_state: returns (spikes, v).

    >>> layer = LIF(tau=Learned(2.0), stateful=True)
    >>> spikes = layer(torch.randn(4, 2, 8))  # [T, B, C]
    >>> layer.v.shape
    torch.Size([2, 8])
    >>> layer.reset()
    """

    v: Tensor | None

    def __init__(
        self, *, tau: Number | Learned | Default | None = Default.TAU, beta: Number | Learned | None = None,
        decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0, reset: Reset = "auto",
        detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1,
        steps: int | None = None, reduce: Reduce = None, pack: bool = False, backend: str | None = None,
        stateful: bool = False, detach_state: bool = False, return_state: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (("tau", tau), ("beta", beta), ("v_threshold", v_threshold)):
            if isinstance(value, Learned):
                self.w = value.parameter(name)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.neuron = {
            "decay_input": decay_input, "v_reset": v_reset, "reset": reset, "detach_reset": detach_reset,
            "surrogate": surrogate, "fire": fire, "levels": levels, "steps": steps, "reduce": reduce, "pack": pack,
            "backend": backend,
        }  # fmt: skip
        self.stateful = stateful
        self.detach_state = detach_state
        self.return_state = return_state
        self.v = None

    def forward(self, x: Tensor, v0: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of x [T, B, C, ...], with the final state if ``return_state``."""
        return self.run(lif, x, v0)

    def run(self, function: Callable[..., Any], x: Tensor, v0: Tensor | None, **arguments: Any) -> Any:
        """Calls a function with the arguments of `lif` for this neuron, from its state, and keeps the new state."""
        if v0 is None and self.stateful:
            v0 = self.v.detach() if self.detach_state and self.v is not None else self.v
        wanted = self.return_state or self.stateful
        parameters = {"tau": self._value("tau"), "beta": self._value("beta"), "v_threshold": self.v_threshold}
        result = function(x, v0=v0, **parameters, **{**self.neuron, **arguments}, return_state=wanted)
        if self.stateful:
            self.v = result[1]
        return result[0] if wanted and not self.return_state else result

    def _value(self, name: str) -> Any:
        """tau or beta, computed from w where it is learnt."""
        value = getattr(self, name)
        if not isinstance(value, Learned):
            return value
        beta = torch.sigmoid(self.w)
        return 1 / beta if name == "tau" else beta

    def reset(self) -> None:
        """Forgets the state: the next call starts at rest."""
        self.v = None

    def detach_(self) -> None:
        """Keeps the state but cuts its gradient."""
        self.v = None if self.v is None else self.v.detach()

    def extra_repr(self) -> str:
        decay = "tau" if self.beta is None else "beta"
        changed = {name: value for name, value in self.neuron.items() if value != _DEFAULTS[name]}
        shown = {decay: getattr(self, decay), "v_threshold": self.v_threshold} | changed
        return ", ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, Tensor))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.v is not None:
            self.v = fn(self.v)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"v": None}
