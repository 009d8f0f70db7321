"""Neurons that public networks wrote themselves, known by the source of their `forward` and of their spike function.

Their constants are read at each call, where the network keeps them: in its modules or in the neuron.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from deal_kernels.compat.deferred import lif
from deal_kernels.compat.fingerprint import fingerprint
from deal_kernels.compat.fused import Fused
from deal_kernels.surrogate import PiecewiseLeakyReLU, Sigmoid, Triangle

HARD: dict[str, Any] = {"v_reset": 0.0, "detach_reset": True}
SOFT: dict[str, Any] = {"v_reset": None, "reset_by": 1.0, "detach_reset": True}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unlike(Exception):
    """A neuron, or a call of it, is not what its fused form computes. The text says why."""


class Written(NamedTuple):
    """A neuron's `forward`. The strings are expressions in it, as in "self.tau", or names of its module."""

    network: str
    spike: str  # the spike function
    family: str  # of the spike function: how it is called, and how many levels a spike may have
    beta: str | float
    reset: Mapping[str, Any] = HARD
    threshold: str = ""
    width: str = ""  # of the surrogate
    steps: str = ""  # T, if it is not the input's
    off: tuple[str, ...] = ()  # where one of these is true, it is no spiking neuron
    axis: int | None = 0  # of time; None is a single step


class Names:
    """What expressions mean in a function, and in a method of `owner`."""

    def __init__(self, function: Any, owner: Any = None) -> None:
        self.function = function
        self.owner = owner

    def find(self, expression: str) -> Any:
        name, *attributes = expression.split(".")
        code = self.function.__code__
        try:
            if name == "self":
                value = self.owner
            elif name in code.co_freevars:
                value = self.function.__closure__[code.co_freevars.index(name)].cell_contents
            else:
                value = self.function.__globals__[name]
            for attribute in attributes:
                value = getattr(value, attribute)
        except (AttributeError, KeyError, ValueError):
            raise Unlike(f"{expression} does not exist") from None
        return value

    def number(self, expression: str | float, *, positive: bool = False) -> float:
        value = expression if isinstance(expression, float) else self.find(expression)
        if type(value) not in (int, float):
            raise Unlike(f"{expression} is no number")
        if positive and value <= 0:
            raise Unlike(f"{expression} is not positive")
        return value  # type: ignore[no-any-return]


class Spike(NamedTuple):
    """A spike function."""

    family: str
    # The settings of `lif`, from the neuron that calls it and from the names of the spike function's module.
    settings: Callable[[Written, Names, Names], dict[str, Any]]


def rectangle(threshold: str, lens: str) -> Spike:
    def settings(written: Written, neuron: Names, spike: Names) -> dict[str, Any]:
        surrogate = PiecewiseLeakyReLU(width=spike.number(lens, positive=True), leak=0.0)
        return {"fire": "gt", "v_threshold": spike.number(threshold), "surrogate": surrogate}

    return Spike("rectangle", settings)


def triangle() -> Spike:
    def settings(written: Written, neuron: Names, spike: Names) -> dict[str, Any]:
        surrogate = Triangle(1 / neuron.number(written.width, positive=True))
        return {"fire": "gt", "v_threshold": neuron.number(written.threshold), "surrogate": surrogate}

    return Spike("triangle", settings)


def tangent() -> Spike:
    """The derivative of a hyperbolic tangent that rises by 1 between 0 and 1, where alone it is taken."""

    def settings(written: Written, neuron: Names, spike: Names) -> dict[str, Any]:
        if spike.number("thresh") != 0.5:
            raise Unlike("thresh is not 0.5, which its derivative is for")
        return {"v_threshold": 0.5, "adaptation": 0.0, "strength": 0.0, **of_tangent(neuron)}

    return Spike("tangent", settings)


def adaptive_tangent() -> Spike:
    def settings(written: Written, neuron: Names, spike: Names) -> dict[str, Any]:
        threshold, strength = neuron.number("self.thresh"), neuron.number("self.beta")
        return {"v_threshold": threshold, "strength": strength, **of_tangent(neuron)}

    return Spike("adaptive tangent", settings)


