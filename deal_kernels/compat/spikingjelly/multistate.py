"""The fused forms of SpikingJelly's neurons with two states, by `deal_kernels.multistate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from deal_kernels.compat.fused import Fused, Run
from deal_kernels.compat.spikingjelly.standin.neurons import States
from deal_kernels.compat.spikingjelly.surrogates import spike_settings
from deal_kernels.compat.spikingjelly.swap import Node2
from deal_kernels.multistate import clif, cuba
from deal_kernels.surrogate import LeakyReLU


class TwoStateNode2(Node2):
    """A neuron whose states are v and another one."""

    constants: ClassVar[tuple[str, ...]]  # the attributes that the library's constructor takes as numbers

    def function(self) -> Callable[..., Any]:
        """The function that runs it over time."""
        raise NotImplementedError

    def fuses(self, x: Tensor) -> bool:
        return super().fuses(x) and all(type(getattr(self, name)) in (int, float) for name in self.constants)

    def run(self, x: Tensor, states: tuple[Any, ...], settings: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
        found: tuple[Tensor, tuple[Any, ...]] = self.function()(x, *states, return_state=True, **settings)
        return found

    def run_from_state(self, x: Tensor, *, record: bool) -> Tensor:
        entered = self.materialize_states((x,), tuple(self._memories.values()), "m")  # type: ignore[attr-defined]
        settings = self.settings()
        spikes, states = self.run(x, entered, settings)
        self._memories.update(zip(self._memories, states, strict=True))
        if record:
            self.v_seq = States(self.function(), x, entered, settings)
        return spikes

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        if not self.fuses(x):
            return None
        return super().all_steps(x, states, steps=steps, threaded=threaded, record=record)


class CurrentNode2(TwoStateNode2):
    """CUBALIFNode."""

    constants = ("c_decay", "v_decay", "v_threshold")

    def function(self) -> Callable[..., Any]:
        return cuba

    def charge(self) -> dict[str, Any]:
        return {"alpha": self.c_decay, "beta": self.v_decay}  # type: ignore[attr-defined]


class ComplementaryNode2(TwoStateNode2):
    """ComplementaryLIFNode. In evaluation no gradient passes through its spikes."""

    constants = ("tau", "v_threshold")
    store_state_seqs: bool

    def function(self) -> Callable[..., Any]:
        return clif

    @classmethod
    def note(cls, module: Any) -> str:
        return "its sigmoid may differ from torch's in the last bit"

    def fuses(self, x: Tensor) -> bool:
        return super().fuses(x) and self.tau >= 1  # type: ignore[attr-defined,no-any-return]

    def settings(self) -> dict[str, Any]:
        spike = spike_settings(self.surrogate_function, self.version)
        spike = spike if self.training else {**spike, "surrogate": LeakyReLU(0.0, 0.0), "fire": "ge"}
        return {"tau": self.tau, "v_threshold": self.v_threshold, **spike}  # type: ignore[attr-defined]

    def run(self, x: Tensor, states: tuple[Any, ...], settings: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
        spikes, states = super().run(x, states, settings)
        return spikes if self.training else spikes.detach(), states

    def multi_step_forward(self, x_seq: Tensor, *others: Any, **named: Any) -> Any:
        # The library's own, which has no v_seq but `state_seqs`. It calls one of the functional forms, which are fused.
        return super(Node2, self).multi_step_forward(x_seq, *others, **named)  # type: ignore[misc]

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        if self.store_state_seqs:
            return None
        return super().all_steps(x, states, steps=steps, threaded=threaded, record=record)


NEURONS = ()  # they are in the modules that `swap` of SpikingJelly names
_VARIANTS = "spikingjelly.activation_based.neuron.lif_variants."
ADAPTERS: dict[str, type[Fused]] = {
    f"{_VARIANTS}CUBALIFNode": CurrentNode2,
    f"{_VARIANTS}ComplementaryLIFNode": ComplementaryNode2,
}
