"""Neurons with the names and arguments of `spikingjelly.cext.neuron`, as it was in 2021.

>>> from deal_kernels.compat.spikingjelly.standin.cext.neuron import MultiStepIFNode
>>> MultiStepIFNode(detach_reset=True)(torch.randn(4, 2, 8)).shape  # [T, B, C]
torch.Size([4, 2, 8])
"""

from __future__ import annotations

from torch import Tensor, nn

from deal_kernels._common.checks import one_of
from deal_kernels._common.types import Number
from deal_kernels.compat.spikingjelly.standin import surrogates
from deal_kernels.compat.spikingjelly.standin.missing import missing
from deal_kernels.compat.spikingjelly.standin.neurons import Node, Settings, above_one, decays_by_weight, weight_of

__getattr__ = missing("cext.neuron", "MultiStepOneSpikeIFNode OneSpikeIFNode")

SURROGATES = {"ATan": surrogates.ATan, "Sigmoid": surrogates.Sigmoid}


class BaseNode(Node):
    """One time step [B, ...]. The surrogate function is "ATan" or "Sigmoid", of sharpness alpha."""

    def __init__(
        self, v_threshold: Number = 1.0, v_reset: float | None = 0.0, surrogate_function: str = "ATan",
        alpha: float = 2.0, detach_reset: bool = False,
    ) -> None:  # fmt: skip
        one_of("surrogate_function", surrogate_function, tuple(SURROGATES))
        super().__init__(v_threshold, v_reset, SURROGATES[surrogate_function](alpha), detach_reset)

    def forward(self, x: Tensor) -> Tensor:
        return self.single_step_forward(x)


class _MultiStep(BaseNode):
    """Several time steps, [T, B, ...]."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.multi_step_forward(x_seq)


class IFNode(BaseNode):
    """v + x."""

    def decays(self) -> Settings:
        return {"tau": None}


class MultiStepIFNode(_MultiStep, IFNode):
    """`IFNode` over several time steps."""


class LIFNode(BaseNode):
    """v + (x - (v - v_reset)) / tau; with detach_input, (v - (v - v_reset) / tau) + x."""

    def __init__(
        self, tau: float = 100.0, detach_input: bool = False, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
        surrogate_function: str = "ATan", alpha: float = 2.0, detach_reset: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, alpha, detach_reset)
        self.tau, self.detach_input = above_one("tau", tau), detach_input

    def decays(self) -> Settings:
        return {"rate": 1 / self.tau, "decay_input": not self.detach_input}


class MultiStepLIFNode(_MultiStep, LIFNode):
    """`LIFNode` over several time steps."""


class ParametricLIFNode(BaseNode):
    """`LIFNode` that learns tau = 1 / sigmoid(w)."""

    def __init__(
        self, init_tau: float = 2.0, detach_input: bool = False, v_threshold: Number = 1.0,
        v_reset: float | None = 0.0, surrogate_function: str = "ATan", alpha: float = 2.0, detach_reset: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, alpha, detach_reset)
        self.w, self.detach_input = nn.Parameter(weight_of(init_tau).detach().reshape(1)), detach_input

    def decays(self) -> Settings:
        return decays_by_weight(self.w, not self.detach_input, shared=False)


class MultiStepParametricLIFNode(_MultiStep, ParametricLIFNode):
    """`ParametricLIFNode` over several time steps."""
