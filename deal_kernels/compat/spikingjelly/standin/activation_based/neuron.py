"""Neurons with the names and arguments of `spikingjelly.activation_based.neuron`, version 0.0.0.0.14.

>>> from deal_kernels.compat.spikingjelly.standin.activation_based.neuron import LIFNode
>>> node = LIFNode(v_threshold=0.15, decay_input=False, step_mode="m", backend="cupy")
>>> node(torch.randn(4, 2, 8)).shape, node.v.shape  # [T, B, C]
(torch.Size([4, 2, 8]), torch.Size([2, 8]))
"""

from __future__ import annotations

from typing import Any

from deal_kernels._common.types import Number
from deal_kernels.compat.spikingjelly.standin.memory import MemoryModule
from deal_kernels.compat.spikingjelly.standin.missing import missing
from deal_kernels.compat.spikingjelly.standin.neurons import (
    Node,
    Settings,
    above_one,
    decays_by_tau,
    decays_by_weight,
    weight_of,
)

__getattr__ = missing(
    "activation_based.neuron",
    "ActivationAwareIFNode AdaptBaseNode CUBALIFNode ComplementaryLIFNode EIFNode GatedLIFNode HalfThresholdIFNode "
    "ILIFNode IzhikevichNode KLIFNode LIAFNode MaskedPSN OTTTLIFNode PSN QIFNode SLTTLIFNode SlidingPSN "
    "TernaryIFNode TernaryLIFNode",
)


class BaseNode(Node, MemoryModule):
    """One time step [B, ...], or several, [T, B, ...], with step_mode "m"; then store_v_seq keeps the states, v_seq."""

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False, step_mode: str = "s", backend: str = "torch", store_v_seq: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self.step_mode = step_mode
        self.backend = backend
        self.store_v_seq = store_v_seq

    @property
    def store_v_seq(self) -> bool:
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, value: bool) -> None:
        self._store_v_seq = value
        if value and "v_seq" not in self._memories:
            self.register_memory("v_seq", None)

    def keeps_states(self) -> bool:
        return self.store_v_seq


class IFNode(BaseNode):
    """v + x."""

    def decays(self) -> Settings:
        return {"tau": None}


class LIFNode(BaseNode):
    """v + (x - (v - v_reset)) / tau; without decay_input, (v - (v - v_reset) / tau) + x."""

    def __init__(
        self, tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False, step_mode: str = "s", backend: str = "torch",
        store_v_seq: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.tau, self.decay_input = above_one("tau", tau), decay_input

    def decays(self) -> Settings:
        # In evaluation SpikingJelly rounds a hard reset to 0 like one to another value.
        shared = self.v_reset is None or (self.training and self.rests_at_zero)
        return decays_by_tau(self.tau, self.decay_input, shared)


class ParametricLIFNode(BaseNode):
    """`LIFNode` that learns tau = 1 / sigmoid(w)."""

    def __init__(
        self, init_tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False, step_mode: str = "s", backend: str = "torch",
        store_v_seq: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset, step_mode, backend, store_v_seq)
        self.w, self.decay_input = weight_of(init_tau), decay_input

    def decays(self) -> Settings:
        return decays_by_weight(self.w, self.decay_input, self.rests_at_zero)
