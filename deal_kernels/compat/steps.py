"""Values over time, and how one operation or neuron of a step runs on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from deal_kernels.compat.fused import Fused, Run
from deal_kernels.lif import LIF
from deal_kernels.tdbn import TDBatchNorm2d

# Files of torch.nn whose modules compute each sample by itself and have no state.
PURE = {
    f"torch.nn.modules.{name}"
    for name in (
        "activation", "channelshuffle", "conv", "distance", "dropout", "flatten", "fold", "linear", "normalization",
        "padding", "pixelshuffle", "pooling", "sparse", "upsampling",
    )
}  # fmt: skip
# Their results do not depend on how many leading dimensions there are.
ANY_RANK = (
    nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid,
    nn.Softplus, nn.Softsign, nn.Threshold, nn.Dropout, nn.Embedding,
)  # fmt: skip
LAYERS = (LIF, TDBatchNorm2d)  # of this package: they take all steps


class Timed:
    """A value that every step has its own of, as one tensor [T, ...]."""

    def __init__(self, every: Tensor) -> None:
        self.every = every


class State:
    """A state that a neuron returns.

    Args:
        record: its values over time, for use in the step itself; None if nothing uses them.
        returned: what the network returns for it.
    """

    def __init__(self, record: Any, returned: Any) -> None:
        self.record, self.returned = record, returned


def module_refusal(module: nn.Module) -> str | None:
    """Why a module other than a neuron cannot run over time; None if it can."""
    kind = type(module)
    if isinstance(module, LIF):
        neuron = module.neuron
        plain = neuron["steps"] is neuron["reduce"] is None and not neuron["pack"] and not module.return_state
        usual = neuron["time_axis"] == 0 and neuron["channel_axis"] is module.flattened_steps is None
        return None if plain and usual else "it returns no plain spikes over time"
    if kind.__module__.startswith("spikingjelly") and getattr(module, "step_mode", "s") != "s":
        return "step_mode='m' takes all steps by itself; over_time needs step_mode='s'"
    if isinstance(module, (*LAYERS, _NormBase)) or has_memory(module):
        return None
    if _of_torch(kind) is None:
        return "it is not known to compute every sample by itself"
    return None


def _of_torch(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The class of torch.nn that a class is, or is in SpikingJelly's single-step mode; None if it is none of PURE."""
    if kind.__module__.startswith("spikingjelly") and ".layer" in kind.__module__:
        kind = next((base for base in kind.__mro__ if base.__module__ in PURE), kind)
    known = kind.__module__ in PURE and kind is not nn.MultiheadAttention
    return kind if known else None


def has_memory(module: nn.Module) -> bool:
    """Whether a module other than a neuron is one of SpikingJelly with a state, such as the mask of its dropout."""
    return type(module).__module__.startswith("spikingjelly") and hasattr(module, "reset")


def has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def run_module(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], exact: bool) -> Any:
    """A module that is no neuron, on values over time."""
    if isinstance(module, LAYERS):
        args, kwargs = pytree.tree_map(lambda each: each.every if isinstance(each, Timed) else each, (args, kwargs))
        return Timed(module(*args, **kwargs))
    one_by_one = has_hooks(module) or has_memory(module) or takes_statistics(module)
    if getattr(module, "inplace", False) and not one_by_one:
        return _at_once(module, args, kwargs)
    if exact or one_by_one:
        return step_by_step(module, args, kwargs)
    return _at_once(module, args, kwargs)


def takes_statistics(module: nn.Module) -> bool:
    """Whether a norm uses or updates the statistics of the batch, which every step has its own of."""
    return isinstance(module, _NormBase) and (module.training or module.running_mean is None)


def differs_by_step(module: nn.Module) -> bool:
    """Whether calls with the same input do not give the same each time, or change something."""
    random = isinstance(module, (_DropoutNd, nn.RReLU)) and module.training
    stateful = isinstance(module, LAYERS) or has_memory(module) or takes_statistics(module)
    return random or stateful or has_hooks(module)


