"""Neurons of your own: a step written in torch, run over time without keeping its intermediate values.

>>> import torch
>>> from deal_kernels import surrogate
>>> from deal_kernels.neuron import neuron
>>> spike = surrogate.ATan().spike
>>> @neuron(compiled=False)
... def two_currents(x, state):
...     v, i = state
...     i = 0.9 * i + x
...     v = 0.8 * v + i
...     s = spike(v - 1.0)
...     return s, (v - s, i)
>>> x = torch.randn(16, 2, 8, requires_grad=True)  # [T, B, C]
>>> spikes, (v, i) = two_currents(x, (torch.zeros(2, 8), torch.zeros(2, 8)))
>>> spikes.shape, v.shape
(torch.Size([16, 2, 8]), torch.Size([2, 8]))
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from deal_kernels._common.checks import check_integer

__all__ = ["Neuron", "neuron"]

State = TypeVar("State", bound=Tensor | tuple[Tensor, ...])
Step = Callable[[Tensor, State], tuple[Tensor, State]]


class Neuron:
    """A step that is run over time, made by `neuron`."""

    def __init__(self, step: Step[Any], *, steps_at_once: int, compiled: bool) -> None:
        check_integer("steps_at_once", steps_at_once, 1)
        self.step, self.steps_at_once, self.compiled = step, steps_at_once, compiled
        run_steps = _with_code_of_its_own(_run_steps)
        self._compiled_steps = torch.compile(run_steps, fullgraph=True) if compiled else _run_steps
        self.name = getattr(step, "__name__", type(step).__name__)
        functools.update_wrapper(self, step, updated=())

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The spikes [T, ...] of the input x [T, ...], and the state after the last step.

        The gradients are those of the loop over the steps: for x, the state, and every parameter that the step uses.
        """
        if x.dim() == 0 or x.shape[0] == 0:
            raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")
        spikes = []
        for part in x.split(self.steps_at_once):
            some, state = self._part(part, state)
            spikes.append(some)
        return spikes[0] if len(spikes) == 1 else torch.cat(spikes), state

    def _part(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if not torch.is_grad_enabled():
            return self._run(x, state)
        # Tensors that are arguments of their own are saved as autograd saves them: hooks and checks see the state, too.
        leaves, structure = tree_flatten(state)
        found: tuple[Tensor, Any] = checkpoint(
            lambda x, *leaves: self._run(x, tree_unflatten(leaves, structure)), x, *leaves, use_reentrant=False
        )
        return found

    def _run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.compiled:
            try:
                return self._compiled_steps(self.step, x, state)
            except torch._dynamo.exc.TorchDynamoException as error:
                # A mistake in the step raises again below, without the compiler around it.
                result = _run_steps(self.step, x, state)
                self.compiled = False
                cause = str(error).strip().splitlines()[0]
                warnings.warn(f"the neuron {self.name} is not compiled, and slower: {cause}", stacklevel=4)
                return result
        return _run_steps(self.step, x, state)


def _run_steps(step: Step[State], x: Tensor, state: State) -> tuple[Tensor, State]:
    spikes = []
    for current in x.unbind(0):
        s, state = step(current, state)
        spikes.append(s)
    return torch.stack(spikes), state


def _with_code_of_its_own(function: Any) -> Any:
    """A copy of the function. The compiler counts recompilations by code object and stops after a few of them, so
    neurons must not share one."""
    return types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


@overload
def neuron(step: Step[Any], *, steps_at_once: int = 8, compiled: bool = True) -> Neuron: ...
@overload
def neuron(step: None = None, *, steps_at_once: int = 8, compiled: bool = True) -> Callable[[Step[Any]], Neuron]: ...
def neuron(
    step: Step[Any] | None = None, *, steps_at_once: int = 8, compiled: bool = True
) -> Neuron | Callable[[Step[Any]], Neuron]:
    """Runs a step of your own over time; a function or a decorator.

    In training it keeps x and the state before every eighth step. The backward pass computes the steps in between
    again, a part of the sequence at a time.

    Args:
        step: a function (x, state) -> (spikes, state) of one time step, in torch operations. The state is a tensor or a
            tuple of tensors. The step may be a module, and may use parameters from anywhere. Spikes with a surrogate
            gradient are those of `deal_kernels.surrogate.Surrogate.spike`.
        steps_at_once: steps that are recomputed, and compiled, together.
        compiled: compiles the steps with `torch.compile`, which fuses them into a few kernels. The first call takes
            some seconds. Where there is no compiler, or the step cannot be compiled, it runs as it is, with a warning.

    >>> from deal_kernels import surrogate
    >>> @neuron(steps_at_once=4, compiled=False)
    ... def leaky(x, v):
    ...     v = v + (x - v) / 2.0
    ...     s = surrogate.Sigmoid().spike(v - 1.0)
    ...     return s, v * (1 - s)
    >>> leaky(torch.ones(6, 3), torch.zeros(3))[0].shape
    torch.Size([6, 3])
    """
    if step is None:
        return functools.partial(Neuron, steps_at_once=steps_at_once, compiled=compiled)
    return Neuron(step, steps_at_once=steps_at_once, compiled=compiled)
