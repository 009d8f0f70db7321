"""The fused forms of SpikingJelly's parallel neurons, by `deal_kernels.psn`: all steps at once.

A single step of MaskedPSN and SlidingPSN is the library's own. It adds the products in another order than all steps do.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deal_kernels.compat.fused import Fused
from deal_kernels.compat.spikingjelly import surrogates
from deal_kernels.psn import psn, sliding_psn


class Parallel2(Fused):
    """A parallel neuron of SpikingJelly 2."""

    # Attributes of the library's class.
    surrogate_function: Any
    weight: Tensor
    bias: Tensor

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        refused = surrogates.refusal(module.surrogate_function)
        if refused is None and not spikes_at_the_threshold(module.surrogate_function):
            return f"its surrogate function {module.surrogate_function} does not fire at its threshold"
        return refused

    def fuses(self, x_seq: Tensor) -> bool:
        """Whether this input runs fused. The library takes no input of another dtype than its weights."""
        function = self.surrogate_function
        fits = x_seq.dim() > 1 and len(x_seq) > 0 and x_seq.dtype == self.weight.dtype
        return fits and getattr(function, "spiking", True) and spikes_at_the_threshold(function)

    def spike(self) -> Any:
        """The surrogate of `psn`."""
        return surrogates.spike_settings(self.surrogate_function, 2)["surrogate"]

    def run(self, x_seq: Tensor) -> Tensor:
        """The spikes of x_seq [T, N, ...]."""
        return psn(x_seq, self.weight, self.bias, surrogate=self.spike())


class ParallelNode2(Parallel2):
    """PSN, which keeps no state."""

    T: int

    def forward(self, x_seq: Tensor) -> Tensor:
        if not self.fuses(x_seq):
            return super().forward(x_seq)  # type: ignore[misc,no-any-return]
        return self.run(x_seq)

    def fuses(self, x_seq: Tensor) -> bool:
        return super().fuses(x_seq) and len(x_seq) == self.T


class SlidingNode2(Parallel2):
    """SlidingPSN."""

    @classmethod
    def note(cls, module: Any) -> str:
        return "its single steps are the library's own"

    def multi_step_functional_forward(self, inputs: Any, states: Any, **named: Any) -> Any:
        if not self.fuses(inputs[0]):
            return super().multi_step_functional_forward(inputs, states, **named)  # type: ignore[misc]
        return (self.run(inputs[0]),), states

    def run(self, x_seq: Tensor) -> Tensor:
        return sliding_psn(x_seq, self.weight, self.bias, surrogate=self.spike())


class MaskedNode2(SlidingNode2):
    """MaskedPSN. Its weights are a band once lambda_ is 1; before, the library mixes them with all others."""

    T: int
    k: int
    lambda_: Tensor

    def fuses(self, x_seq: Tensor) -> bool:
        return super().fuses(x_seq) and len(x_seq) == self.T

    def run(self, x_seq: Tensor) -> Tensor:
        if self.lambda_ >= 1:
            return psn(x_seq, self.weight, self.bias, band=self.k, surrogate=self.spike())
        mixed = self.masked_weight()  # type: ignore[attr-defined]
        return psn(x_seq, mixed, self.bias, surrogate=self.spike())


def spikes_at_the_threshold(function: Any) -> bool:
    """Whether a spike function is 1 where the potential equals the threshold."""
    return surrogates.spike_settings(function, 2).get("fire", "ge") == "ge"


NEURONS = ()  # they are in the modules that `swap` of SpikingJelly names
_PSN = "spikingjelly.activation_based.neuron.psn."
ADAPTERS: dict[str, type[Fused]] = {
    f"{_PSN}PSN": ParallelNode2,
    f"{_PSN}MaskedPSN": MaskedNode2,
    f"{_PSN}SlidingPSN": SlidingNode2,
}