def _at_once(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not kwargs:
        x = args[0].every
        if isinstance(module, ANY_RANK):
            return Timed(module(x))
        if batched_rank(module, x.dim() - 1):
            return Timed(module(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    return vectorised(module, args, kwargs)


def batched_rank(module: nn.Module, rank: int) -> bool:
    """Whether an input of this rank is a batch for a norm, or for a module whose name tells its dimensions."""
    if isinstance(module, (nn.GroupNorm, nn.BatchNorm1d)):
        return True
    dimensions = [digit for digit in "123" if f"{digit}d" in type(module).__name__]
    return len(dimensions) == 1 and rank == int(dimensions[0]) + 2


def vectorised(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A function of one step, on all steps by `torch.vmap`."""
    leaves, places, tree = _flat(args, kwargs)

    def step(*values: Tensor) -> Any:
        return _called(function, leaves, places, tree, values)

    found = torch.vmap(step, randomness="different")(*[leaves[k].every for k in places])
    return pytree.tree_map(Timed, found)


def step_by_step(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A function of one step, called for every step."""
    leaves, places, tree = _flat(args, kwargs)
    steps = zip(*[leaves[k].every.unbind(0) for k in places], strict=True)
    return stacked([_called(function, leaves, places, tree, values) for values in steps])


def first_step(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A function of one step whose result is the same for all of them, such as the size of a tensor."""
    leaves, places, tree = _flat(args, kwargs)
    return _called(function, leaves, places, tree, [leaves[k].every[0] for k in places])


def is_timed(args: Any, kwargs: Any) -> bool:
    return bool(_flat(args, kwargs)[1])


def _flat(args: Any, kwargs: Any) -> tuple[list[Any], list[int], Any]:
    """The arguments as a list, the places of those over time, and the structure they had."""
    leaves, tree = pytree.tree_flatten((args, kwargs))
    return leaves, [k for k, leaf in enumerate(leaves) if isinstance(leaf, Timed)], tree


def _called(function: Callable[..., Any], leaves: list[Any], places: list[int], tree: Any, values: Any) -> Any:
    found = list(leaves)
    for k, value in zip(places, values, strict=True):
        found[k] = value
    args, kwargs = pytree.tree_unflatten(found, tree)
    return function(*args, **kwargs)


def stacked(results: list[Any]) -> Any:
    """The results of all steps as one value over time, with the structure of each."""
    return pytree.tree_map(
        lambda *each: Timed(torch.stack(each)) if isinstance(each[0], Tensor) else each[0], results[0], *results[1:]
    )


def run_neuron(
    neuron: nn.Module, x: Any, states: tuple[Any, ...], length: int, *, threaded: bool, record: bool
) -> Run:  # fmt: skip
    """All steps of a neuron.

    Args:
        x: a `Timed` value, or a tensor that is held for all steps.
        states: what the neuron gets beside x, in the first step.
        length: the number of steps.
        threaded: whether each step gets the states that the last one returned.
        record: whether the states after every step are needed.
    """
    timed = isinstance(x, Timed)
    if isinstance(neuron, Fused) and not has_hooks(neuron):
        found = neuron.all_steps(
            x.every if timed else x, states, steps=None if timed else length, threaded=threaded, record=record
        )
        if found is not None:
            return found
    spikes, record_of_states = [], []
    for current in x.every.unbind(0) if timed else [x] * length:
        result = neuron(current, *states)
        spike, *after = result if isinstance(result, tuple) else (result,)
        spikes.append(spike)
        states = tuple(after) if threaded else states
        record_of_states.append(tuple(after) if record else ())
    over_time = pytree.tree_map(lambda *each: torch.stack(each), record_of_states[0], *record_of_states[1:])
    return Run(torch.stack(spikes), tuple(after), over_time)
