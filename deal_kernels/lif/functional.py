"""`lif`: check, dispatch, return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from deal_kernels._common.axes import in_usual_order
from deal_kernels._common.checks import check_strided, floating, refuse_gradient
from deal_kernels._common.dispatch import transformed
from deal_kernels._common.layout import in_memory_order, same_layout
from deal_kernels._common.neuron import NeuronSettings, lif_neuron, neuron_and_tensors, shows
from deal_kernels.lif import op, reference
from deal_kernels.lif.arguments import check_input, output_of, state_and_parameters
from deal_kernels.lif.reference import Inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

Output = Literal["spikes", "v", "h"]
Reduce = Literal["mean"] | None


@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, steps: int | None = None, output: Output = "spikes", reduce: Reduce = None,
    pack: bool = False, return_state: Literal[False] = False, backend: str | None = None, out: Tensor | None = None,
    time_axis: int = 0, channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor: ...  # fmt: skip
@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, steps: int | None = None, output: Output = "spikes", reduce: Reduce = None,
    pack: bool = False, return_state: Literal[True], backend: str | None = None, out: Tensor | None = None,
    time_axis: int = 0, channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, steps: int | None = None, output: Output = "spikes", reduce: Reduce = None,
    pack: bool = False, return_state: bool, backend: str | None = None, out: Tensor | None = None,
    time_axis: int = 0, channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
@shows(lif_neuron)
def lif(
    x: Tensor, v0: Tensor | None = None, *, steps: int | None = None, output: Output = "spikes", reduce: Reduce = None,
    pack: bool = False, return_state: bool = False, backend: str | None = None, out: Tensor | None = None,
    time_axis: int = 0, channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Runs a layer of spiking neurons over time.

    Per neuron, with state v, at every step:

    ==============================  ==================================
    charge                          h
    ==============================  ==================================
    ``tau``, ``decay_input=True``   v + (x - (v - v_rest)) / tau
    ``tau``, ``decay_input=False``  (v - (v - v_rest) / tau) + x
    ``beta``                        beta * v + x
    ``tau=None``                    v + x  (integrate-and-fire)
    ==============================  ==================================

    The neuron fires, s = 1, where h reaches ``v_threshold``. Then the state is reset. r is 1 where the state that
    entered the step would fire, else 0:

    ==============  =====================================================================
    ``reset``       state after the step
    ==============  =====================================================================
    "hard"          v = v_reset where it fired, else h
    "soft"          v = h - s reset_by
    "none"          v = h
    "next_hard"     v = h; where r is 1, the step was charged from v_reset instead of v
    "next_soft"     v = h, where r reset_by was subtracted from h after the charge
    "twice_soft"    v = h - (s - r) reset_by, with the h of "next_soft"
    ==============  =====================================================================

    The last three are those of snnTorch: its default, ``reset_delay=True``, and subtraction with ``reset_delay=False``.

    Args:
        x: input current [T, B, C, ...] (at least [T]), or [B, C, ...] with ``steps``. float32, float16, bfloat16 or
            float64; half types are computed with float32 state, and integers and truth values become the default dtype.
            Dense layouts, channels-last among them, are read without a copy; other layouts are copied once. Where time
            is not outermost in memory, at least 32 neurons have to lie side by side.
        v0: state before the first step, the shape of one step. None starts at v_rest.
        tau: membrane time constant in steps, at least 1 (2 if none of ``tau``, ``rate`` and ``beta`` is given). A
            number; or a tensor with one value, one per channel, or a shape that broadcasts against one step, which gets
            a gradient. None is a neuron without decay.
        rate: 1 / tau, instead of ``tau``: the step multiplies by it. Number or tensor alike.
        beta: share of the state that is kept from step to step, instead of ``tau``; number or tensor alike.
        decay_input: whether the input is divided by tau, too.
        v_threshold: number or tensor alike.
        v_reset: value of the hard reset; None is the soft reset.
        v_rest: the state that decay leads to. None is v_reset for a hard reset, and 0 otherwise.
        reset: see the table; "auto" is "hard", or "soft" if ``v_reset`` is None.
        reset_by: what a soft reset subtracts; None is the threshold.
        detach_reset: passes no gradient through the spike in the reset. A reset at the next step never passes any.
        carry_gradient: False passes no gradient from a step to the one before (SLTT).
        surrogate: replaces the derivative of the step function. A name takes its usual sharpness: "sigmoid" (alpha 4),
            "atan" (2), "triangle" (1), "rectangle" (1), "fast_sigmoid" (slope 25), "erf" (2), "exponential" (1). An
            object of `deal_kernels.surrogate`, such as ``ATan(alpha=3.0)``, has its own. Or a function of
            u = h - v_threshold that returns the derivative; it is called once, with all steps.
        fire: "ge" fires at h >= v_threshold, "gt" at h > v_threshold.
        levels: D > 1 fires whole numbers, s = round(clamp(h / v_threshold, 0, D)). The surrogate is then a
            `surrogate.Window`, the range of that ratio in which its derivative is 1; 0 to D if none is given. A hard
            reset becomes v = s v_reset + (1 - s) h.
        scale: factor of the output; the reset uses the spikes without it.
        steps: T, when x is one current that is held for all steps.
        output: "spikes"; "v", the states after every step; or "h", those before the reset. States are float32 for half
            types.
        reduce: "mean" returns the mean of the spikes over time, [B, C, ...].
        pack: returns bits, [T, ceil(N / 8)] bytes of the neurons in memory order; see `unpack`. No gradient.
        return_state: returns (spikes, v) with the state after the last step, float32 for half types.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        out: receives the result; it may be x itself for plain spikes. No gradient.
        time_axis: the axis of x that is time. 1 is for [B, T, C, ...], which is read without a copy. What is returned
            has its axes in the order of x.
        channel_axis: the axis of x whose values per-channel parameters are for, such as -1 for [T, B, N, C]. None is
            the one after time and batch. v0 and parameters with values per neuron have their axes in the order of x.

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``output``, ``reduce``, ``pack`` and
        ``return_state`` ask for.

    >>> x = torch.randn(4, 2, 8, 5, 5, requires_grad=True)  # [T, B, C, H, W]
    >>> spikes, v = lif(x, tau=2.0, v_reset=None, surrogate="atan", return_state=True)
    >>> spikes.shape, v.shape
    (torch.Size([4, 2, 8, 5, 5]), torch.Size([2, 8, 5, 5]))
    >>> x = torch.randn(2, 4, 100, 8)  # [B, T, N, C]
    >>> lif(x, tau=torch.linspace(1.5, 3, 8), time_axis=1, channel_axis=-1, reduce="mean").shape
    torch.Size([2, 100, 8])
    """
    if time_axis != 0 or channel_axis is not None:
        check_strided("x", x)
        return in_usual_order(  # type: ignore[no-any-return]
            lif, x, time_axis, channel_axis, v0=v0, steps=steps, output=output, reduce=reduce, pack=pack,
            return_state=return_state, backend=backend, out=out, **settings,
        )  # fmt: skip
    neuron, decay, threshold = neuron_and_tensors(settings)
    if v0 is steps is out is decay is threshold is reduce is None and not (return_state or pack) and output == "spikes":
        quick = op.spikes_at_once(neuron, x, backend)
        if quick is not None:
            return quick
    x = floating(x)
    check_input(x, steps)
    kept = output_of(output, reduce, pack, neuron)
    if v0 is not None or decay is not None or threshold is not None:
        v0, decay, threshold = state_and_parameters(x, steps, v0, decay, threshold)
    inputs = Inputs(neuron, x, v0, decay, threshold, steps)
    if out is not None:
        _check_out(inputs, kept, out)
        spikes, v = op.launch_forward(inputs, kept, return_state, backend, out)
    else:
        if pack:
            refuse_gradient("pack=True", x, v0, decay, threshold)
        spikes, v = op.lif(inputs, kept, return_state, backend)
    return (spikes, v) if return_state else spikes  # type: ignore[return-value]


