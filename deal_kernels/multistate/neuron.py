"""What a neuron with several states is: the spiking part that it shares with `lif`, and what it has beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import neuron as neurons
from deal_kernels._common.checks import number
from deal_kernels._common.neuron import Neuron, neuron_and_tensors, refuse_unknown
from deal_kernels._common.types import Number

# The states of each model, in the order of the kernels.
STATES = {"cuba": ("v", "i"), "alif": ("v", "a"), "lsnn": ("v", "i", "b"), "clif": ("v", "m")}
MOST_STATES, MOST_PARAMETERS = 3, 5
RESETS = ("auto", "hard", "soft", "none")

Window = tuple[float, float]


class Multistate(NamedTuple):
    """A neuron without its tensors.

    The parameters are the threshold and the decay, whose numbers are in `cell`, and then those of `numbers`: of "cuba"
    the decay of the current; of "alif" the decay of the adaptation and its strength; of "lsnn" these three.
    """

    model: str
    cell: Neuron
    numbers: tuple[float, ...]
    window: Window | None  # of the membrane potential: outside of it the surrogate derivative is 0


SCHEMA = f"{neurons.SCHEMA}, str model, float[] numbers, float[]? window"
WIDTH = neurons.WIDTH + 3


def flat(n: Multistate) -> tuple[Any, ...]:
    """The arguments of SCHEMA."""
    return *neurons.flat(n.cell), n.model, n.numbers, n.window


def structured(arguments: tuple[Any, ...]) -> Multistate:
    """The neuron of arguments of SCHEMA."""
    *cell, model, numbers, window = arguments
    return Multistate(model, neurons.structured(tuple(cell)), tuple(numbers), None if window is None else (*window,))


def compiled(n: Multistate, *, learnt_decay: bool) -> dict[str, Any]:
    """The neuron as the fields of a compiled call."""
    low, high = n.window or (0.0, 0.0)
    fields = {f"number_{k}": value for k, value in enumerate(n.numbers, 2)}
    return fields | {
        "model": getattr(backends.extension().Model, n.model), "windowed": n.window is not None, "low": low,
        "high": high, "neuron": neurons.compiled(n.cell, learnt_decay=learnt_decay),
    }  # fmt: skip


def neuron_of(
    model: str, settings: dict[str, Any], others: dict[str, Number], window: Window | None = None
) -> tuple[Multistate, tuple[Tensor | None, ...]]:
    """The neuron, and the tensors among its parameters.

    Args:
        settings: of the spiking part, as `lif` takes them.
        others: the parameters beside decay and threshold, by name.
    """
    refuse_unknown(model, settings)
    cell, decay, threshold = neuron_and_tensors(settings)  # type: ignore[arg-type]
    tensors = tuple(value if isinstance(value, Tensor) else None for value in others.values())
    numbers = tuple(0.0 if isinstance(value, Tensor) else number(name, value) for name, value in others.items())
    return Multistate(model, cell, numbers, _checked(window)), (threshold, decay, *tensors)


def _checked(window: Window | None) -> Window | None:
    if window is None:
        return None
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise ValueError(f"window must be None or two numbers, (low, high); got {window!r}")
    low, high = number("window[0]", window[0]), number("window[1]", window[1])
    if low >= high:
        raise ValueError(f"window must have its low end below its high one; got {window!r}")
    return low, high
