"""The forward of one step as a graph, and where the states of its neurons come from and go to."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from deal_kernels.compat.fused import Fused
from deal_kernels.compat.handwritten import Handwritten
from deal_kernels.compat.steps import LAYERS, has_hooks, module_refusal
from deal_kernels.compat.swapping import adapter

FUNCTIONS = ("torch.", "_operator.", "math.", "getattr")  # the beginnings of their names
RANDOM = {
    "bernoulli", "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm",
}  # fmt: skip
NEEDS_VALUES = {"item", "tolist", "numpy"}


class Attribute(NamedTuple):
    """An attribute of a module that keeps a state from step to step."""

    owner: nn.Module
    name: str


class NeuronCall(NamedTuple):
    """How the step calls a neuron.

    Args:
        states: for each state that it is given, the argument of forward or the attribute that has it; empty if it keeps
            its states itself.
        record: whether the step uses its states over time.
    """

    states: tuple[fx.Node | Attribute, ...]
    record: bool


class Plan(NamedTuple):
    """The graph of a step.

    Args:
        inputs: names of the arguments that are inputs, not states.
        constants: tensors that forward makes, by the name that the graph has for them.
    """

    graph: fx.Graph
    neurons: Mapping[fx.Node, NeuronCall]
    inputs: frozenset[str]
    constants: Mapping[str, torch.Tensor]


def is_neuron(module: nn.Module, own: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is a neuron of a library, or of one of the caller's own classes."""
    return type(module) in own or isinstance(module, Fused) or adapter(type(module)) != (None, None)


def takes_all_steps(neuron: nn.Module) -> bool:
    """Whether a neuron of SpikingJelly or Norse, or of a public network, is one that takes [T, ...]."""
    names = {(base.__module__.split(".")[0], base.__name__) for base in type(neuron).__mro__}
    sequence = {("norse", "SNN"), ("norse", "SNNRecurrent")} & names
    multi_step = any(library == "spikingjelly" and name.startswith("MultiStep") for library, name in names)
    own = isinstance(neuron, Handwritten)
    return own or bool(sequence) or multi_step or getattr(neuron, "step_mode", "s") != "s"