def unpack(packed: Tensor, like: Tensor | Sequence[int]) -> Tensor:
    """Spikes [T, ...] from the bits of ``lif(..., pack=True)``.

    Args:
        packed: [T, ceil(N / 8)] bytes.
        like: one step of the input, for its shape, dtype and layout, or just its shape (float32, contiguous).

    >>> x = torch.randn(4, 2, 10)
    >>> torch.equal(unpack(lif(x, pack=True), x[0]), lif(x))
    True
    """
    row = like if isinstance(like, Tensor) else torch.empty(tuple(like), dtype=torch.float32, device="meta")
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.shape[1] != (row.numel() + 7) // 8:
        raise ValueError(
            f"packed must be uint8 [T, {(row.numel() + 7) // 8}] for a step of shape {tuple(row.shape)}; "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    step = torch.empty_like(row, device="meta").stride()  # dense, in the order of row
    spikes = torch.empty_strided((len(packed), *row.shape), (row.numel(), *step), dtype=row.dtype, device=packed.device)
    in_memory_order(spikes, step).copy_(reference.unpack(packed, row.numel()))
    return spikes


def _check_out(inputs: Inputs, output: str, out: Tensor) -> None:
    refuse_gradient("out=", inputs.x, inputs.v0, inputs.decay, inputs.threshold)
    if transformed():
        raise ValueError("out= has no place in torch.func and forward mode: leave it out there")
    shape, strides, dtype = op.result_layout(op.with_dense_input(inputs, output), output)
    if tuple(out.shape) != shape or out.dtype != dtype or out.device != inputs.x.device:
        raise ValueError(
            f"out must be {dtype} {shape} on {inputs.x.device}; got {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    if out.numel() and not same_layout(out.shape, out.stride(), strides):
        raise ValueError(f"out must have the strides {strides}; got {out.stride()}")
