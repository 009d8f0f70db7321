"""Modules with a state: memories that reset() restores, the step mode, the backend."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deal_kernels._common.checks import one_of

# The names that SpikingJelly has for the ways to compute the same neuron. Here each means that the library chooses.
BACKENDS = ("torch", "cupy", "triton", "auto")


class StepModule:
    """A module that takes one time step, step_mode "s", or several, "m"."""

    def supported_step_mode(self) -> tuple[str, ...]:
        return "s", "m"

    @property
    def step_mode(self) -> str:
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        one_of("step_mode", value, self.supported_step_mode())
        self._step_mode = value


class SingleModule(StepModule):
    """A module that takes one time step."""

    def supported_step_mode(self) -> tuple[str, ...]:
        return ("s",)


class MultiStepModule(StepModule):
    """A module that takes several time steps."""

    def supported_step_mode(self) -> tuple[str, ...]:
        return ("m",)


class KeepsStepModes(nn.Module):
    """A container whose modules keep their step modes when that of the network is set."""


class Deferred(abc.ABC):
    """The value of a memory that is computed when it is asked for."""

    @abc.abstractmethod
    def compute(self) -> Tensor: ...

    @abc.abstractmethod
    def detached(self) -> Deferred: ...


class Memory(nn.Module):
    """A module with memories: attributes that reset() restores and that are no part of the state_dict.

    A copy, also by pickle, has the memories without their gradients, and not those that were not yet computed.
    """

    supported_backends: ClassVar[tuple[str, ...]] = BACKENDS
    _memories: dict[str, Any]
    _memories_rv: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._memories, self._memories_rv = {}, {}
        self._backend = "torch"

    @property
    def backend(self) -> str:
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        one_of("backend", value, self.supported_backends)
        self._backend = value

    def register_memory(self, name: str, value: Any) -> None:
        """Adds an attribute that reset() sets to this value."""
        if hasattr(self, name):
            raise ValueError(f"{type(self).__name__} already has an attribute {name!r}")
        self._memories[name] = value
        self.set_reset_value(name, value)

    def set_reset_value(self, name: str, value: Any) -> None:
        self._memories_rv[name] = copy.deepcopy(value)

    def reset(self) -> None:
        """Sets all memories to the values they were registered with."""
        for name in self._memories:
            self._memories[name] = copy.deepcopy(self._memories_rv[name])

    def detach(self) -> None:
        """Keeps the memories but cuts their gradients."""
        for name, value in self._memories.items():
            if isinstance(value, Tensor):
                self._memories[name] = value.detach()
            elif isinstance(value, Deferred):
                self._memories[name] = value.detached()

    def memories(self) -> Iterator[Any]:
        for name in self._memories:
            yield getattr(self, name)

    def named_memories(self) -> Iterator[tuple[str, Any]]:
        for name in self._memories:
            yield name, getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        memories = self.__dict__.get("_memories", {})
        if name not in memories:
            return super().__getattr__(name)
        if isinstance(memories[name], Deferred):
            memories[name] = memories[name].compute()
        return memories[name]

    def __setattr__(self, name: str, value: Any) -> None:
        memories = self.__dict__.get("_memories", {})
        if name in memories:
            memories[name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._memories:
            del self._memories[name], self._memories_rv[name]
        else:
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._memories})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for values in (self._memories, self._memories_rv):
            for name, value in values.items():
                value = value.compute() if isinstance(value, Deferred) else value
                values[name] = fn(value) if isinstance(value, Tensor) else value
        return super()._apply(fn, recurse)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__["_memories"] = dict(self._memories)
        return replica

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: _without_gradient(value) for name, value in self._memories.items()}
        return self.__dict__ | {"_memories": kept}


def _without_gradient(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else None if isinstance(value, Deferred) else value


class MemoryModule(Memory, StepModule):
    """A module with memories and a step mode. A subclass defines single_step_forward."""

    def __init__(self) -> None:
        super().__init__()
        self.step_mode = "s"

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define single_step_forward")

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.stack([self.single_step_forward(x, *args, **kwargs) for x in x_seq])

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        run = self.single_step_forward if self.step_mode == "s" else self.multi_step_forward
        return run(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"step_mode={self.step_mode}, backend={self.backend}"
