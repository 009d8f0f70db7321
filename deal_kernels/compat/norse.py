"""The fused forms of Norse's neurons: their parameters as settings of a kernel, their NamedTuples as its states."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from deal_kernels._common.types import Number
from deal_kernels.compat.fused import Derivative, Fused, Run, setting
from deal_kernels.lif import lif
from deal_kernels.multistate import cuba, lsnn
from deal_kernels.surrogate import FastSigmoid, LeakyReLU

METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc")


class Neuron(Fused):
    """A neuron that gets its state with each call."""

    home: str  # the module of norse.torch.functional that has its step and its state
    step: str
    state: str
    records = True  # whether the kernel has the states over time
    # Attributes of the library's class.
    p: Any
    dt: float
    activation: Any
    state_fallback: Any

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        if module.p.method not in METHODS:
            return f"method={module.p.method!r} has no fused form"
        if module.activation is not getattr(functional(cls.home), cls.step):
            return f"it computes {module.activation.__name__}"
        return None if one_number(module.p.v_reset) is not None else "v_reset is learnt or has several values"

    def parameters_of(self) -> dict[str, Any]:
        """The parameters that may be tensors, as arguments of the kernel."""
        raise NotImplementedError

    def current(self, x: Tensor) -> Tensor:
        """The input current that the kernel takes."""
        return x

    def reset(self) -> dict[str, Any]:
        return {"v_reset": one_number(self.p.v_reset), "v_rest": 0.0}

    def kernel(self, x: Tensor, states: tuple[Tensor, ...], steps: int | None, **settings: Any) -> Any:
        """The spikes and the tuple of the last states; with `output`, states over time instead."""
        found = lif(x, *states, steps=steps, return_state="output" not in settings, **settings)
        return found if "output" in settings else (found[0], (found[1],))

    def settings(self, row: Tensor) -> dict[str, Any] | None:
        """The arguments of the kernel for steps like row; None if they need the library's own step."""
        parameters = {**self.parameters_of(), "v_threshold": self.p.v_th}
        found: dict[str, Number | None] = {name: setting(torch.as_tensor(p), row) for name, p in parameters.items()}
        if None in found.values() or one_number(self.p.v_reset) is None:
            return None
        return {**found, **self.reset(), **self.firing()}

    def entering(self, x: Tensor, state: Any) -> Tensor:
        """The input in the dtype in which the library computes with it."""
        return x if x.is_floating_point() or not isinstance(state.v, Tensor) else x.to(state.v.dtype)

    def firing(self) -> dict[str, Any]:
        """The settings of the spike function."""
        method, alpha = self.p.method, self.p.alpha
        if method == "heaviside":
            return {"surrogate": LeakyReLU(0.0, 0.0), "fire": "gt", "detach_reset": True}
        if method == "super":
            return {"surrogate": FastSigmoid(1.0, 1.0), "fire": "gt"}
        threshold = functional("threshold").threshold
        return {"surrogate": Derivative(lambda u: threshold(u, method, alpha)), "fire": "gt"}

    def run(self, x: Tensor, state: Any, steps: int | None, record: bool) -> Run | None:
        """Runs x from a state; None if it needs the library's own step."""
        if x.layout is not torch.strided or (record and not self.records):
            return None
        state = self.state_fallback(x[0] if steps is None else x) if state is None else state
        x = self.entering(x, state)
        row = x[0] if steps is None else x
        current, states = self.current(x), broadcast(state, row)
        settings = self.settings(row)
        if states is None or settings is None or (current.shape, current.dtype) != (x.shape, x.dtype):
            return None
        spikes, last = self.kernel(current, states, steps, **settings)
        spikes = spikes.detach() if self.p.method == "heaviside" else spikes
        made = getattr(functional(self.home), self.state)
        if not record:
            return Run(spikes, (made(*last),))
        return Run(spikes, (made(*last),), (made(self.kernel(current, states, steps, output="v", **settings)),))


class Cell(Neuron):
    """One step at a time."""

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        found = self.run(input_tensor.unsqueeze(0), state, None, False)
        if found is None:
            return super().forward(input_tensor, state)  # type: ignore[misc]
        return found.spikes[0], found.last[0]

    def all_steps(
        self, x: Tensor, states: tuple[Any, ...], *, steps: int | None, threaded: bool, record: bool
    ) -> Run | None:
        return self.run(x, states[0], steps, record) if threaded else None


class Sequence(Neuron):
    """All steps at once."""

    record_states: bool

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        state = self.state_fallback(input_tensor) if state is None else state
        found = self.run(input_tensor, state, None, self.record_states) if len(input_tensor) else None
        if found is None:
            return super().forward(input_tensor, state)  # type: ignore[misc]
        return found.spikes, (found.record or found.last)[0]


class LIFBoxCell(Cell):
    home, step, state = "lif_box", "lif_box_feed_forward_step", "LIFBoxFeedForwardState"

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        resets = functional("reset")
        if module.p.reset_method not in (resets.reset_value, resets.reset_subtract):
            return "its reset_method is not one of Norse"
        return super().refusal(module)

    def parameters_of(self) -> dict[str, Any]:
        return {"rate": self.dt * self.p.tau_mem_inv}

    def current(self, x: Tensor) -> Tensor:
        return x + self.p.v_leak  # type: ignore[no-any-return]

    def reset(self) -> dict[str, Any]:
        subtracts = self.p.reset_method is functional("reset").reset_subtract
        return {"v_reset": None} if subtracts else super().reset()


