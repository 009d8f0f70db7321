"""The fused forms of SpikingJelly's neurons: their attributes as settings of `lif`, their state as its state.

There are four forms, one for each way in which the versions call a neuron. The charge is the same code for all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deal_kernels.compat.deferred import lif, like
from deal_kernels.compat.fused import Fused, Run
from deal_kernels.compat.spikingjelly.standin.neurons import States, decays_by_tau, decays_by_weight
from deal_kernels.compat.spikingjelly.surrogates import refusal, spike_settings
from deal_kernels.surrogate import LeakyReLU, Window


class Node(Fused):
    """A LIF, IF or ParametricLIF neuron."""

    version = 2
    # Attributes of the library's class.
    v: Any
    v_threshold: Any
    v_reset: float | None
    detach_reset: bool
    surrogate_function: Any
    training: bool
    _memories: dict[str, Any]

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        return refusal(module.surrogate_function)

    def runs_fused(self) -> bool:
        return self.surrogate_function.spiking if hasattr(self.surrogate_function, "spiking") else True

    def settings(self) -> dict[str, Any]:
        return {
            **self.charge(), **spike_settings(self.surrogate_function, self.version), "v_threshold": self.v_threshold,
            "v_reset": self.v_reset, "detach_reset": self.detach_reset,
        }  # fmt: skip

    def charge(self) -> dict[str, Any]:
        if "w" in self._parameters:  # type: ignore[attr-defined]
            return decays_by_weight(self.w, self.decay_input, self.keeps_a_share())  # type: ignore[attr-defined]
        if hasattr(self, "tau"):
            return decays_by_tau(self.tau, self.decay_input, self.keeps_a_share())  # type: ignore[attr-defined]
        return {"tau": None}

    def keeps_a_share(self) -> bool:
        """Whether a neuron whose input does not decay has the charge v (1 - 1 / tau) + x."""
        return False

    def start(self) -> float:
        """The state of a neuron that has seen nothing."""
        return 0.0 if self.v_reset is None else self.v_reset

    def entered(self, row: Tensor) -> Tensor | None:
        """The state before the next step, for `lif`. A step of another shape starts anew."""
        v, start = self.v, self.start()
        if isinstance(v, Tensor):
            if v.shape == row.shape:
                return v.to(row.device)
            v = start
        return None if v == (self.v_reset or 0.0) else torch.full_like(row, v)

    def run_from_state(self, x: Tensor, *, record: bool) -> Tensor:
        """The spikes of x [T, N, ...], from the neuron's state to its next one."""
        v, settings = self.entered(like(x)[0]), self.settings()
        spikes, self.v = lif(x, v, return_state=True, **settings)
        if record:
            self.v_seq = States(lif, x, (v,), settings)
        return spikes

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        if states or getattr(self, "store_v_seq", False) or not self.runs_fused():
            return None
        return Run(self.run_from_state(x if steps is None else x.expand(steps, *x.shape), record=False), ())

    @property
    def v_seq(self) -> Tensor | None:
        """The states after every step [T, N, ...] of the last call."""
        holder = self._memories if "v_seq" in self._memories else self.__dict__
        if "v_seq" not in holder:
            raise AttributeError(f"{type(self).__name__} has no v_seq")
        if isinstance(holder["v_seq"], States):
            holder["v_seq"] = holder["v_seq"].compute()
        return holder["v_seq"]

    @v_seq.setter
    def v_seq(self, value: Any) -> None:
        self.__dict__["v_seq"] = value


