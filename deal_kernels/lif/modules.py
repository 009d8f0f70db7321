"""`lif` as a layer, and time constants that are learnt within their range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deal_kernels._common.checks import is_integer, number
from deal_kernels._common.neuron import DEFAULTS, NeuronSettings, lif_neuron, refuse_unknown, shows
from deal_kernels._common.types import Number
from deal_kernels.lif.functional import Output, Reduce, lif

if TYPE_CHECKING:
    from typing_extensions import Unpack

PARAMETERS = ("tau", "rate", "beta", "v_threshold")  # which may be tensors
_USUAL = {**DEFAULTS, "steps": None, "output": "spikes", "reduce": None, "pack": False, "backend": None}


class Learned:
    """A time constant that training cannot move out of its range: ``LIF(tau=Learned(2.0))``.

    The layer gets a parameter `w`, with tau = 1 / sigmoid(w), always above 1, or rate or beta = sigmoid(w), between 0
    and 1. That is the parameter of SpikingJelly's ParametricLIFNode, whose state_dict loads; with `rate` the neuron has
    its bits, too.

    Args:
        start: the initial value: above 1 for tau, between 0 and 1 for rate and beta.
        channels: how many values there are, one per channel; None is one for the whole layer.
    """

    def __init__(self, start: float, channels: int | None = None) -> None:
        self.start = number("start", start)
        if channels is not None and (not is_integer(channels) or channels < 1):
            raise ValueError(f"channels must be None or an integer of at least 1; got {channels!r}")
        self.channels = channels

    def parameter(self, name: str) -> nn.Parameter:
        """The initial w of "tau", "rate" or "beta"."""
        beta = 1 / self.start if name == "tau" and self.start else self.start
        if not 0 < beta < 1:
            accepted = "above 1" if name == "tau" else "above 0 and below 1"
            raise ValueError(f"{name}=Learned(start) needs a start {accepted}; got {self.start}")
        w = torch.tensor(math.log(beta / (1 - beta)))
        return nn.Parameter(w if self.channels is None else w.repeat(self.channels))

    def __repr__(self) -> str:
        return f"Learned({self.start:g})" if self.channels is None else f"Learned({self.start:g}, {self.channels})"


class LayerSettings(NeuronSettings, total=False):
    """The arguments that say what the neurons of a layer are."""

    tau: Number | Learned | None  # type: ignore[misc]
    rate: Number | Learned | None  # type: ignore[misc]
    beta: Number | Learned | None  # type: ignore[misc]


class LayerArguments(LayerSettings, total=False):
    """The arguments of `LIF`."""

    steps: int | None
    output: Output
    reduce: Reduce
    pack: bool
    backend: str | None
    stateful: bool
    detach_state: bool
    return_state: bool


class LIF(nn.Module):
    """`lif` as a layer.

    Args:
        steps, output, reduce, pack, backend: as in `lif`.
        stateful: starts each call from the state that the last call left, until `reset`. The state is not part of the
            state_dict, and a copy of the module starts at rest.
        detach_state: cuts the gradient between calls.
        return_state: returns (spikes, v).
        settings: of the neuron, as in `lif`. tau, rate and beta may be `Learned`, which training keeps in its range. A
            Parameter, also as v_threshold, is learnt as it is.

    >>> layer = LIF(tau=Learned(2.0), stateful=True)
    >>> spikes = layer(torch.randn(4, 2, 8))  # [T, B, C]
    >>> layer.v.shape
    torch.Size([2, 8])
    >>> layer.reset()
    """

    v: Tensor | None

    @shows(lif_neuron)
    def __init__(
        self, *, steps: int | None = None, output: Output = "spikes", reduce: Reduce = None, pack: bool = False,
        backend: str | None = None, stateful: bool = False, detach_state: bool = False, return_state: bool = False,
        **settings: Unpack[LayerSettings],
    ) -> None:  # fmt: skip
        super().__init__()
        refuse_unknown(type(self).__name__, settings)
        decays = [settings.get("rate"), settings.get("beta")]
        start = {**dict.fromkeys(PARAMETERS), "tau": 2.0 if decays == [None, None] else None, "v_threshold": 1.0}
        for name in PARAMETERS:
            value = settings.pop(name, start[name])  # type: ignore[misc]
            if isinstance(value, Learned):
                self.w = value.parameter(name)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.neuron = {
            **settings, "steps": steps, "output": output, "reduce": reduce, "pack": pack, "backend": backend,
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
        parameters = {name: self._value(name) for name in PARAMETERS}
        result = function(x, v0=v0, **parameters, **{**self.neuron, **arguments}, return_state=wanted)
        if self.stateful:
            self.v = result[1]
        return result[0] if wanted and not self.return_state else result

    def _value(self, name: str) -> Any:
        """A parameter of the neuron, computed from w where it is learnt."""
        value = getattr(self, name)
        if not isinstance(value, Learned):
            return value
        share = torch.sigmoid(self.w)
        return 1 / share if name == "tau" else share

    def reset(self) -> None:
        """Forgets the state: the next call starts at rest."""
        self.v = None

    def detach_(self) -> None:
        """Keeps the state but cuts its gradient."""
        self.v = None if self.v is None else self.v.detach()

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in PARAMETERS if getattr(self, name) is not None}
        shown |= {name: value for name, value in self.neuron.items() if value != _USUAL[name]}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, Tensor))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.v is not None:
            self.v = fn(self.v)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"v": None}