def of_tangent(neuron: Names) -> dict[str, Any]:
    b = neuron.number("self.b", positive=True)
    height = b / 2 / math.tanh(b / 2)
    return {"fire": "gt", "surrogate": Sigmoid(alpha=2 * b, height=height), "window": (0.0, 1.0)}


def levels(most: int, **scaled: float) -> Spike:
    return Spike("levels", lambda written, neuron, spike: {"levels": most, "v_threshold": 1.0, **scaled})


MS_RESNET = Written("MS-ResNet", "act_fun", "rectangle", "decay", steps="time_window")
EMS_YOLO = MS_RESNET._replace(network="EMS-YOLO", off=("self.act",))
SPIKE_YOLO = Written("SpikeYOLO", "self.qtrick", "levels", "decay", SOFT)
TET = Written(
    "TET", "self.act", "triangle", "self.tau", {"v_reset": 0.0}, threshold="self.thresh", width="self.gama", axis=1
)

# By the fingerprint of `forward`: first that of the network itself, then those of others that took the neuron over.
NEURONS: dict[str, Written] = {
    "c05e6e9dfed54c28": MS_RESNET,
    "9ac7da6890751a1c": MS_RESNET._replace(steps=""),
    "b1736b29a82e33a3": MS_RESNET._replace(steps=""),
    "7f9a369559d99cdf": MS_RESNET,
    "57cae9771e4ff528": MS_RESNET._replace(beta=1.0),
    "80d0ee39e647c054": EMS_YOLO,
    "c61220d01affdb26": EMS_YOLO._replace(beta="DECAY", steps=""),
    "5cc806e4d4c7b7a4": SPIKE_YOLO,
    "4bad5e1a9033d6d4": SPIKE_YOLO,
    "5661f1d123961854": SPIKE_YOLO._replace(beta="self.decay"),
    "b65d5edb58821fc5": SPIKE_YOLO._replace(beta=0.25),
    "3e88581f307679db": SPIKE_YOLO._replace(axis=None),
    "ff6e145d4e9ce3e3": SPIKE_YOLO._replace(off=("self.inference",)),
    "ff32b630735b3a1c": TET,
    "7f2449dedc0add3f": TET._replace(axis=0),
    "6afc144d8690c49a": TET._replace(spike="ZIF.apply", width="self.gamma"),
}
# By the fingerprint of the spike function: of forward and backward, after that of the module's forward if it has one.
SPIKES: dict[str, Spike] = {
    "956265adadf03aff": rectangle("thresh", "lens"),
    "daee1b16a832c902": rectangle("THRESH", "LENS"),
    "2010aaa48521e9ba": levels(2),
    "690ca7bb6fef66a6": levels(4),
    "e096d62b44566c00": levels(8),
    "7668fa24dbd6bd2d": levels(16),
    "c384aa1ba6eacf5f": levels(4, scale=0.25, reset_by=0.25),
    "1f6102533750964c": triangle(),
    "4390e14d3266a120": triangle(),
    "2749aa91988954fc": tangent(),
    "4651fc450b380410": adaptive_tangent(),
}


class OfSource(Fused):
    """A neuron of a public network. Where a call is not what the fused form computes, it runs as it was written.

    So it does under torch.compile, which then reads the constants itself and notices when they change.
    """

    # The names of what is fused are not those of a network's own attributes.
    fused_inputs: ClassVar[int]  # arguments of a call

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        if "forward" in vars(module):
            return "its forward is its own, not that of its class"
        try:
            cls.fused_settings(module, type(module).forward)
        except Unlike as error:
            return str(error)
        return None

    @classmethod
    def fused_settings(cls, module: Any, forward: Any) -> dict[str, Any]:
        """The settings of a neuron whose class has this `forward`."""
        raise NotImplementedError

    def fused_run(self, forward: Any, *inputs: Any) -> Tensor:
        """What `forward` returns."""
        raise NotImplementedError

    def forward(self, *inputs: Any, **named: Any) -> Any:
        original = type(self).__bases__[1].forward  # type: ignore[attr-defined]
        if len(inputs) == self.fused_inputs and not named and not torch.compiler.is_compiling():
            try:
                return self.fused_run(original, *inputs)
            except Unlike:
                pass
        return original(self, *inputs, **named)


