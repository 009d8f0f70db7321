"""One run of a traced step over all steps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.nn import functional

from deal_kernels.compat.steps import (
    State,
    Timed,
    differs_by_step,
    first_step,
    has_hooks,
    is_timed,
    run_module,
    run_neuron,
    step_by_step,
    vectorised,
)
from deal_kernels.compat.tracing import Attribute, Plan, changes_in_place, neuron_arguments
from deal_kernels.lif import LIF, lif

# Methods and attributes of a tensor whose value all steps share.
SHARED = {
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "is_floating_point", "is_complex", "shape",
    "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad",
}  # fmt: skip


# Functions that draw a mask, which every step has its own of.
MASKS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout",
    "rrelu",
}  # fmt: skip


class Execution:
    """A run of a plan. A value in it is a `Timed`, a `State`, or one that all steps share."""

    def __init__(self, module: nn.Module, plan: Plan, steps: int | None, exact: bool) -> None:
        self.module, self.plan, self.held, self.exact = module, plan, steps is not None, exact
        self.length = steps or 0

    def __call__(self, inputs: tuple[Any, ...]) -> Any:
        values: dict[fx.Node, Any] = {}
        uses = {node: len(node.users) for node in self.plan.graph.nodes}
        given = iter(inputs)
        for node in self.plan.graph.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            if node.op == "output":
                return pytree.tree_map(self.returned, args[0])
            values[node] = self.input(node, given) if node.op == "placeholder" else self.run(node, args, kwargs)
            for source in node.all_input_nodes:
                uses[source] -= 1
                if not uses[source]:
                    del values[source]
        raise AssertionError("a graph ends with its output")

    def input(self, node: fx.Node, given: Iterator[Any]) -> Any:
        try:
            value = next(given, *node.args)
        except StopIteration:
            raise TypeError(f"forward() misses the argument {node.target}") from None
        if node.target not in self.plan.inputs or self.held or not isinstance(value, Tensor):
            return value
        if value.dim() == 0 or not len(value) or self.length not in (0, len(value)):
            raise ValueError(
                f"{node.target} must be [T, ...], with one T of at least 1 for all inputs; got the shape "
                f"{tuple(value.shape)}"
            )
        self.length = len(value)
        return Timed(value)

    def returned(self, value: Any) -> Any:
        if isinstance(value, State):
            return pytree.tree_map(lambda each: each.every if isinstance(each, Timed) else each, value.returned)
        if isinstance(value, Timed):
            return value.every
        return value.expand(self.length, *value.shape) if isinstance(value, Tensor) else value

    def run(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node in self.plan.neurons:
            return self.neuron(node, args, kwargs)
        if node.op == "get_attr":
            return self.attribute(str(node.target))
        if node.target is operator.getitem and isinstance(args[0], (tuple, list, dict)):
            return args[0][args[1]]
        args, kwargs = pytree.tree_map(lambda each: each.record if isinstance(each, State) else each, (args, kwargs))
        if node.op == "call_module":
            return self.layer(self.module.get_submodule(str(node.target)), args, kwargs)
        return self.function(node, args, kwargs)

    def layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_timed(args, kwargs):
            if type(module) is LIF and not has_hooks(module):
                return Timed(module.run(lif, args[0], None, steps=self.length))
            if not differs_by_step(module):
                return module(*args, **kwargs)
            args, kwargs = self.timed(args, kwargs)
        return run_module(module, args, kwargs, self.exact)

    def timed(self, args: Any, kwargs: Any) -> Any:
        """The arguments with tensors that all steps share as values over time."""
        return pytree.tree_map(
            lambda each: Timed(each.expand(self.length, *each.shape)) if isinstance(each, Tensor) else each,
            (args, kwargs),
        )

    def function(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target: Any = node.target
        function: Callable[..., Any] = _method(target) if node.op == "call_method" else target
        if getattr(target, "__name__", "") in MASKS and not is_timed(args, kwargs):
            args, kwargs = self.timed(args, kwargs)
        if not is_timed(args, kwargs) or (target is getattr and not isinstance(args[0], Timed)):
            return function(*args, **kwargs)
        if (args[1] if target is getattr else target) in SHARED:
            return first_step(function, args, kwargs)
        if changes_in_place(node):
            return vectorised(function, args, kwargs)
        if self.exact:
            return step_by_step(function, args, kwargs)
        if target is functional.linear and not is_timed(args[1:], kwargs):
            return Timed(functional.linear(args[0].every, *args[1:], **kwargs))
        return vectorised(function, args, kwargs)

    def attribute(self, name: str) -> Any:
        if name in self.plan.constants:
            return self.plan.constants[name]
        found: Any = self.module
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def neuron(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        neuron, call = self.module.get_submodule(str(node.target)), self.plan.neurons[node]
        x, *given = neuron_arguments(neuron, args, kwargs)
        for k, source in enumerate(call.states):
            if isinstance(source, Attribute):
                given[k] = getattr(source.owner, source.name)
        run = run_neuron(
            neuron, x, tuple(given), self.length, threaded=bool(call.states), record=call.record
        )  # fmt: skip
        for source, state in zip(call.states, run.last, strict=False):
            if isinstance(source, Attribute):
                setattr(source.owner, source.name, state)
        if not run.last:
            return Timed(run.spikes)
        record = pytree.tree_map(Timed, run.record) or [None] * len(run.last)
        passed_on = [k < len(call.states) and isinstance(call.states[k], fx.Node) for k in range(len(run.last))]
        states = [
            State(over_time, last if passed else over_time)
            for over_time, last, passed in zip(record, run.last, passed_on, strict=True)
        ]
        return (Timed(run.spikes), *states)


def _method(name: str) -> Callable[..., Any]:
    return lambda tensor, *args, **kwargs: getattr(tensor, name)(*args, **kwargs)
