"""`cuba`, `alif`, `lsnn` and `clif`: check, dispatch, return."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from deal_kernels._common.axes import Axes
from deal_kernels._common.checks import check_steps, check_strided, check_tensor, floating, one_of
from deal_kernels._common.neuron import Fire, Reset, SurrogateLike
from deal_kernels._common.parameters import checked_parameter, checked_state
from deal_kernels._common.types import Number
from deal_kernels.multistate import op
from deal_kernels.multistate.neuron import RESETS, Window, neuron_of
from deal_kernels.multistate.reference import Inputs

Output = Literal["spikes", "v"]
OUTPUTS = {"spikes": "spikes", "v": "states"}
# Spikes or the states v, alone or with the tuple of the states after the last step.
Result = Tensor | tuple[Tensor, tuple[Tensor, ...]]


def cuba(
    x: Tensor, v0: Tensor | None = None, i0: Tensor | None = None, *, alpha: Number | None = None,
    beta: Number | None = None, current_rate: Number | None = None, rate: Number | None = None,
    v_threshold: Number = 1.0, v_reset: float | None = 0.0, v_rest: float | None = None, reset: Reset = "auto",
    reset_by: float | None = None, detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge",
    output: Output = "spikes", return_state: bool = False, backend: str | None = None, time_axis: int = 0,
    channel_axis: int | None = None,
) -> Result:  # fmt: skip
    """Runs a layer of current-based neurons over time: x feeds a current i, and the current charges the membrane v.

    Per neuron, at every step, in one of two forms:

    ============================  ==========================  ======================================
    parameters                    current                     membrane potential
    ============================  ==========================  ======================================
    ``alpha``, ``beta``           i = alpha * i + x           h = beta * v + i
    ``current_rate``, ``rate``    j = i + x                   h = v + rate * ((v_rest - v) + j)
    \\                             i = j - current_rate * j    \\
    ============================  ==========================  ======================================

    The first is snnTorch's Synaptic and SpikingJelly's CUBALIFNode, the second Norse's LIF. The neuron fires, s = 1,
    where h reaches ``v_threshold``, and v is reset as in `deal_kernels.lif.lif`; a reset never changes i. Of the resets
    at the next step, "next_hard" replaces the charged h by ``v_reset`` here.

    Args:
        x: input [T, B, C, ...] (at least [T]). float32, float16, bfloat16 or float64; half types are computed with
            float32 state, and integers and truth values become the default dtype. Layouts are read as in `lif`.
        v0, i0: states before the first step, the shape of one step. None starts v at v_rest and i at 0.
        alpha, beta: shares of current and membrane that are kept from step to step (0.5 and 0.75 if nothing is given).
            Each a number; or a tensor with one value, one per channel, or a shape that broadcasts against one step,
            which gets a gradient.
        current_rate, rate: the shares by which current and membrane move, instead; numbers or tensors alike.
        v_threshold: number or tensor alike.
        v_reset: value of the hard reset; None is the soft reset.
        v_rest: None is v_reset for a hard reset, and 0 otherwise.
        reset: "hard", "soft", "none", "next_hard", "next_soft" or "twice_soft", see `lif`; "auto" is "hard", or "soft"
            if ``v_reset`` is None.
        reset_by: what a soft reset subtracts; None is the threshold.
        detach_reset: passes no gradient through the spike in the reset. A reset at the next step never passes any.
        surrogate: as in `lif`: a name, an object of `deal_kernels.surrogate`, or a function of u = h - v_threshold
            (whose backward pass runs in plain torch).
        fire: "ge" fires at h >= v_threshold, "gt" at h > v_threshold.
        output: "spikes", or "v", the states v after every step, float32 for half types.
        return_state: returns (spikes, (v, i)) with the states after the last step, float32 for half types.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        time_axis, channel_axis: as in `lif`: the axis of x that is time, 1 for [B, T, C, ...], which is read without a
            copy, and the one that per-channel parameters are for. Results have their axes in the order of x; states and
            parameters with values per neuron are given in it, too.

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``output`` and ``return_state`` ask for.

    >>> x = torch.randn(4, 2, 8, requires_grad=True)  # [T, B, C]
    >>> spikes, (v, i) = cuba(x, alpha=0.9, beta=torch.rand(8), v_reset=None, return_state=True)
    >>> spikes.shape, v.shape, i.shape
    (torch.Size([4, 2, 8]), torch.Size([2, 8]), torch.Size([2, 8]))
    """
    if current_rate is None and rate is None:
        decay: dict[str, Any] = {"beta": 0.75 if beta is None else beta}
        current = {"alpha": 0.5 if alpha is None else alpha}
    elif alpha is not None or beta is not None or current_rate is None or rate is None:
        raise ValueError(
            "a neuron has alpha and beta, or current_rate and rate; got "
            f"{alpha=!r}, {beta=!r}, {current_rate=!r} and {rate=!r}"
        )
    else:
        decay, current = {"rate": rate}, {"current_rate": current_rate}
    settings = {
        **decay, "v_threshold": v_threshold, "v_reset": v_reset, "v_rest": v_rest, "reset": reset,
        "reset_by": reset_by, "detach_reset": detach_reset, "surrogate": surrogate, "fire": fire,
    }  # fmt: skip
    return _run(
        "cuba", x, {"v0": v0, "i0": i0}, settings, current, None, output, return_state, backend, time_axis, channel_axis
    )


def alif(
    x: Tensor, v0: Tensor | None = None, a0: Tensor | None = None, *, tau: Number | None = 2.0,
    rate: Number | None = None, beta: Number | None = None, decay_input: bool = True,
    adaptation: Number = 0.9, strength: Number = 0.1, v_threshold: Number = 1.0, v_reset: float | None = 0.0,
    v_rest: float | None = None, reset: Reset = "auto", detach_reset: bool = False,
    surrogate: SurrogateLike = "sigmoid", window: Window | None = None, fire: Fire = "ge", output: Output = "spikes",
    return_state: bool = False, backend: str | None = None, time_axis: int = 0, channel_axis: int | None = None,
) -> Result:  # fmt: skip
    """Runs a layer of neurons with an adaptive threshold over time: every spike raises it, and then it falls again.

    The membrane is charged as in `deal_kernels.lif.lif`, by ``tau``, ``rate`` or ``beta``. It fires, s = 1, where h
    reaches the threshold of the step, v_threshold + strength * a. Then a = adaptation * a + s, and v is reset: to
    ``v_reset`` ("hard"), by the threshold of the step ("soft"), or not ("none").

    Args:
        x: input, as in `cuba`.
        v0, a0: states before the first step, the shape of one step. None starts v at v_rest and a at 0.
        tau, rate, beta, decay_input: as in `lif`. Each a number; or a tensor with one value, one per channel, or a
            shape that broadcasts against one step, which gets a gradient.
        adaptation: share of a that is kept from step to step; number or tensor alike.
        strength: by how much a spike raises the threshold; number or tensor alike.
        v_threshold: the threshold without adaptation; number or tensor alike.
        v_reset, v_rest, detach_reset: as in `lif`. The gradient through a is always passed.
        reset: "hard", "soft" or "none"; "auto" is "hard", or "soft" if ``v_reset`` is None.
        surrogate: as in `cuba`, at u = h minus the threshold of the step.
        window: (low, high): the surrogate derivative is 0 unless low < h < high.
        fire, output, return_state, backend, time_axis, channel_axis: as in `cuba`; the states are (v, a).

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``output`` and ``return_state`` ask for.

    The neuron of SpikingEDN, whose a decays by exp(-1 / rho), a learnt value of each channel, has no leak of a time
    constant but keeps a fifth of the membrane, is reset to 0, and fires above the threshold:

    >>> from deal_kernels.surrogate import Sigmoid
    >>> x = torch.randn(4, 2, 8, 5, 5, requires_grad=True)  # [T, B, C, H, W]
    >>> rho = torch.full((8,), 0.87, requires_grad=True)
    >>> spikes = alif(
    ...     x, beta=0.2, adaptation=torch.exp(-1 / rho), strength=0.07, v_threshold=0.3, fire="gt",
    ...     surrogate=Sigmoid(alpha=6.0, height=1.657), window=(0.0, 1.0),
    ... )
    >>> spikes.shape
    torch.Size([4, 2, 8, 5, 5])
    """
    one_of("reset", reset, RESETS)
    tau = None if rate is not None or beta is not None else tau
    settings = {
        "tau": tau, "rate": rate, "beta": beta, "decay_input": decay_input, "v_threshold": v_threshold,
        "v_reset": v_reset, "v_rest": v_rest, "reset": reset, "detach_reset": detach_reset, "surrogate": surrogate,
        "fire": fire,
    }  # fmt: skip
    others = {"adaptation": adaptation, "strength": strength}
    return _run(
        "alif",
        x,
        {"v0": v0, "a0": a0},
        settings,
        others,
        window,
        output,
        return_state,
        backend,
        time_axis,
        channel_axis,
    )


def lsnn(
    x: Tensor, v0: Tensor | None = None, i0: Tensor | None = None, b0: Tensor | None = None, *, rate: Number = 0.1,
    current_rate: Number = 0.2, adaptation_rate: Number = 0.00125, strength: Number = 1.8, v_threshold: Number = 1.0,
    v_reset: float | None = 0.0, v_rest: float | None = None, reset: Reset = "auto", detach_reset: bool = False,
    surrogate: SurrogateLike = "sigmoid", window: Window | None = None, fire: Fire = "ge", output: Output = "spikes",
    return_state: bool = False, backend: str | None = None, time_axis: int = 0, channel_axis: int | None = None,
) -> Result:  # fmt: skip
    """Runs a layer of current-based neurons with an adaptive threshold b over time, as Norse's LSNN.

    At every step h = v + rate * ((v_rest - v) + i) with the current of the step before, and b moves towards
    ``v_threshold``: b = b + adaptation_rate * (v_threshold - b). The neuron fires, s = 1, where h reaches b. Then
    i = (i - current_rate * i) + x, b = b + s * strength, and v is reset: to ``v_reset`` ("hard"), by the threshold of
    the step ("soft"), or not ("none").

    Args:
        x: input, as in `cuba`.
        v0, i0, b0: states before the first step, the shape of one step. None starts v at v_rest, i at 0, and b at
            v_threshold, without a gradient of it.
        rate, current_rate, adaptation_rate: the shares by which membrane, current and threshold move. Each a number;
            or a tensor with one value, one per channel, or a shape that broadcasts against one step, which gets a
            gradient.
        strength: by how much a spike raises the threshold; number or tensor alike.
        v_threshold: the threshold without adaptation; number or tensor alike.
        v_reset, v_rest, reset, detach_reset, surrogate, window, fire: as in `alif`.
        output, return_state, backend, time_axis, channel_axis: as in `cuba`; the states are (v, i, b).

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``output`` and ``return_state`` ask for.

    >>> spikes, (v, i, b) = lsnn(torch.full((40, 1), 1.0), strength=0.5, return_state=True)
    >>> spikes.sum().item(), round(b.item(), 2)
    (5.0, 3.44)
    """
    one_of("reset", reset, RESETS)
    settings = {
        "rate": rate, "v_threshold": v_threshold, "v_reset": v_reset, "v_rest": v_rest, "reset": reset,
        "detach_reset": detach_reset, "surrogate": surrogate, "fire": fire,
    }  # fmt: skip
    others = {"current_rate": current_rate, "adaptation_rate": adaptation_rate, "strength": strength}
    states = {"v0": v0, "i0": i0, "b0": b0}
    return _run("lsnn", x, states, settings, others, window, output, return_state, backend, time_axis, channel_axis)


def clif(
    x: Tensor, v0: Tensor | None = None, m0: Tensor | None = None, *, tau: Number = 2.0, v_threshold: Number = 1.0,
    surrogate: SurrogateLike = "rectangle", fire: Fire = "ge", output: Output = "spikes", return_state: bool = False,
    backend: str | None = None, time_axis: int = 0, channel_axis: int | None = None,
) -> Result:  # fmt: skip
    """Runs a layer of complementary neurons over time, as SpikingJelly's ComplementaryLIFNode.

    At every step h = (v - v / tau) + x; the neuron fires, s = 1, where h reaches ``v_threshold``; it remembers its
    spikes, m = m * sigmoid(h / tau) + s, and v = h - s * (v_threshold + sigmoid(m)).

    On a CPU the sigmoid has the bits that it has in torch; on a GPU it may differ in the last one.

    Args:
        x: input, as in `cuba`.
        v0, m0: states before the first step, the shape of one step. None starts at 0.
        tau: membrane time constant in steps, at least 1. A number; or a tensor with one value, one per channel, or a
            shape that broadcasts against one step, which gets a gradient.
        v_threshold: number or tensor alike.
        surrogate, fire, output, return_state, backend, time_axis, channel_axis: as in `cuba`; the states are (v, m).

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``output`` and ``return_state`` ask for.

    >>> clif(torch.tensor([0.8, 0.4, 0.9, 0.4, 1.0])).tolist()
    [0.0, 0.0, 1.0, 0.0, 1.0]
    """
    settings = {
        "tau": tau, "decay_input": False, "v_threshold": v_threshold, "reset": "none", "surrogate": surrogate,
        "fire": fire,
    }  # fmt: skip
    return _run(
        "clif", x, {"v0": v0, "m0": m0}, settings, {}, None, output, return_state, backend, time_axis, channel_axis
    )


def _run(
    model: str, x: Tensor, states: dict[str, Tensor | None], settings: dict[str, Any], others: dict[str, Number],
    window: Window | None, output: str, return_state: bool, backend: str | None, time_axis: int = 0,
    channel_axis: int | None = None,
) -> Result:  # fmt: skip
    """Checks and runs a model: `settings` are those of the spiking part, `others` the parameters beside them."""
    if time_axis != 0 or channel_axis is not None:
        check_strided("x", x)
        axes = Axes(x, time_axis, channel_axis)
        found = _run(
            model, axes.usual(x),
            {name: axes.usual_step(state) for name, state in states.items()},
            {name: axes.usual_parameter(value) for name, value in settings.items()},
            {name: axes.usual_parameter(value) for name, value in others.items()},
            window, output, return_state, backend,
        )  # fmt: skip
        if isinstance(found, Tensor):
            return axes.restored(found)
        return axes.restored(found[0]), tuple(axes.restored_step(state) for state in found[1])
    neuron, parameters = neuron_of(model, settings, others, window)
    one_of("output", output, tuple(OUTPUTS))
    x = floating(x)
    check_tensor("x", x)
    check_steps(x)
    row = x.shape[1:]
    names = "v_threshold", next(name for name in ("beta", "rate", "tau") if name in settings), *others
    result, last = op.multistate(
        Inputs(
            neuron, x, tuple(checked_state(name, state, x, row) for name, state in states.items()),
            tuple(checked_parameter(name, p, x, row) for name, p in zip(names, parameters, strict=True)),
        ),
        OUTPUTS[output], return_state, backend,
    )  # fmt: skip
    return (result, last) if return_state else result