class Handwritten(OfSource):
    """A neuron that takes all steps at once, or has no state."""

    fused_inputs = 1

    @classmethod
    def note(cls, module: Any) -> str:
        return f"the neuron of {_written(type(module).forward).network}"

    @classmethod
    def fused_settings(cls, module: Any, forward: Any) -> dict[str, Any]:
        return settings(module, forward)

    def fused_run(self, forward: Any, *inputs: Any) -> Tensor:
        return run(self, forward, *inputs)


def form(kind: type[nn.Module]) -> type[Fused] | None:
    """The fused form of a class of modules."""
    return Handwritten if source_of(kind) in NEURONS else None


def source_of(kind: type[nn.Module]) -> str:
    """The fingerprint of the forward of a class of modules, if it may be a network's own."""
    return "" if kind.__module__.split(".")[0] in ("torch", "deal_kernels") else key(kind.forward)


def run(neuron: Any, forward: Any, x: Tensor) -> Tensor:
    """The spikes of x, in the layout of `forward`."""
    axis = _written(forward).axis
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        raise Unlike("x is not a float32 tensor")
    if axis is None:
        return lif(x.unsqueeze(0), **settings(neuron, forward)).squeeze(0)
    if x.dim() <= axis or x.shape[axis] == 0:
        raise Unlike("x has no time steps")
    chosen = settings(neuron, forward, x.shape[axis])
    spikes = lif(x.transpose(0, axis), **chosen).transpose(0, axis)
    return spikes if axis == 0 else spikes.contiguous()


def settings(neuron: Any, forward: Any, steps: int | None = None) -> dict[str, Any]:
    """The settings of `lif` for a neuron, in a call of this many time steps."""
    written, names = _written(forward), Names(forward, neuron)
    for switch in written.off:
        if names.find(switch):
            raise Unlike(f"{switch} is {names.find(switch)!r}")
    if written.steps and steps not in (None, names.number(written.steps)):
        raise Unlike(f"x has {steps} time steps, and {written.steps} is {names.number(written.steps)}")
    spike, own = spike_of(written, names.find(written.spike))
    return {"beta": names.number(written.beta), **written.reset, **spike.settings(written, names, own)}


def _written(forward: Any) -> Written:
    if key(forward) not in NEURONS:
        raise Unlike("the forward of its class is another one now")
    return NEURONS[key(forward)]


def spike_of(written: Written, function: Any) -> tuple[Spike, Names]:
    """The spike function that a neuron calls, and its names."""
    if isinstance(function, nn.Module):
        kind: Any = type(function)
        if any(getattr(function, hooks) for hooks in HOOKS):
            raise Unlike(f"{written.spike} has hooks")
    else:
        kind = getattr(function, "__self__", None) if getattr(function, "__name__", None) == "apply" else None
    found = _spike_of_class(kind) if isinstance(kind, type) else None
    if found is None or found[0].family != written.family:
        raise Unlike(f"{written.spike} is an unknown spike function")
    return found


@functools.lru_cache(maxsize=256)
def _spike_of_class(kind: Any) -> tuple[Spike, Names] | None:
    """The spike function of an autograd function's class, or of the class of a module that has one of its own."""
    inside: list[Any] = [kind]
    around = []
    if kind.__bases__ == (nn.Module,):
        inside = [each for each in vars(kind).values() if isinstance(each, type)]
        around = [kind.forward]
    if len(inside) != 1 or inside[0].__bases__ != (Function,):
        return None
    (function,) = inside
    found = fingerprint(*around, function.forward, function.backward)
    if found not in SPIKES or "setup_context" in vars(function) or "apply" in vars(function):
        return None
    return SPIKES[found], Names(function.forward)


@functools.lru_cache(maxsize=1024)
def key(forward: Any) -> str:
    """The fingerprint of a module's forward, or an empty string."""
    return fingerprint(forward) or ""
