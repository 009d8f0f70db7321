"""`lif` as a layer, and time constants that are learnt within their range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from deal_kernels._common.axes import step_shape, unflattened
from deal_kernels._common.checks import check_integer, is_integer, number
from deal_kernels._common.neuron import DEFAULTS, NeuronSettings, lif_neuron, refuse_unknown, shows
from deal_kernels._common.tracing import as_node
from deal_kernels._common.types import Number
from deal_kernels.lif.functional import Output, Reduce, lif

if TYPE_CHECKING:
    from typing_extensions import Unpack

PARAMETERS = ("tau", "rate", "beta", "v_threshold")  # which may be tensors
_USUAL = {
    **DEFAULTS, "steps": None, "output": "spikes", "reduce": None, "pack": False, "backend": None, "time_axis": 0,
    "channel_axis": None,
}  # fmt: skip


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


def _refuse_lost_state() -> None:
    """Raises where a module would lose its state, or move on from it twice."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        raise RuntimeError(
            "a module with stateful=True cannot be exported or traced, because its state is not part of the graph: set "
            "stateful=False, and where the state matters also return_state=True, with the state as v0 at every call"
        )
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a module with stateful=True was run again in the backward pass, as torch.utils.checkpoint does, but its "
            "state has moved on since: set stateful=False and return_state=True, and give the state as v0 at every call"
        )


def _unflattened(x: Tensor, steps: int, arguments: dict[str, Any]) -> Tensor:
    """x with an axis of its own for time, and in place the arguments for it: a shortcut, and the axis of channels."""
    time, channel = arguments["time_axis"], arguments["channel_axis"]
    if arguments.get("shortcut") is not None:
        arguments["shortcut"] = unflattened("shortcut", arguments["shortcut"], steps, time)
    if channel is not None and channel >= 0:
        arguments["channel_axis"] = channel + 1
    return unflattened("x", x, steps, time)


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
    step_dims: int | None
    time_axis: int
    channel_axis: int | None
    flattened_steps: int | None


class LIF(nn.Module):
    """`lif` as a layer.

    Args:
        steps, output, reduce, pack, backend, time_axis, channel_axis: as in `lif`.
        stateful: starts each call from the state that the last call left, until `reset`, or until the shape of a step
            changes. The state is not part of the state_dict, and a copy of the module starts at rest.
        detach_state: cuts the gradient between calls.
        return_state: returns (spikes, v).
        step_dims: the number of dimensions of one step, such as 2 for [B, C] or 4 for [B, C, H, W]. If it is given, an
            input that has another number of dimensions, such as one without a time axis, is warned of once.
        flattened_steps: T, where the first axis of x is time and batch in one, [T * B, ...], and that of the spikes,
            too. With time_axis=1 it is [B * T, ...].
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
        step_dims: int | None = None, time_axis: int = 0, channel_axis: int | None = None,
        flattened_steps: int | None = None, **settings: Unpack[LayerSettings],
    ) -> None:  # fmt: skip
        super().__init__()
        refuse_unknown(type(self).__name__, settings)
        if step_dims is not None:
            check_integer("step_dims", step_dims, 1)
        if flattened_steps is not None:
            check_integer("flattened_steps", flattened_steps, 1)
            if steps is not None or time_axis not in (0, 1):
                raise ValueError(
                    "flattened_steps excludes steps and takes a time_axis of 0 or 1; got "
                    f"steps={steps!r} and time_axis={time_axis!r}"
                )
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
            "time_axis": time_axis, "channel_axis": channel_axis,
        }  # fmt: skip
        self.flattened_steps = flattened_steps
        self.stateful = stateful
        self.detach_state = detach_state
        self.return_state = return_state
        self.step_dims = step_dims
        self._warned = False
        self.v = None

    def forward(self, x: Tensor, v0: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of x [T, B, C, ...], with the final state if ``return_state``."""
        if isinstance(x, Proxy):
            return as_node(self, x, v0)
        return self.run(lif, x, v0)

    def run(self, function: Callable[..., Any], x: Tensor, v0: Tensor | None, **arguments: Any) -> Any:
        """Calls a function with the arguments of `lif` for this neuron, from its state, and keeps the new state."""
        neuron = {**self.neuron, **arguments}
        self._check_dims(x, neuron["steps"])
        if self.flattened_steps is not None:
            x = _unflattened(x, self.flattened_steps, neuron)
        if self.stateful:
            _refuse_lost_state()
            v0 = self._kept(x, neuron) if v0 is None else v0
        wanted = self.return_state or self.stateful
        parameters = {name: self._value(name) for name in PARAMETERS}
        result = function(x, v0=v0, **parameters, **neuron, return_state=wanted)
        if self.stateful:
            self.v = result[1]
        spikes, state = result if wanted else (result, None)
        if self.flattened_steps is not None and neuron["reduce"] is None and not neuron["pack"]:
            spikes = spikes.flatten(0, 1)
        return (spikes, state) if self.return_state else spikes

    def _kept(self, x: Tensor, neuron: dict[str, Any]) -> Tensor | None:
        """The state to start from: none where it is that of another shape."""
        v = self.v
        if v is None or v.shape != (x.shape if neuron["steps"] is not None else step_shape(x, neuron["time_axis"])):
            return None
        return v.detach() if self.detach_state else v

    def _check_dims(self, x: Tensor, steps: int | None) -> None:
        """Warns once of an x that has another number of dimensions than the module was told."""
        timed = steps is self.flattened_steps is None
        if self.step_dims is None or self._warned or x.dim() == (dims := self.step_dims + timed):
            return
        self._warned = True
        axes = "time and a step" if timed else "a step"
        named = "first axis" if self.neuron["time_axis"] == 0 else f"axis {self.neuron['time_axis']}"
        warnings.warn(
            f"{type(self).__name__} with step_dims={self.step_dims} takes {dims} dimensions, those of {axes}; got x of "
            f"shape {tuple(x.shape)}" + (f", whose {named} it takes as time" if timed else ""),
            stacklevel=7,
        )

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
        shown |= {} if self.flattened_steps is None else {"flattened_steps": self.flattened_steps}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, Tensor))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.v is not None:
            self.v = fn(self.v)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"v": None}
