"""`over_time`: a network of one step, run layer by layer over all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from deal_kernels._common.checks import check_integer
from deal_kernels.compat.execution import Execution
from deal_kernels.compat.swapping import swap
from deal_kernels.compat.tracing import Plan, plan


def over_time(module: nn.Module, neurons: Sequence[type[nn.Module]] = (), exact: bool = False) -> nn.Module:
    """Makes a network that computes one step into one that computes all steps, layer by layer.

    A loop over time calls every layer T times. The network that this returns gives what the loop gives,
    ``torch.stack([module(x[t]) for t in range(T)])``. But it runs a layer without state once, on all steps together,
    and a neuron once over time: in the fused kernel if `swap` knows it, which this calls, and step by step if not. It
    has the same parameters.

    The module is an nn.Sequential, a network of your own whose forward computes one step, or Norse's SequentialState.
    The states of its neurons are kept from step to step in one of three ways:

    * In the neurons: snnTorch's with init_hidden=True, and SpikingJelly's.
    * In attributes: ``spikes, self.mem = self.lif(self.fc(x), self.mem)``.
    * By the caller: ``forward(self, x, mem)`` gives mem to a neuron and returns its new one. Then the call returns mem
      after the last step; all other results are [T, ...].

    A forward with the loop in it, ``for t in range(25): spikes, mem = self.lif(self.fc(x), mem)``, has to be written
    as one step first, as below. Also refused, each by its name, are recurrence, where anything else than a neuron's own
    state reaches the next step; branches that depend on values; and layers that are not known to compute every sample
    by itself. Batch norm that takes statistics, and layers with hooks, are called step by step. Dropout draws other
    masks than the loop would, one for every step as there.

    Args:
        module: a network of one step.
        neurons: classes of your own that have a state. They are called step by step.
        exact: calls all layers step by step, except the fused neurons. Without it, results can differ from those of the
            loop in the last bit where a library's result for one sample depends on the size of the batch, as matrix
            products do on several threads and for a batch of 1. A part of the gain is lost.

    Returns:
        A module with ``forward(x, *states, steps=None)``. x, and every other input, is [T, B, ...]; or [B, ...] with
        ``steps``, if it is held for all steps.

    >>> import torch
    >>> class Leaky(nn.Module):
    ...     def forward(self, x, mem):
    ...         mem = 0.9 * mem + x
    ...         spikes = (mem > 1).float()
    ...         return spikes, mem - spikes
    >>> class Network(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc, self.lif = nn.Linear(8, 4), Leaky()
    ...     def forward(self, x, mem):  # one step
    ...         return self.lif(self.fc(x), mem)
    >>> network = over_time(Network(), neurons=[Leaky])
    >>> spikes, mem = network(torch.randn(25, 2, 8), torch.zeros(2, 4))
    >>> spikes.shape, mem.shape
    (torch.Size([25, 2, 4]), torch.Size([2, 4]))
    >>> spikes, mem = network(torch.randn(2, 8), torch.zeros(2, 4), steps=25)  # one input, held for 25 steps

    Layers of this package take all steps anyway; this brings the others to them:

    >>> from deal_kernels.lif import LIF
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), LIF(), nn.Flatten(), nn.Linear(144, 10), LIF())
    >>> over_time(network)(torch.randn(16, 2, 1, 8, 8)).shape
    torch.Size([16, 2, 10])
    """
    swap(module)
    if _is_sequential_state(module):
        return SequentialOverTime(module, tuple(neurons), exact)
    return OverTime(module, tuple(neurons), exact)


class OverTime(nn.Module):
    """What `over_time` returns."""

    def __init__(self, module: nn.Module, neurons: tuple[type[nn.Module], ...], exact: bool) -> None:
        super().__init__()
        self.module, self.neurons, self.exact = module, neurons, exact
        self._plans: dict[tuple[bool, ...], Plan] = {}
        self.plan()

    def plan(self) -> Plan:
        """The plan of the module in its present mode: its forward may have branches for training."""
        key = tuple(each.training for each in self.module.modules())
        if key not in self._plans:
            self._plans[key] = plan(self.module, self.neurons)
        return self._plans[key]

    def forward(self, *inputs: Any, steps: int | None = None) -> Any:
        if steps is not None:
            check_integer("steps", steps, 1)
        return Execution(self.module, self.plan(), steps, self.exact)(inputs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}


class SequentialOverTime(OverTime):
    """What `over_time` returns for Norse's SequentialState. Its state is a list, as there."""

    def __init__(self, module: nn.Module, neurons: tuple[type[nn.Module], ...], exact: bool) -> None:
        super().__init__(_Unrolled(module), neurons, exact)

    def forward(self, *inputs: Any, steps: int | None = None) -> Any:
        """The results [T, ...] of x and the list of states, if it is given, and the states after the last step."""
        x, state = (*inputs, None)[:2]
        state = _no_states(self.module.module) if state is None else state
        y, state[:] = super().forward(x, state, steps=steps)
        return y, state


class _Unrolled(nn.Module):
    """A SequentialState as a step that is given its states and returns new ones."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, states: Any) -> Any:
        return _unrolled(self.module, x, states)


def _unrolled(module: Any, x: Any, states: Any) -> tuple[Any, list[Any]]:
    hidden, after = [], []
    for k, layer in enumerate(module):
        state = None
        if _is_sequential_state(layer):
            x, state = _unrolled(layer, x, states[k])
        elif module.stateful_layers[k]:
            x, state = layer(x, states[k])
        else:
            x = layer(x)
        after.append(state)
        hidden.append(x)
    return hidden if module.return_hidden else x, after


def _is_sequential_state(module: nn.Module) -> bool:
    kind = type(module)
    return (kind.__module__, kind.__name__) == ("norse.torch.module.sequential", "SequentialState")


def _no_states(module: Any) -> list[Any]:
    return [_no_states(layer) if _is_sequential_state(layer) else None for layer in module]
