"""Neurons with the names and arguments of `spikingjelly.clock_driven.neuron`, version 0.0.0.0.12.

>>> from deal_kernels.compat.spikingjelly.standin.clock_driven.neuron import MultiStepLIFNode
>>> node = MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy")
>>> node(torch.randn(4, 2, 8)).shape, node.v_seq.shape  # [T, B, C]
(torch.Size([4, 2, 8]), torch.Size([4, 2, 8]))
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deal_kernels._common.checks import one_of
from deal_kernels._common.types import Number
from deal_kernels.compat.spikingjelly.standin.memory import BACKENDS
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
    "clock_driven.neuron",
    "AdaptiveBaseNode EIFNode GeneralNode LIAFNode MultiStepEIFNode MultiStepGeneralNode QIFNode",
)


def check_backend(backend: str) -> None:
    """Raises if there is no such backend."""
    one_of("backend", backend, BACKENDS)


class BaseNode(Node):
    """One time step [B, ...]. reset() also restores v_threshold and v_reset."""

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        for name in ("v_threshold", "v_reset"):
            self.register_memory(name, self.__dict__.pop(name))

    def forward(self, x: Tensor) -> Tensor:
        return self.single_step_forward(x)


class _MultiStep(BaseNode):
    """Several time steps, [T, ...]. The states after every step are v_seq."""

    def _accept(self, backend: str) -> None:
        self.register_memory("v_seq", None)
        self.backend = backend

    def forward(self, x_seq: Tensor) -> Tensor:
        if x_seq.dim() < 2:
            raise ValueError(f"x_seq must be [T, B, ...]; got the shape {tuple(x_seq.shape)}")
        return self.multi_step_forward(x_seq)


class IFNode(BaseNode):
    """v + x."""

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False, cupy_fp32_inference: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)

    def decays(self) -> Settings:
        return {"tau": None}


class MultiStepIFNode(_MultiStep, IFNode):
    """`IFNode` over several time steps."""

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = None,
        detach_reset: bool = False, backend: str = "torch", lava_s_cale: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self._accept(backend)


class LIFNode(BaseNode):
    """v + (x - (v - v_reset)) / tau; without decay_input, (v - (v - v_reset) / tau) + x."""

    def __init__(
        self, tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False, cupy_fp32_inference: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self.tau, self.decay_input = above_one("tau", tau), decay_input

    def decays(self) -> Settings:
        return decays_by_tau(self.tau, self.decay_input, self.rests_at_zero)


class MultiStepLIFNode(_MultiStep, LIFNode):
    """`LIFNode` over several time steps."""

    def __init__(
        self, tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False, backend: str = "torch", lava_s_cale: int = 64,
    ) -> None:  # fmt: skip
        super().__init__(tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset)
        self._accept(backend)


class ParametricLIFNode(BaseNode):
    """`LIFNode` that learns tau = 1 / sigmoid(w)."""

    def __init__(
        self, init_tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self.w, self.decay_input = weight_of(init_tau), decay_input

    def decays(self) -> Settings:
        return decays_by_weight(self.w, self.decay_input, self.rests_at_zero)


class MultiStepParametricLIFNode(_MultiStep, ParametricLIFNode):
    """`ParametricLIFNode` over several time steps."""

    def __init__(
        self, init_tau: float = 2.0, decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: Any = None, detach_reset: bool = False, backend: str = "torch",
    ) -> None:  # fmt: skip
        super().__init__(init_tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset)
        self._accept(backend)