class _Integrator(Neuron):
    home, step, state = "iaf", "iaf_feed_forward_step", "IAFFeedForwardState"

    def parameters_of(self) -> dict[str, Any]:
        return {}

    def kernel(self, x: Tensor, states: tuple[Tensor, ...], steps: int | None, **settings: Any) -> Any:
        return super().kernel(x, states, steps, tau=None, **settings)


class IAFCell(_Integrator, Cell):
    pass


class IAF(_Integrator, Sequence):
    pass


class _CurrentBased(Neuron):
    home, step, state, records = "lif", "lif_feed_forward_step", "LIFFeedForwardState", False

    @classmethod
    def refusal(cls, module: Any) -> str | None:
        if one_number(module.p.v_leak) is None:
            return "v_leak is learnt or has several values"
        return super().refusal(module)

    def parameters_of(self) -> dict[str, Any]:
        return {"rate": self.dt * self.p.tau_mem_inv, "current_rate": self.dt * self.p.tau_syn_inv}

    def reset(self) -> dict[str, Any]:
        return {"v_reset": one_number(self.p.v_reset), "v_rest": one_number(self.p.v_leak)}

    def entering(self, x: Tensor, state: Any) -> Tensor:
        half = x.is_floating_point() and x.itemsize == 2
        keeps = half and isinstance(state.i, Tensor) and state.i.dim() > 0 and state.i.dtype == torch.float32
        return x.float() if keeps else super().entering(x, state)

    def run(self, x: Tensor, state: Any, steps: int | None, record: bool) -> Run | None:
        if not self.takes_sparse(x):
            return super().run(x, state, steps, record)
        found = super().run(x.to_dense(), state, steps, record)
        return None if found is None else found._replace(spikes=found.spikes.to_sparse())

    def takes_sparse(self, x: Tensor) -> bool:
        """Whether x is sparse and the library computes with it as with a dense tensor, but returns sparse spikes."""
        own = getattr(self, "activation_sparse", None)
        sparse = x.layout is torch.sparse_coo and not x.requires_grad
        return sparse and own is not None and own is functional("lif").lif_feed_forward_step_sparse

    def kernel(self, x: Tensor, states: tuple[Tensor, ...], steps: int | None, **settings: Any) -> Any:
        return cuba(x if steps is None else x.expand(steps, *x.shape), *states, return_state=True, **settings)


class LIFCell(_CurrentBased, Cell):
    pass


class LIF(_CurrentBased, Sequence):
    pass


class _Adaptive(_CurrentBased):
    home, step, state = "lsnn", "lsnn_feed_forward_step", "LSNNFeedForwardState"

    def parameters_of(self) -> dict[str, Any]:
        adaptation = {"adaptation_rate": self.dt * self.p.tau_adapt_inv, "strength": self.p.beta}
        return {**super().parameters_of(), **adaptation}

    def entering(self, x: Tensor, state: Any) -> Tensor:
        return Neuron.entering(self, x, state)

    def kernel(self, x: Tensor, states: tuple[Tensor, ...], steps: int | None, **settings: Any) -> Any:
        return lsnn(x if steps is None else x.expand(steps, *x.shape), *states, return_state=True, **settings)


class LSNNCell(_Adaptive, Cell):
    pass


class LSNN(_Adaptive, Sequence):
    pass


def functional(name: str) -> Any:
    """A module of norse.torch.functional."""
    return importlib.import_module(f"norse.torch.functional.{name}")


def one_number(p: Any) -> float | None:
    """The value of a parameter that is one number and is not learnt, else None.

    A tensor that merely requires a gradient is not taken as learnt: IAF makes its v_reset one.
    """
    p = torch.as_tensor(p)
    if isinstance(p, nn.Parameter) or not p.is_leaf or not p.numel():
        return None
    first = p.detach().reshape(-1)[0]
    return float(first) if p.numel() == 1 or bool((p == first).all()) else None


def broadcast(state: Any, row: Tensor) -> tuple[Tensor, ...] | None:
    """The states in the shape of a step; None if the library computes them in another shape or dtype than the step."""
    if row.dtype not in (torch.float32, torch.float64) or not all(isinstance(each, Tensor) for each in state):
        return None
    for each in state:
        wider = each.dim() > 0 and each.dtype == torch.float64 != row.dtype
        sizes = zip(reversed(each.shape), reversed(row.shape), strict=False)
        if wider or each.dim() > row.dim() or any(size not in (1, wanted) for size, wanted in sizes):
            return None
    return tuple(each.to(row.dtype).expand(row.shape) for each in state)


NEURONS = ("norse.torch.module.snn",)  # the module with the bases of its neurons
ADAPTERS: dict[str, type[Fused]] = {
    "norse.torch.module.lif_box.LIFBoxCell": LIFBoxCell,
    "norse.torch.module.iaf.IAFCell": IAFCell,
    "norse.torch.module.iaf.IAF": IAF,
    "norse.torch.module.lif.LIFCell": LIFCell,
    "norse.torch.module.lif.LIF": LIF,
    "norse.torch.module.lsnn.LSNNCell": LSNNCell,
    "norse.torch.module.lsnn.LSNN": LSNN,
}
