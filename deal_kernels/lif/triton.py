"""The spiking neuron as Triton kernels: a program runs a block of neurons through all steps."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.layout import group_of, inner_of
from deal_kernels._common.parameters import period
from deal_kernels._common.triton_block import block_of, inside_if, kind_of, lanes_of_group, parameter
from deal_kernels._common.triton_neuron import (
    advance,
    charge_gradient,
    decay_gradient,
    fire,
    input_share,
    normalised,
    spike_slope,
    state_gradient,
    state_share,
    threshold_gradient,
)
from deal_kernels._common.triton_surrogate import number
from deal_kernels.lif.reference import Inputs

FORWARD_BLOCK = {torch.float32: 512, torch.float16: 1024, torch.bfloat16: 1024}  # 16 bytes of x a thread
FORWARD_WARPS = 4
BACKWARD_BLOCK = 512
BACKWARD_WARPS = {4: 4, 8: 8}  # of a segment of so many steps: 16 membranes a thread spill no registers
SIZES = (
    "steps", "neurons", "group", "time_stride", "shortcut_stride", "channels", "inner", "decay_channels", "decay_inner",
    "threshold_channels", "threshold_inner",
)  # fmt: skip


@triton.jit
def initial_state(v0, rest, first, lane, inside, BLOCK: tl.constexpr):
    return tl.full([BLOCK], rest, tl.float32) if v0 is None else tl.load(v0 + first + lane, mask=inside)


@triton.jit
def packed(s, inside, BLOCK: tl.constexpr):
    """Spikes as bytes [BLOCK / 8], the first neuron in the lowest bit."""
    bits = tl.reshape(((s != 0.0) & inside).to(tl.int32), [BLOCK // 8, 8])
    return tl.sum(bits << tl.arange(0, 8)[None, :], axis=1).to(tl.uint8)


@triton.jit
def norm_of(mean, scale, shift, channels, inner, first, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """Mean, scale and shift of a block of neurons; an empty tuple without a norm."""
    if mean is None:
        return ()
    else:
        return (
            parameter(mean, channels, inner, first, KIND, BLOCK),
            parameter(scale, channels, inner, first, KIND, BLOCK),
            parameter(shift, channels, inner, first, KIND, BLOCK),
        )


@triton.jit
def load_row(x, shortcut, by, lane, inside):
    """A row of x and, if there is one, that of the shortcut, `by` elements on."""
    if shortcut is None:
        return (tl.load(x + lane, mask=inside),)
    else:
        return tl.load(x + lane, mask=inside), tl.load(shortcut + by + lane, mask=inside)


@triton.jit
def segment_rows(x, shortcut, lane, left, stride, shortcut_stride, step, steps, SEGMENT: tl.constexpr):
    """A tuple of the rows from `step` on, all their loads in flight at once."""
    x += step * stride
    by = step * shortcut_stride
    rows = ()
    for k in tl.static_range(SEGMENT):
        rows += (load_row(x, shortcut, by, lane, inside_if(step + k < steps, lane, left)),)
        x += stride
        by += shortcut_stride
    return rows


@triton.jit
def current(row, norm):
    """The input current: x, or x normalised plus the shortcut."""
    if len(norm) == 0:
        return row[0]
    else:
        y = normalised(row[0], norm[0], norm[1], norm[2])
        return y if len(row) == 1 else y + row[1].to(tl.float32)


@triton.jit
def centred(row, norm):
    """x - mean"""
    return row[0].to(tl.float32) - norm[0]


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, v0, decay, threshold, mean, norm_scale, shift, shortcut, out, v_out,
    rest, reset_to, amount, levels, scale, steps, neurons, group, time_stride, shortcut_stride, channels, inner,
    decay_channels, decay_inner, threshold_channels, threshold_inner,
    UNIT: tl.constexpr, GROUPED: tl.constexpr, DECAY: tl.constexpr, THRESHOLD: tl.constexpr, NORM: tl.constexpr,
    CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr, OWN_AMOUNT: tl.constexpr,
    OUTPUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, group = neurons.to(tl.int64) * UNIT, group.to(tl.int64) * UNIT
    time_stride, shortcut_stride = time_stride.to(tl.int64) * UNIT, shortcut_stride.to(tl.int64) * UNIT
    first, place, lane, left = lanes_of_group(neurons, group, steps, UNIT, GROUPED, BLOCK)
    inside = lane < left
    decay = parameter(decay, decay_channels, decay_inner, first, DECAY, BLOCK)
    threshold = parameter(threshold, threshold_channels, threshold_inner, first, THRESHOLD, BLOCK)
    reset_to, amount = number(reset_to), number(amount) if OWN_AMOUNT else threshold
    norm = norm_of(mean, norm_scale, shift, channels, inner, first, NORM, BLOCK)
    if shortcut is not None:
        shortcut += place
    rest, levels, scale = number(rest), number(levels), number(scale)
    width = (neurons + 7) // 8
    byte = tl.arange(0, BLOCK // 8)
    x += place
    if OUTPUT == "packed":
        out += first // 8
    else:
        out += first if OUTPUT == "mean" else place

    v = initial_state(v0, rest, first, lane, inside, BLOCK)
    count = tl.zeros([BLOCK], tl.float32)
    following = load_row(x, shortcut, 0, lane, inside)
    for t in range(steps):
        # The next step is called for before a store of this one, which the compiler moves no load across.
        row = following
        x += time_stride
        following = load_row(x, shortcut, (t + 1) * shortcut_stride, lane, inside_if(t + 1 < steps, lane, left))
        y = current(row, norm)
        h, s, v = advance(v, y, decay, threshold, rest, reset_to, amount, levels, CHARGE, RATE, FIRE, RESET)
        if OUTPUT == "spikes":
            tl.store(out + lane, (s * scale).to(out.dtype.element_ty), mask=inside)
            out += group
        elif OUTPUT == "states" or OUTPUT == "membranes":
            tl.store(out + lane, v if OUTPUT == "states" else h, mask=inside)
            out += group
        elif OUTPUT == "mean":
            count += s
        else:
            tl.store(out + byte, packed(s, inside, BLOCK), mask=byte * 8 < left)
            out += width
    if OUTPUT == "mean":
        rate = tl.div_rn(count, steps.to(tl.float32)) * scale
        tl.store(out + lane, rate.to(out.dtype.element_ty), mask=inside)
    if v_out is not None:
        tl.store(v_out + first + lane, v, mask=inside)


# x is all that was kept. The membranes of a segment of steps are computed again and held in registers,
# which moves the fewest bytes: a step reads x and grad and writes grad_x once. Where the steps are more
# than one segment, a first pass reads x (but for the last segment) to find the state every segment
# starts from; that costs one more read of x and 8 / SEGMENT bytes a step. Larger segments spill registers.
@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    x, v0, decay, threshold, mean, norm_scale, shift, shortcut, grad, grad_v, slopes, starts,
    grad_x, grad_v0, grad_decay, grad_threshold, norm_sums,
    rest, reset_to, amount, levels, scale, alpha, height, outside,
    steps, neurons, group, time_stride, shortcut_stride, channels, inner,
    decay_channels, decay_inner, threshold_channels, threshold_inner,
    UNIT: tl.constexpr, GROUPED: tl.constexpr, DECAY: tl.constexpr, THRESHOLD: tl.constexpr, NORM: tl.constexpr,
    CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr, OWN_AMOUNT: tl.constexpr,
    DETACH: tl.constexpr, CARRIES: tl.constexpr, SURROGATE: tl.constexpr, OUTPUT: tl.constexpr,
    CONSTANT: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, group = neurons.to(tl.int64) * UNIT, group.to(tl.int64) * UNIT
    time_stride, shortcut_stride = time_stride.to(tl.int64) * UNIT, shortcut_stride.to(tl.int64) * UNIT
    first, place, lane, left = lanes_of_group(neurons, group, steps, UNIT, GROUPED, BLOCK)
    inside = lane < left
    decay = parameter(decay, decay_channels, decay_inner, first, DECAY, BLOCK)
    threshold = parameter(threshold, threshold_channels, threshold_inner, first, THRESHOLD, BLOCK)
    reset_to, amount = number(reset_to), number(amount) if OWN_AMOUNT else threshold
    norm = norm_of(mean, norm_scale, shift, channels, inner, first, NORM, BLOCK)
    if shortcut is not None:
        shortcut += place
    rest, levels, scale = number(rest), number(levels), number(scale)
    alpha, height, outside = number(alpha), number(height), number(outside)
    steps = steps.to(tl.int64)
    segments = tl.cdiv(steps, SEGMENT)
    x += place
    grad += first if OUTPUT == "mean" else place
    grad_x += place
    if slopes is not None:
        slopes += place
    if starts is not None:
        starts += first

    v = initial_state(v0, rest, first, lane, inside, BLOCK)
    if starts is not None:
        for segment in range(segments - 1):
            tl.store(starts + lane, v, mask=inside)
            starts += neurons
            step = segment * SEGMENT
            rows = segment_rows(x, shortcut, lane, left, time_stride, shortcut_stride, step, steps, SEGMENT)
            for k in tl.static_range(SEGMENT):
                y = current(rows[k], norm)
                _, _, v = advance(v, y, decay, threshold, rest, reset_to, amount, levels, CHARGE, RATE, FIRE, RESET)
        # Another thread of the block may load what this one stored.
        tl.debug_barrier()

    grad_state = tl.zeros([BLOCK], tl.float32) if grad_v is None else tl.load(grad_v + first + lane, mask=inside)
    share_of_input, share_of_state = input_share(decay, CHARGE, RATE), state_share(decay, CHARGE, RATE, CARRIES)
    zero = tl.zeros([BLOCK], tl.float32)
    sum_x, sum_product, sum_decay, sum_threshold = zero, zero, zero, zero
    if OUTPUT == "mean":
        mean_grad = tl.div_rn(tl.load(grad + lane, mask=inside).to(tl.float32), steps.to(tl.float32))
    for later in range(segments):
        step = (segments - 1 - later) * SEGMENT
        rows = segment_rows(x, shortcut, lane, left, time_stride, shortcut_stride, step, steps, SEGMENT)
        if OUTPUT != "mean":
            grads = segment_rows(grad, None, lane, left, group, 0, step, steps, SEGMENT)
        if SURROGATE == "given":
            given = segment_rows(slopes, None, lane, left, group, 0, step, steps, SEGMENT)
        entered = ()
        membranes = ()
        for k in tl.static_range(SEGMENT):
            y = current(rows[k], norm)
            entered += (v,)
            h, _, v = advance(v, y, decay, threshold, rest, reset_to, amount, levels, CHARGE, RATE, FIRE, RESET)
            membranes += (h,)
        target = grad_x + (step + SEGMENT) * group
        for k in tl.static_range(SEGMENT - 1, -1, -1):
            target -= group
            live = step + k < steps  # the last segment may be longer than what is left
            h = membranes[k]
            s = fire(h, threshold, levels, FIRE)
            if SURROGATE == "given":
                slope = given[k][0]
            else:
                slope = spike_slope(h, threshold, alpha, height, outside, FIRE, SURROGATE)
            grad_s = zero
            if OUTPUT == "mean":
                grad_s = mean_grad * scale
            elif OUTPUT == "spikes":
                grad_s = grads[k][0].to(tl.float32) * scale
            elif OUTPUT == "states":
                grad_state += tl.where(live, grads[k][0], 0.0)
            grad_h = charge_gradient(h, s, slope, grad_s, grad_state, reset_to, amount, RESET, DETACH)
            if OUTPUT == "membranes":
                grad_h += grads[k][0]
            if grad_threshold is not None:
                share = threshold_gradient(
                    entered[k], h, s, slope, grad_s, grad_state, grad_h, threshold, reset_to, amount, levels,
                    FIRE, RESET, DETACH, OWN_AMOUNT,
                )  # fmt: skip
                sum_threshold += tl.where(live, share, 0.0)
            if grad_decay is not None:
                y = current(rows[k], norm).to(tl.float32)
                share = decay_gradient(
                    y, entered[k], grad_h, decay, threshold, rest, reset_to, levels, CHARGE, RATE, FIRE, RESET
                )  # fmt: skip
                sum_decay += tl.where(live, share, 0.0)
            grad_input = grad_h * share_of_input
            if CONSTANT or norm_sums is not None:
                sum_x += tl.where(live, grad_input, 0.0)
            if not CONSTANT:
                tl.store(target + lane, grad_input.to(grad_x.dtype.element_ty), mask=inside_if(live, lane, left))
                if norm_sums is not None:
                    sum_product += tl.where(live, grad_input * centred(rows[k], norm), 0.0)
            carried = state_gradient(entered[k], grad_h, share_of_state, threshold, levels, FIRE, RESET)
            grad_state = tl.where(live, carried, grad_state)
        if starts is not None:
            starts -= neurons
            v = tl.load(starts + lane, mask=inside_if(later + 1 < segments, lane, left))

    if CONSTANT:
        tl.store(grad_x + lane, sum_x.to(grad_x.dtype.element_ty), mask=inside)
    if norm_sums is not None:
        if CONSTANT:
            sum_product = sum_x * centred(load_row(x, None, 0, lane, inside), norm)
        norm_sums += first
        tl.store(norm_sums + lane, sum_x, mask=inside)
        tl.store(norm_sums + neurons + lane, sum_product, mask=inside)
    if grad_v0 is not None:
        tl.store(grad_v0 + first + lane, grad_state, mask=inside)
    if grad_decay is not None:
        tl.store(grad_decay + first + lane, sum_decay, mask=inside)
    if grad_threshold is not None:
        tl.store(grad_threshold + first + lane, sum_threshold, mask=inside)


def forward(i: Inputs, output: str, spikes: Tensor, v: Tensor | None) -> None:
    """Writes spikes and, if v is given, the final state. Tensors are named as in op.py."""
    _launch(forward_kernel, i, output, FORWARD_BLOCK[i.x.dtype], FORWARD_WARPS, out=spikes, v_out=v)


def backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, slopes: Tensor | None,
    grad_x: Tensor, grad_v0: Tensor | None, grad_decay: Tensor | None, grad_threshold: Tensor | None,
    norm_sums: Tensor | None,
) -> None:  # fmt: skip
    """Writes the gradient of x (normalised, with a norm), and of v0, decay and threshold as far as they are wanted.

    With a norm also each neuron's sums of that gradient, and of it times x - mean, [2, N] in memory.
    """
    n, segment = i.neuron, 4 if i.length() <= 4 else 8
    kind, numbers = n.slope()
    saved = (i.length() - 1) // segment
    starts = i.x.new_empty(saved, i.row().numel(), dtype=torch.float32) if saved else None  # [segments - 1, N]
    _launch(
        backward_kernel, i, output, BACKWARD_BLOCK, BACKWARD_WARPS[segment],
        **dict(zip(("alpha", "height", "outside"), numbers, strict=True)), slopes=slopes, starts=starts, grad=grad,
        grad_v=grad_v, grad_x=grad_x, grad_v0=grad_v0, grad_decay=grad_decay, grad_threshold=grad_threshold,
        norm_sums=norm_sums, DETACH=n.detach_reset, CARRIES=n.carries, SURROGATE=kind, CONSTANT=i.steps is not None,
        SEGMENT=segment,
    )  # fmt: skip


def _launch(kernel: Any, i: Inputs, output: str, block: int, warps: int, **arguments: Any) -> None:
    n, x, v0, decay, threshold, steps, norm = i
    n = n if decay is not None else n.with_reciprocal()
    mean, scale, shift, shortcut = norm or (None, None, None, None)
    step = i.step()
    neurons = step.numel()
    stride, group = (x.stride(0), group_of(x)) if steps is None else (0, neurons)
    block = block_of(group, neurons, block)
    # Sizes count units: that neurons come in eights is all the compiler needs for 16-byte accesses.
    unit = 8 if group % 8 == 0 and stride % 8 == 0 else 1
    channels, inner = (step.shape[1], inner_of(step)) if norm is not None else (1, 1)
    for name, p in (("decay", decay), ("threshold", threshold)):
        of_parameter = (1, 1) if p is None else period(p, step)
        arguments |= dict(zip((f"{name}_channels", f"{name}_inner"), of_parameter, strict=True))
    with torch.cuda.device_of(x):
        kernel[(neurons // group * triton.cdiv(group, block),)](
            x=x, v0=v0, decay=n.decay if decay is None else decay, rest=n.rest, reset_to=n.reset_to,
            amount=n.amount or 0.0, levels=float(n.levels), scale=n.scale,
            threshold=n.threshold if threshold is None else threshold,
            mean=mean, norm_scale=scale, shift=shift, shortcut=shortcut,
            steps=i.length(), neurons=neurons // unit, group=group // unit, time_stride=stride // unit,
            shortcut_stride=group // unit if steps is None else 0, channels=channels, inner=inner,
            UNIT=unit, GROUPED=group < neurons, DECAY=kind_of(decay), THRESHOLD=kind_of(threshold), NORM=kind_of(mean),
            CHARGE=n.charge, RATE=n.rate, FIRE="levels" if n.levels > 1 else n.fire, RESET=n.reset,
            OWN_AMOUNT=n.amount is not None, OUTPUT=output, BLOCK=block, num_warps=warps, enable_fp_fusion=False,
            **arguments,
        )  # fmt: skip
