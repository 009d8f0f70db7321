"""`lif`: check, dispatch, return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from deal_kernels._common.checks import refuse_gradient
from deal_kernels._common.layout import dense, in_memory_order, same_layout
from deal_kernels._common.types import Number
from deal_kernels.lif import op, reference
from deal_kernels.lif.arguments import check_input, output_of, state_and_parameters
from deal_kernels.lif.neuron import Default, Fire, Reset, SurrogateLike, neuron_of, numbers_and_tensors
from deal_kernels.lif.reference import Inputs

Reduce = Literal["mean"] | None


@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, tau: Number | Default | None = Default.TAU, beta: Number | None = None,
    decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0, reset: Reset = "auto",
    detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1,
    steps: int | None = None, reduce: Reduce = None, pack: bool = False, return_state: Literal[False] = False,
    backend: str | None = None, out: Tensor | None = None,
) -> Tensor: ...  # fmt: skip
@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, tau: Number | Default | None = Default.TAU, beta: Number | None = None,
    decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0, reset: Reset = "auto",
    detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1,
    steps: int | None = None, reduce: Reduce = None, pack: bool = False, return_state: Literal[True],
    backend: str | None = None, out: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def lif(
    x: Tensor, v0: Tensor | None = None, *, tau: Number | Default | None = Default.TAU, beta: Number | None = None,
    decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0, reset: Reset = "auto",
    detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1,
    steps: int | None = None, reduce: Reduce = None, pack: bool = False, return_state: bool,
    backend: str | None = None, out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
def lif(
    x: Tensor, v0: Tensor | None = None, *, tau: Number | Default | None = Default.TAU, beta: Number | None = None,
    decay_input: bool = True, v_threshold: Number = 1.0, v_reset: float | None = 0.0, reset: Reset = "auto",
    detach_reset: bool = False, surrogate: SurrogateLike = "sigmoid", fire: Fire = "ge", levels: int = 1,
    steps: int | None = None, reduce: Reduce = None, pack: bool = False, return_state: bool = False,
    backend: str | None = None, out: Tensor | None = None,
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

    The neuron fires, s = 1, where h reaches ``v_threshold``. Then the reset: hard, v = v_reset where it fired, else h;
    soft, v = h - s v_threshold; none, v = h. v_rest is v_reset for a hard reset and 0 otherwise.

    Args:
        x: input current [T, B, C, ...] (at least [T]), or [B, C, ...] with ``steps``. float32, float16, bfloat16 or
            float64; half types are computed with float32 state. Dense layouts, channels-last among them, are read
            without a copy; other layouts are copied once.
        v0: state before the first step, the shape of one step. None starts at v_rest.
        tau: membrane time constant in steps, at least 1 (2 if neither it nor ``beta`` is given). A number, or a tensor
            with one value or one per channel, which gets a gradient. None is a neuron without decay.
        beta: share of the state that is kept from step to step, instead of ``tau``; number or tensor alike.
        decay_input: whether the input is divided by tau, too.
        v_threshold: number or tensor alike.
        v_reset: value of the hard reset; None is the soft reset.
        reset: "auto" follows ``v_reset``; or "hard", "soft", "none".
        detach_reset: passes no gradient through the spike in the reset.
        surrogate: replaces the derivative of the step function. A name takes its usual sharpness: "sigmoid" (alpha 4),
            "atan" (2), "triangle" (1), "rectangle" (1), "fast_sigmoid" (slope 25), "erf" (2). An object of
            `deal_kernels.surrogate`, such as ``ATan(alpha=3.0)``, has its own. A function of u = h - v_threshold that
            returns the derivative runs on the torch backend alone.
        fire: "ge" fires at h >= v_threshold, "gt" at h > v_threshold.
        levels: D > 1 fires whole numbers, s = round(clamp(h / v_threshold, 0, D)). The surrogate is then the derivative
            of that ratio inside the range. A hard reset becomes v = s v_reset + (1 - s) h.
        steps: T, when x is one current that is held for all steps.
        reduce: "mean" returns the mean over time, [B, C, ...].
        pack: returns bits, [T, ceil(N / 8)] bytes of the neurons in memory order; see `unpack`. No gradient.
        return_state: returns (spikes, v) with the state after the last step, float32 for half types.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        out: receives the result; it may be x itself for plain spikes. No gradient.

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``reduce``, ``pack`` and ``return_state`` ask for.

    >>> x = torch.randn(4, 2, 8, 5, 5, requires_grad=True)  # [T, B, C, H, W]
    >>> spikes, v = lif(x, tau=2.0, v_reset=None, surrogate="atan", return_state=True)
    >>> spikes.shape, v.shape
    (torch.Size([4, 2, 8, 5, 5]), torch.Size([2, 8, 5, 5]))
    """
    decay = threshold = None
    if tau is Default.TAU and beta is None:
        tau = 2.0
    if type(tau) is not float or type(v_threshold) is not float or beta is not None:
        tau, beta, v_threshold, decay, threshold = numbers_and_tensors(tau, beta, v_threshold)
    settings = (tau, beta, decay_input, v_threshold, v_reset, reset, detach_reset, surrogate, fire, levels)
    neuron = neuron_of(*settings)
    if v0 is steps is out is decay is threshold is reduce is None and not (return_state or pack):
        quick = op.spikes_at_once(neuron, x, backend)
        if quick is not None:
            return quick
    check_input(x, steps)
    output = output_of(reduce, pack, levels)
    if v0 is not None or decay is not None or threshold is not None:
        v0, decay, threshold = state_and_parameters(x, steps, v0, decay, threshold)
    inputs = Inputs(neuron, x, v0, decay, threshold, steps)
    if out is not None:
        _check_out(inputs, output, out)
        spikes, v = op.launch_forward(inputs, output, return_state, backend, out)
    else:
        if pack:
            refuse_gradient("pack=True", x, v0, decay, threshold)
        spikes, v = op.lif(inputs, output, return_state, backend)
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
    strides = (row.numel(), *row.stride())
    spikes = torch.empty_strided((len(packed), *row.shape), strides, dtype=row.dtype, device=packed.device)
    in_memory_order(spikes, row.stride()).copy_(reference.unpack(packed, row.numel()))
    return spikes


def _check_out(inputs: Inputs, output: str, out: Tensor) -> None:
    refuse_gradient("out=", inputs.x, inputs.v0, inputs.decay, inputs.threshold)
    shape, strides, dtype = op.result_layout(inputs._replace(x=dense(inputs.x, inputs.steps is None)), output)
    if tuple(out.shape) != shape or out.dtype != dtype or out.device != inputs.x.device:
        raise ValueError(
            f"out must be {dtype} {shape} on {inputs.x.device}; got {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    if out.numel() and not same_layout(out.shape, out.stride(), strides):
        raise ValueError(f"out must have the strides {strides}; got {out.stride()}")
