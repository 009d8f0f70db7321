"""The fused forms of snnTorch's neurons: their attributes as settings of `lif`, their state as its state.

They take one step at a time, as snnTorch's do. `deal_kernels.compat.over_time` runs them over all steps at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deal_kernels._common.types import STATE
from deal_kernels.compat.fused import Fused, Run, setting
from deal_kernels.compat.snntorch.surrogates import refusal, spike_settings
from deal_kernels.lif import lif
from deal_kernels.multistate import cuba
from deal_kernels.surrogate import LeakyReLU

# The reset of `lif`, by the method that updates the state and by whether a reset waits for the next step.
RESETS = {
    ("_base_sub", True): "next_soft", ("_base_zero", True): "next_hard", ("_base_int", True): "none",
    ("_base_sub", False): "twice_soft", ("_base_int", False): "none",
}  # fmt: skip
CODES = {"_base_sub": 0, "_base_zero": 1, "_base_int": 2}  # of reset_mechanism_val
NO_GRADIENT = LeakyReLU(0.0, 0.0)


class Neuron(Fused):
    """A neuron with the states `names`, in the order in which its forward takes and returns them."""

    names: tuple[str, ...] = ("mem",)
    # Attributes of the library's class.
    mem: Any
    threshold: Tensor
    graded_spikes_factor: Tensor
    spike_grad: Any
    surrogate_disable: bool
    state_quant: Any
    inhibition: bool
    init_hidden: bool
    output: bool

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        if module.inhibition:
            return "inhibition lets one neuron of a layer fire"
        if module.state_quant:
            return "its state is quantised"
        if reset_of(module) is None:
            return f"reset_mechanism={module.reset_mechanism!r} with reset_delay=False has no fused form"
        return None if module.surrogate_disable else refusal(module.spike_grad)

    def decays(self) -> dict[str, Tensor]:
        """The shares of the states that are kept, as arguments of the kernel."""
        raise NotImplementedError

    def current(self, x: Tensor) -> Tensor:
        """The input current that the kernel takes."""
        return x

    def kernel(self, x: Tensor, states: dict[str, Tensor | None], **arguments: Any) -> Any:
        """The spikes, or what `output` asks for; with `return_state` also the last states, in the order of `names`."""
        mem = states["mem"]
        if not arguments.pop("return_state", False):
            return lif(x, mem, **arguments)
        spikes, v = lif(x, mem, return_state=True, **arguments)
        return spikes, (v,)

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        return self.step(input_, mem)

    def step(self, x: Tensor, *given: Tensor | None) -> Any:
        """One step, as the library's forward."""
        settings = self.settings(x, given)
        if settings is None:
            return super().forward(x, *given)  # type: ignore[misc]
        spikes, last = self.run(x.unsqueeze(0), self.entered(x), settings)
        return (spikes[0], *last) if self.returns_states() else spikes[0]

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        row = x[0] if steps is None else x
        settings = None if states and not threaded else self.settings(row, states)
        if settings is None or not self.records(settings, record):
            return None
        entered = self.entered(row)
        spikes, last = self.run(x, entered, settings, steps)
        if not self.returns_states():
            return Run(spikes, ())
        states_over_time = (
            self.kernel(self.current(x), entered, output="v", **_held(steps), **settings) if record else ()
        )
        return Run(spikes, last, (states_over_time,) if record else ())

    def records(self, settings: dict[str, Any], record: bool) -> bool:
        """Whether several steps at once are possible, and their states if `record`."""
        return True

    def returns_states(self) -> bool:
        return self.output or not self.init_hidden

    def settings(self, x: Tensor, given: tuple[Tensor | None, ...]) -> dict[str, Any] | None:
        """The arguments of the kernel for steps like x [...]; None if they need the library's own step.

        States that are given become the neuron's own, as in the library.
        """
        for name, state in zip(self.names, given, strict=False):
            if state is not None:
                setattr(self, name, state)
        if self.init_hidden and any(state is not None for state in given):
            raise TypeError(f"a neuron with init_hidden=True keeps {' and '.join(self.names)}; they cannot be passed")
        reset = reset_of(self)
        if self.inhibition or self.state_quant or reset is None or not self.has_dtypes(x, reset):
            return None
        found = {name: setting(p, x) for name, p in {**self.decays(), "v_threshold": self.threshold}.items()}
        if None in found.values() or setting(self.graded_spikes_factor, x) is None:
            return None
        return {**found, "reset": reset, **self.firing()}

    def has_dtypes(self, x: Tensor, reset: str) -> bool:
        """Whether the library computes this input in the dtype in which the kernel does."""
        if x.dtype not in STATE or any(v is not None and v.dtype != STATE[x.dtype] for v in self.entered(x).values()):
            return False
        # A half-precision state becomes float32 when the spikes, which are float32, are subtracted from it.
        return STATE[x.dtype] == x.dtype or (reset != "none" and self.spike_dtype(x) == torch.float32)

    def spike_dtype(self, x: Tensor) -> torch.dtype:
        found: torch.dtype = x.dtype if x.dtype == torch.float32 else self.spike_grad(x.new_zeros(1)).dtype
        return found

    def entered(self, row: Tensor) -> dict[str, Tensor | None]:
        """The states before a step like row. One of another shape starts anew."""
        states = {name: getattr(self, name) for name in self.names}
        return {name: state if state.shape == row.shape else None for name, state in states.items()}

    def prepare(self) -> None:
        self.firing()  # torch.compile cannot read the closure that a spike function is

    def firing(self) -> dict[str, Any]:
        """The settings of the spike function, found once for each function."""
        if self.surrogate_disable:
            return {"surrogate": NO_GRADIENT, "fire": "gt", "detach_reset": True}
        known: Any = self.__dict__.get("_spike_settings")
        if known is None or known[0] is not self.spike_grad:
            known = self.__dict__["_spike_settings"] = (self.spike_grad, spike_settings(self.spike_grad))
        found: dict[str, Any] = known[1]
        return found

    def run(
        self, x: Tensor, entered: dict[str, Tensor | None], settings: dict[str, Any], steps: int | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
        """The spikes as the library returns them, and the states after the last step, which are the neuron's now."""
        spikes, last = self.kernel(self.current(x), entered, return_state=True, **_held(steps), **settings)
        for name, state in zip(self.names, last, strict=True):
            setattr(self, name, state)
        spikes = spikes.detach() if self.surrogate_disable else spikes
        spikes = spikes.to(self.spike_dtype(x))
        factor = setting(self.graded_spikes_factor, x[0] if steps is None else x)
        return spikes if isinstance(factor, float) and factor == 1 else spikes * self.graded_spikes_factor, last


class Leaky(Neuron):
    beta: Tensor

    def decays(self) -> dict[str, Tensor]:
        return {"beta": self.beta.clamp(0, 1)}


class Lapicque(Neuron):
    R: Tensor
    C: Tensor
    time_step: Tensor

    def decays(self) -> dict[str, Tensor]:
        return {"beta": 1 - self.time_step / (self.R * self.C)}

    def current(self, x: Tensor) -> Tensor:
        return x * self.R * (1 / (self.R * self.C)) * self.time_step

    def kernel(self, x: Tensor, states: dict[str, Tensor | None], **arguments: Any) -> Any:
        mem = states["mem"]
        if arguments["reset"] == "next_hard" and mem is not None:
            x = x * (1 - self.mem_reset(mem))  # type: ignore[attr-defined]  # its reset clears the new input, too
        return super().kernel(x, states, **arguments)

    def records(self, settings: dict[str, Any], record: bool) -> bool:
        return bool(settings["reset"] != "next_hard")


class Synaptic(Neuron):
    names = ("syn", "mem")
    alpha: Tensor
    beta: Tensor

    def decays(self) -> dict[str, Tensor]:
        return {"alpha": self.alpha.clamp(0, 1), "beta": self.beta.clamp(0, 1)}

    def forward(  # type: ignore[override]
        self, input_: Tensor, syn: Tensor | None = None, mem: Tensor | None = None
    ) -> Any:
        return self.step(input_, syn, mem)

    def kernel(self, x: Tensor, states: dict[str, Tensor | None], steps: int | None = None, **arguments: Any) -> Any:
        x = x if steps is None else x.expand(steps, *x.shape)
        spikes, (v, i) = cuba(x, states["mem"], states["syn"], **arguments)
        return spikes, (i, v)

    def has_dtypes(self, x: Tensor, reset: str) -> bool:
        return STATE.get(x.dtype) == x.dtype and super().has_dtypes(x, reset)

    def records(self, settings: dict[str, Any], record: bool) -> bool:
        return not record


def reset_of(neuron: Any) -> str | None:
    """The reset of `lif`; None if it has none."""
    update, waits = neuron.state_function.__name__, getattr(neuron, "reset_delay", True)
    if not waits and int(neuron.reset_mechanism_val) != CODES[update]:
        return None  # it was changed later, and that changes the second half of the reset alone
    return RESETS.get((update, waits))


def _held(steps: int | None) -> dict[str, int]:
    return {} if steps is None else {"steps": steps}


NEURONS = ("snntorch._neurons",)  # the package with its neurons
ADAPTERS: dict[str, type[Fused]] = {
    "snntorch._neurons.leaky.Leaky": Leaky,
    "snntorch._neurons.lapicque.Lapicque": Lapicque,
    "snntorch._neurons.synaptic.Synaptic": Synaptic,
}