class Node2(Node):
    """Of SpikingJelly 2: functions of explicit states."""

    store_v_seq: bool

    def fuses(self, x: Tensor) -> bool:
        """Whether this input runs fused. The library rounds the state of whole-number input to whole numbers."""
        return self.runs_fused() and self._neuron_precision is None and x.is_floating_point()  # type: ignore[attr-defined]

    def step_settings(self) -> dict[str, Any]:
        """The settings of a single step."""
        return self.settings()

    def run(self, x: Tensor, states: tuple[Any, ...], settings: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
        """The spikes of x [T, N, ...], and the states after it."""
        spikes, v = lif(x, states[0], return_state=True, **settings)
        return spikes, (v, *states[1:])

    def single_step_functional_forward(self, inputs: Any, states: Any, **named: Any) -> Any:
        if not self.fuses(inputs[0]):
            return super().single_step_functional_forward(inputs, states, **named)  # type: ignore[misc]
        spikes, states = self.run(inputs[0].unsqueeze(0), states, self.step_settings())
        return (spikes[0],), states

    def multi_step_functional_forward(self, inputs: Any, states: Any, **named: Any) -> Any:
        if not self.fuses(inputs[0]):
            return super().multi_step_functional_forward(inputs, states, **named)  # type: ignore[misc]
        spikes, states = self.run(inputs[0], states, self.settings())
        return (spikes,), states

    def multi_step_forward(self, x_seq: Tensor, *others: Any, **named: Any) -> Any:
        if others or named or not self.fuses(x_seq):
            return super().multi_step_forward(x_seq, *others, **named)  # type: ignore[misc]
        return self.run_from_state(x_seq, record=self.store_v_seq)


class IntegerNode2(Node2):
    """ILIFNode: whole-number spikes. A single step computes the same charge in another order than many steps do."""

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        return None if module.surrogate_function.spiking else refusal(module.surrogate_function)

    def settings(self) -> dict[str, Any]:
        return {"beta": 1 - 1 / self.tau, **self.counts()}  # type: ignore[attr-defined]

    def step_settings(self) -> dict[str, Any]:
        return {**self.charge(), **self.counts()}

    def counts(self) -> dict[str, Any]:
        """The settings of whole-number spikes."""
        count = self.surrogate_function
        return {
            "levels": count.max_spike_count, "v_threshold": self.v_threshold, "v_reset": None,
            "detach_reset": self.detach_reset, "surrogate": Window(count.grad_min, count.grad_max),
        }  # fmt: skip


class HalfThresholdNode2(Node2):
    """HalfThresholdIFNode: an IF neuron that starts at half of its threshold."""

    def start(self) -> float:
        return float(self.v_threshold / 2)


class OnlineNode2(Node2):
    """SLTTLIFNode: in training, no gradient passes from a step to the one before; in evaluation, none to the spikes."""

    def step_settings(self) -> dict[str, Any]:
        return self.settings() if self.training else {**self.settings(), "surrogate": LeakyReLU(0.0, 0.0)}

    def all_steps(self, *_: Any, **__: Any) -> Run | None:
        return None

    def single_step_functional_forward(self, inputs: Any, states: Any, **named: Any) -> Any:
        if not self.fuses(inputs[0]):
            return super().single_step_functional_forward(inputs, states, **named)
        if self.training:
            return super().single_step_functional_forward(inputs, (states[0].detach(), *states[1:]), **named)
        (spike,), states = super().single_step_functional_forward(inputs, states, **named)
        return (spike.detach(),), states


class TraceNode2(OnlineNode2):
    """OTTTLIFNode: an online neuron that returns a trace of its spikes, too."""

    def single_step_functional_forward(self, inputs: Any, states: Any, **named: Any) -> Any:
        if not self.fuses(inputs[0]):
            return super().single_step_functional_forward(inputs, states, **named)
        (spike,), (v, trace) = super().single_step_functional_forward(inputs, states, **named)
        if not self.training:
            return (spike,), (v, trace)
        trace = self.track_trace(spike, trace, self.tau)  # type: ignore[attr-defined]
        return (spike, trace), (v, trace)


class EarlierNode(Node):
    """Of the versions before SpikingJelly 2."""

    version = 0

    def detach(self) -> None:
        super().detach()  # type: ignore[misc]
        if isinstance(self._memories.get("v_seq"), States):
            self.v_seq = self._memories["v_seq"].detached()

    def keeps_a_share(self) -> bool:
        return self.v_reset in (None, 0.0)


class Node14(EarlierNode):
    """Of activation_based in 0.0.0.0.14."""

    store_v_seq: bool

    def keeps_a_share(self) -> bool:
        # Its compiled loops for evaluation have another charge than training in this one case.
        evaluates = not self.training and self.v_reset is not None and "w" not in self._parameters  # type: ignore[attr-defined]
        return super().keeps_a_share() and not evaluates

    def single_step_forward(self, x: Tensor) -> Tensor:
        if not self.runs_fused():
            return super().single_step_forward(x)  # type: ignore[misc,no-any-return]
        return self.run_from_state(x.unsqueeze(0), record=False)[0]

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        if not self.runs_fused():
            return super().multi_step_forward(x_seq)  # type: ignore[misc,no-any-return]
        return self.run_from_state(x_seq, record=self.store_v_seq)


class Node12(EarlierNode):
    """Of clock_driven in 0.0.0.0.12, one step at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.runs_fused():
            return super().forward(x)  # type: ignore[misc,no-any-return]
        return self.run_from_state(x.unsqueeze(0), record=False)[0]


class MultiStepNode12(EarlierNode):
    """Of clock_driven in 0.0.0.0.12, all steps at once. It always has a record of its states."""

    def forward(self, x_seq: Tensor) -> Tensor:
        if not self.runs_fused():
            return super().forward(x_seq)  # type: ignore[misc,no-any-return]
        return self.run_from_state(x_seq, record=True)


NEURONS = ("spikingjelly.activation_based.neuron", "spikingjelly.clock_driven.neuron")  # modules with neurons
_2, _14, _12 = f"{NEURONS[0]}.", f"{NEURONS[0]}.", f"{NEURONS[1]}."
ADAPTERS: dict[str, type[Fused]] = {
    f"{_2}integrate_and_fire.IFNode": Node2,
    f"{_2}integrate_and_fire.HalfThresholdIFNode": HalfThresholdNode2,
    f"{_2}lif.LIFNode": Node2,
    f"{_2}plif.ParametricLIFNode": Node2,
    f"{_2}ilif.ILIFNode": IntegerNode2,
    f"{_2}online_learning.SLTTLIFNode": OnlineNode2,
    f"{_2}online_learning.OTTTLIFNode": TraceNode2,
    f"{_14}IFNode": Node14,
    f"{_14}LIFNode": Node14,
    f"{_14}ParametricLIFNode": Node14,
    f"{_12}IFNode": Node12,
    f"{_12}LIFNode": Node12,
    f"{_12}ParametricLIFNode": Node12,
    f"{_12}MultiStepIFNode": MultiStepNode12,
    f"{_12}MultiStepLIFNode": MultiStepNode12,
    f"{_12}MultiStepParametricLIFNode": MultiStepNode12,
}