class _Tracer(fx.Tracer):
    def __init__(self, own: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.own = own

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = is_neuron(m, self.own) or isinstance(m, LAYERS) or type(m).__module__.startswith("spikingjelly")
        leaf = known or super().is_leaf_module(m, module_qualified_name)
        if not leaf and has_hooks(m):
            raise ValueError(f"the hooks of {module_qualified_name} would not run")
        return leaf


def plan(module: nn.Module, own: tuple[type[nn.Module], ...]) -> Plan:
    """The plan of a module whose forward is one step."""
    before = [(each, place, dict(place)) for each in module.modules() for place in _places(each)]
    draws = torch.get_rng_state()
    try:
        graph = _Tracer(own).trace(module)
        written = dict(_changes(before))
    except Exception as error:
        raise ValueError(
            f"over_time cannot follow the forward of {type(module).__name__}: {error}. It needs the forward of one "
            "step, without a loop over time and without branches that depend on values"
        ) from error
    finally:
        for _, place, attributes in before:
            place.clear()
            place.update(attributes)
    if not torch.equal(draws, torch.get_rng_state()):
        raise ValueError("forward draws random numbers, which every step has its own of; draw them outside")
    constants = {each.name: value for each, value in written.items() if each.name.startswith("_tensor_constant")}
    states = {each: value for each, value in written.items() if each.name not in constants}
    return Planner(module, graph, states, own).plan(constants)


def _places(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Where a module keeps its attributes."""
    return vars(module), module._buffers, module._parameters


def _changes(before: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]]) -> Iterator[tuple[Attribute, Any]]:
    """The attributes that tracing set or changed, with their new values."""
    for module, place, attributes in before:
        for name, value in place.items():
            if name not in attributes or attributes[name] is not value:
                yield Attribute(module, name), value


class Planner:
    """Checks a graph, and finds the states of its neurons."""

    def __init__(
        self, module: nn.Module, graph: fx.Graph, written: Mapping[Attribute, Any], own: tuple[type[nn.Module], ...]
    ) -> None:
        self.module, self.graph, self.own = module, graph, own
        self.written: dict[fx.Node, Attribute] = {}
        for attribute, value in written.items():
            if not isinstance(value, fx.Proxy):
                raise ValueError(f"forward sets {self.name_of(attribute)}, which is no state of a neuron")
            self.written[value.node] = attribute

    def plan(self, constants: Mapping[str, torch.Tensor]) -> Plan:
        neurons: dict[fx.Node, NeuronCall] = {}
        for node in self.graph.nodes:
            if node.op == "call_module" and is_neuron(self.module.get_submodule(node.target), self.own):
                if any(node.target == other.target for other in neurons):
                    raise ValueError(
                        f"forward calls the neuron {node.target} more than once; it must compute one step, without the "
                        "loop over time"
                    )
                neurons[node] = self.neuron_call(node)
            else:
                self.check(node)
        kept = [self.name_of(attribute) for node, attribute in self.written.items() if not self.is_state(node, neurons)]
        if kept:
            raise ValueError(f"forward keeps {kept[0]} for the next step, and it is no state of a neuron")
        states = {_argument(each) for call in neurons.values() for each in call.states if isinstance(each, fx.Node)}
        inputs = {node.target for node in self.graph.nodes if node.op == "placeholder" and node not in states}
        return Plan(self.graph, neurons, frozenset(inputs), constants)

    def name_of(self, attribute: Attribute) -> str:
        owner = next(name for name, each in self.module.named_modules() if each is attribute.owner)
        return ".".join(["self", *filter(None, [owner]), attribute.name])

    def is_state(self, node: fx.Node, neurons: Mapping[fx.Node, NeuronCall]) -> bool:
        call = neurons.get(node.args[0]) if node.args else None  # type: ignore[arg-type]
        return node.target is operator.getitem and call is not None and self.written[node] in call.states

    def neuron_call(self, node: fx.Node) -> NeuronCall:
        neuron = self.module.get_submodule(node.target)  # type: ignore[arg-type]
        if takes_all_steps(neuron):
            raise ValueError(
                f"the neuron {node.target} takes all steps by itself; over_time needs one that takes a step, with "
                "step_mode='s' in SpikingJelly, a Cell in Norse"
            )
        _, *given = neuron_arguments(neuron, node.args, node.kwargs)
        items = {user.args[1]: user for user in node.users if user.target is operator.getitem}
        states = [self.source(node, each, items.get(k)) for k, each in enumerate(given, 1)]
        found = [each for each in states if each is not None]
        if len(found) < len([each for each in given if each is not None]) or len(found) not in (0, len(states)):
            raise ValueError(
                f"a state of the neuron {node.target} starts anew in every step, or is not returned; forward must take "
                "all of its states as arguments and return them, or keep them in attributes, or the neuron keeps them "
                "(init_hidden=True in snnTorch)"
            )
        passed_on = [isinstance(each, fx.Node) for each in found]
        record = any(self.needs_record(user, passed_on) for user in node.users)
        return NeuronCall(tuple(found), record)

    def source(self, node: fx.Node, given: Any, item: fx.Node | None) -> fx.Node | Attribute | None:
        """Where a state comes from at each step, if it is the neuron's own of the step before."""
        argument = _argument(given)
        if isinstance(given, fx.Node) and argument is not None:
            if list(given.users) != [node]:
                raise ValueError(
                    f"forward uses its argument {argument.target} elsewhere than as the state of the neuron "
                    f"{node.target}; a value of the step before may reach nothing else"
                )
            returned = any(user.op == "output" for user in [*node.users, *(item.users if item is not None else ())])
            return given if returned else None
        attribute = None if item is None else self.written.get(item)
        if attribute is None:
            return None
        kept = getattr(attribute.owner, attribute.name, None)
        same = self.fetched(given.target) is kept if isinstance(given, fx.Node) and given.op == "get_attr" else False
        if isinstance(given, fx.Node) and list(given.users) != [node]:
            raise ValueError(f"forward uses {self.name_of(attribute)} elsewhere than as the state of {node.target}")
        return attribute if same or (given is None and kept is None) else None

    def fetched(self, target: Any) -> Any:
        found: Any = self.module
        for part in target.split("."):
            found = getattr(found, part, None)
        return found

    @staticmethod
    def needs_record(user: fx.Node, passed_on: list[bool]) -> bool:
        """Whether a use of what the neuron returns needs its states over time.

        Args:
            passed_on: of each state, whether it is an argument of forward, which is returned as it is after the last
                step.
        """
        if user.target is not operator.getitem:
            return not (passed_on and all(passed_on))
        k: Any = user.args[1]
        last_is_enough = isinstance(k, int) and 0 < k <= len(passed_on) and passed_on[k - 1]
        return k != 0 and any(each.op != "output" or not last_is_enough for each in user.users)

    def check(self, node: fx.Node) -> None:
        """Refuses what does not compute every step by itself."""
        if node.op == "call_module":
            reason = module_refusal(self.module.get_submodule(node.target))  # type: ignore[arg-type]
            if reason is not None:
                kind = type(self.module.get_submodule(node.target)).__name__  # type: ignore[arg-type]
                raise ValueError(f"over_time does not run {node.target}, a {kind}: {reason}")
        elif node.op in ("call_function", "call_method"):
            name = fx.node._get_qualified_name(node.target) if callable(node.target) else f"torch.{node.target}"
            short = name.rsplit(".", 1)[-1]
            if not name.startswith(FUNCTIONS) or short in RANDOM | NEEDS_VALUES:
                raise ValueError(f"over_time does not run {name}: its result may differ from step to step")
            if changes_in_place(node) and not self.intermediate(node.args[0]):
                raise ValueError(f"over_time does not run {name} on {node.args[0]}: it would change it at every step")

    def intermediate(self, value: Any) -> bool:
        return isinstance(value, fx.Node) and value.op in ("call_function", "call_method", "call_module")


def changes_in_place(node: fx.Node) -> bool:
    """Whether an operation changes its first argument."""
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name = getattr(node.target, "__name__", "")
    augmented: bool = getattr(node.target, "__module__", "") == "_operator" and name in INPLACE_OPERATORS
    return augmented or bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def _argument(value: Any) -> fx.Node | None:
    """The argument of forward that a state is, or is an item of."""
    while isinstance(value, fx.Node) and value.target is operator.getitem:
        value = value.args[0]
    return value if isinstance(value, fx.Node) and value.op == "placeholder" else None


INPLACE_OPERATORS = {
    "iadd", "iand", "ifloordiv", "imod", "imul", "ior", "ipow", "isub", "itruediv", "ixor", "setitem",
}  # fmt: skip


def neuron_arguments(neuron: nn.Module, args: Any, kwargs: Any) -> list[Any]:
    """The input and the states that a neuron is called with, in the order of its forward."""
    bound = inspect.signature(type(neuron).forward).bind(neuron, *args, **kwargs)
    return [*bound.args[1:], *bound.kwargs.values()]
