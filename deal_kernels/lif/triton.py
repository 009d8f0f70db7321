"""The spiking neuron as Triton kernels: the mathematics of reference.py on blocks of neurons, time inside.

Order of operations and true division are those of csrc/math/neuron.h, so that float32 bits agree. State is float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels.lif.reference import Inputs

FORWARD_BLOCK = {torch.float32: 512, torch.float16: 1024, torch.bfloat16: 1024}  # 16 bytes of x a thread
FORWARD_WARPS = 4
BACKWARD_BLOCK = 512
BACKWARD_WARPS = {4: 4, 8: 8}  # of a segment of so many steps: 16 membranes a thread spill no registers
SIZES = ("steps", "neurons", "time_stride", "decay_channels", "threshold_channels", "inner")


@triton.jit
def number(a):
    # The interpreter hands over Python floats, whose products among each other would be float64.
    return tl.full((), a, tl.float32)


@triton.jit
def over_decay(a, decay, MULTIPLY: tl.constexpr):
    if MULTIPLY:
        return a * decay
    else:
        return tl.div_rn(a, decay)


@triton.jit
def charge(v, x, decay, rest, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr):
    if CHARGE == "decay_input":
        return v + over_decay(x - (v - rest), decay, MULTIPLY)
    elif CHARGE == "decay":
        return (v - over_decay(v - rest, decay, MULTIPLY)) + x
    else:
        return decay * v + x


@triton.jit
def fire(h, threshold, levels, FIRE: tl.constexpr):
    if FIRE == "ge":
        return tl.where(h >= threshold, 1.0, 0.0)
    elif FIRE == "gt":
        return tl.where(h > threshold, 1.0, 0.0)
    else:
        # Comparisons let NaN through, as torch does. Adding and subtracting 1.5 * 2^23 leaves the nearest
        # integer, ties to even.
        ratio = tl.div_rn(h, threshold)
        raised = tl.where(ratio < 0.0, 0.0, ratio)
        return (tl.where(raised > levels, levels, raised) + 12582912.0) - 12582912.0


@triton.jit
def reset(h, s, threshold, rest, FIRE: tl.constexpr, RESET: tl.constexpr):
    if RESET == "hard":
        if FIRE == "levels":
            return s * rest + (1.0 - s) * h
        else:
            return tl.where(s > 0.0, rest, h)
    elif RESET == "soft":
        return h - s * threshold
    else:
        return h


@triton.jit
def advance(
    v, x, decay, threshold, rest, levels,
    CHARGE: tl.constexpr, MULTIPLY: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr,
):  # fmt: skip
    """One step: the membrane before the reset, the spike, and the state after."""
    h = charge(v, x.to(tl.float32), decay, rest, CHARGE, MULTIPLY)
    s = fire(h, threshold, levels, FIRE)
    return h, s, reset(h, s, threshold, rest, FIRE, RESET)


@triton.jit
def surrogate_slope(u, alpha, SURROGATE: tl.constexpr):
    if SURROGATE == "sigmoid":
        # sigma(1 - sigma) is even in u; e <= 1 keeps it free of overflow and cancellation.
        e = tl.exp(-alpha * tl.abs(u))
        d = 1.0 + e
        return alpha * tl.div_rn(e, d * d)
    elif SURROGATE == "atan":
        w = (1.5707963267948966 * alpha) * u
        return tl.div_rn(alpha * 0.5, 1.0 + w * w)
    elif SURROGATE == "triangle":
        w = alpha - (alpha * alpha) * tl.abs(u)
        return tl.where(w < 0.0, 0.0, w)
    else:
        return tl.where(tl.abs(u) < tl.div_rn(0.5, alpha), alpha, 0.0)


@triton.jit
def spike_slope(h, threshold, levels, alpha, FIRE: tl.constexpr, SURROGATE: tl.constexpr):
    if FIRE == "levels":
        ratio = tl.div_rn(h, threshold)
        return tl.div_rn(tl.where((ratio >= 0.0) & (ratio <= levels), 1.0, 0.0), threshold)
    else:
        return surrogate_slope(h - threshold, alpha, SURROGATE)


@triton.jit
def reset_slope(h, threshold, rest, RESET: tl.constexpr):
    if RESET == "hard":
        return rest - h
    else:
        return 0.0 - threshold


@triton.jit
def charge_gradient(h, s, slope, grad_s, grad_v, threshold, rest, RESET: tl.constexpr, DETACH: tl.constexpr):
    """The gradient of h, from that of the spike and that of the state after the reset."""
    if RESET == "none":
        return grad_s * slope + grad_v
    else:
        through = 1.0 - s if RESET == "hard" else 1.0
        if not DETACH:
            through = through + reset_slope(h, threshold, rest, RESET) * slope
        return grad_s * slope + grad_v * through


@triton.jit
def threshold_gradient(
    h, s, slope, grad_s, grad_v, threshold, rest, FIRE: tl.constexpr, RESET: tl.constexpr, DETACH: tl.constexpr
):
    grad_spike = grad_s
    if RESET != "none" and not DETACH:
        grad_spike = grad_spike + grad_v * reset_slope(h, threshold, rest, RESET)
    moved = slope * tl.div_rn(h, threshold) if FIRE == "levels" else slope
    grad = -(grad_spike * moved)
    return grad - grad_v * s if RESET == "soft" else grad


@triton.jit
def decay_gradient(x, v, grad_h, decay, rest, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr):
    """v is the state that entered the step."""
    if CHARGE == "leak":
        return grad_h * v
    else:
        pull = v - rest
        divided = x - pull if CHARGE == "decay_input" else -pull
        return -(grad_h * over_decay(over_decay(divided, decay, MULTIPLY), decay, MULTIPLY))


@triton.jit
def input_share(decay, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr):
    """The gradient of the input as a share of that of h."""
    return over_decay(number(1.0), decay, MULTIPLY) if CHARGE == "decay_input" else number(1.0)


@triton.jit
def state_share(decay, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr):
    """The gradient of the state that entered the step as a share of that of h."""
    return decay if CHARGE == "leak" else 1.0 - over_decay(number(1.0), decay, MULTIPLY)


@triton.jit
def parameter(p, channels, inner, first, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """The decay or threshold of a block of neurons: p is a number, or points to one value or to one per channel."""
    if KIND == "number":
        return number(p)
    elif KIND == "one":
        return tl.load(p)
    else:
        # Only the block's first neuron takes slow divisions in 64 bits.
        within = (first % inner).to(tl.uint32) + tl.arange(0, BLOCK).to(tl.uint32)
        channel = (first // inner % channels).to(tl.uint32) + within // inner.to(tl.uint32)
        return tl.load(p + channel % channels.to(tl.uint32))


@triton.jit
def initial_state(v0, rest, first, lane, inside, BLOCK: tl.constexpr):
    return tl.full([BLOCK], rest, tl.float32) if v0 is None else tl.load(v0 + first + lane, mask=inside)


@triton.jit
def packed(s, inside, BLOCK: tl.constexpr):
    """Spikes as bytes [BLOCK / 8], the first neuron in the lowest bit."""
    bits = tl.reshape(((s != 0.0) & inside).to(tl.int32), [BLOCK // 8, 8])
    return tl.sum(bits << tl.arange(0, 8)[None, :], axis=1).to(tl.uint8)


@triton.jit
def place(neurons, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    """The block's first neuron, its lanes, and how many of them are neurons."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    # The hint keeps every access in one layout, also where only some of the rows are aligned.
    return first, tl.max_contiguous(tl.arange(0, BLOCK), UNIT), tl.minimum(neurons - first, BLOCK).to(tl.int32)


@triton.jit
def inside_if(exists, lane, left):
    """Which lanes of a row are neurons: none where the row does not exist."""
    return lane < tl.where(exists, left, 0)


@triton.jit
def segment_rows(p, lane, left, stride, step, steps, SEGMENT: tl.constexpr):
    """A tuple of the rows from `step` on, all their loads in flight at once."""
    p += step * stride
    rows = ()
    for k in tl.static_range(SEGMENT):
        rows += (tl.load(p + lane, mask=inside_if(step + k < steps, lane, left)),)
        p += stride
    return rows


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, v0, decay, threshold, out, v_out,
    rest, levels, steps, neurons, time_stride, decay_channels, threshold_channels, inner,
    UNIT: tl.constexpr, DECAY: tl.constexpr, THRESHOLD: tl.constexpr, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr,
    FIRE: tl.constexpr, RESET: tl.constexpr, OUTPUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, time_stride = neurons.to(tl.int64) * UNIT, time_stride.to(tl.int64) * UNIT
    first, lane, left = place(neurons, UNIT, BLOCK)
    inside = lane < left
    decay = parameter(decay, decay_channels, inner, first, DECAY, BLOCK)
    threshold = parameter(threshold, threshold_channels, inner, first, THRESHOLD, BLOCK)
    rest, levels = number(rest), number(levels)
    width = (neurons + 7) // 8
    byte = tl.arange(0, BLOCK // 8)
    x += first
    out += first // 8 if OUTPUT == "packed" else first

    v = initial_state(v0, rest, first, lane, inside, BLOCK)
    count = tl.zeros([BLOCK], tl.float32)
    following = tl.load(x + lane, mask=inside)
    for t in range(steps):
        # The next step is called for before a store of this one, which the compiler moves no load across.
        current = following
        x += time_stride
        following = tl.load(x + lane, mask=inside_if(t + 1 < steps, lane, left))
        _, s, v = advance(v, current, decay, threshold, rest, levels, CHARGE, MULTIPLY, FIRE, RESET)
        if OUTPUT == "spikes":
            tl.store(out + lane, s.to(out.dtype.element_ty), mask=inside)
            out += neurons
        elif OUTPUT == "mean":
            count += s
        else:
            tl.store(out + byte, packed(s, inside, BLOCK), mask=byte * 8 < left)
            out += width
    if OUTPUT == "mean":
        mean = tl.div_rn(count, steps.to(tl.float32))
        tl.store(out + lane, mean.to(out.dtype.element_ty), mask=inside)
    if v_out is not None:
        tl.store(v_out + first + lane, v, mask=inside)


# x is all that was kept. The membranes of a segment of steps are computed again and held in registers,
# which moves the fewest bytes: a step reads x and grad and writes grad_x once. Where the steps are more
# than one segment, a first pass reads x (but for the last segment) to find the state every segment
# starts from; that costs one more read of x and 8 / SEGMENT bytes a step. Larger segments spill registers.
@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    x, v0, decay, threshold, grad, grad_v, starts, grad_x, grad_v0, grad_decay, grad_threshold,
    rest, levels, alpha, steps, neurons, time_stride, decay_channels, threshold_channels, inner,
    UNIT: tl.constexpr, DECAY: tl.constexpr, THRESHOLD: tl.constexpr, CHARGE: tl.constexpr, MULTIPLY: tl.constexpr,
    FIRE: tl.constexpr, RESET: tl.constexpr, DETACH: tl.constexpr, SURROGATE: tl.constexpr, MEAN: tl.constexpr,
    CONSTANT: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, time_stride = neurons.to(tl.int64) * UNIT, time_stride.to(tl.int64) * UNIT
    first, lane, left = place(neurons, UNIT, BLOCK)
    inside = lane < left
    decay = parameter(decay, decay_channels, inner, first, DECAY, BLOCK)
    threshold = parameter(threshold, threshold_channels, inner, first, THRESHOLD, BLOCK)
    rest, levels, alpha = number(rest), number(levels), number(alpha)
    steps = steps.to(tl.int64)
    segments = tl.cdiv(steps, SEGMENT)
    x += first
    grad += first
    grad_x += first
    if starts is not None:
        starts += first

    v = initial_state(v0, rest, first, lane, inside, BLOCK)
    if starts is not None:
        for segment in range(segments - 1):
            tl.store(starts + lane, v, mask=inside)
            starts += neurons
            inputs = segment_rows(x, lane, left, time_stride, segment * SEGMENT, steps, SEGMENT)
            for k in tl.static_range(SEGMENT):
                _, _, v = advance(v, inputs[k], decay, threshold, rest, levels, CHARGE, MULTIPLY, FIRE, RESET)
        # Another thread of the block may load what this one stored.
        tl.debug_barrier()

    grad_state = tl.zeros([BLOCK], tl.float32) if grad_v is None else tl.load(grad_v + first + lane, mask=inside)
    share_of_input, share_of_state = input_share(decay, CHARGE, MULTIPLY), state_share(decay, CHARGE, MULTIPLY)
    zero = tl.zeros([BLOCK], tl.float32)
    sum_x, sum_decay, sum_threshold = zero, zero, zero
    if MEAN:
        mean_grad = tl.div_rn(tl.load(grad + lane, mask=inside).to(tl.float32), steps.to(tl.float32))
    for later in range(segments):
        step = (segments - 1 - later) * SEGMENT
        inputs = segment_rows(x, lane, left, time_stride, step, steps, SEGMENT)
        if not MEAN:
            grads = segment_rows(grad, lane, left, neurons, step, steps, SEGMENT)
        start = v
        membranes = ()
        for k in tl.static_range(SEGMENT):
            h, _, v = advance(v, inputs[k], decay, threshold, rest, levels, CHARGE, MULTIPLY, FIRE, RESET)
            membranes += (h,)
        row = grad_x + (step + SEGMENT) * neurons
        for k in tl.static_range(SEGMENT - 1, -1, -1):
            row -= neurons
            live = step + k < steps  # the last segment may be longer than what is left
            h = membranes[k]
            s = fire(h, threshold, levels, FIRE)
            slope = spike_slope(h, threshold, levels, alpha, FIRE, SURROGATE)
            grad_s = mean_grad if MEAN else grads[k].to(tl.float32)
            grad_h = charge_gradient(h, s, slope, grad_s, grad_state, threshold, rest, RESET, DETACH)
            if grad_threshold is not None:
                share = threshold_gradient(h, s, slope, grad_s, grad_state, threshold, rest, FIRE, RESET, DETACH)
                sum_threshold += tl.where(live, share, 0.0)
            if grad_decay is not None:
                entered = start
                if k > 0:
                    before = membranes[k - 1]
                    entered = reset(before, fire(before, threshold, levels, FIRE), threshold, rest, FIRE, RESET)
                share = decay_gradient(inputs[k].to(tl.float32), entered, grad_h, decay, rest, CHARGE, MULTIPLY)
                sum_decay += tl.where(live, share, 0.0)
            grad_input = grad_h * share_of_input
            if CONSTANT:
                sum_x += tl.where(live, grad_input, 0.0)
            else:
                tl.store(row + lane, grad_input.to(grad_x.dtype.element_ty), mask=inside_if(live, lane, left))
            grad_state = tl.where(live, grad_h * share_of_state, grad_state)
        if starts is not None:
            starts -= neurons
            v = tl.load(starts + lane, mask=inside_if(later + 1 < segments, lane, left))

    if CONSTANT:
        tl.store(grad_x + lane, sum_x.to(grad_x.dtype.element_ty), mask=inside)
    if grad_v0 is not None:
        tl.store(grad_v0 + first + lane, grad_state, mask=inside)
    if grad_decay is not None:
        tl.store(grad_decay + first + lane, sum_decay, mask=inside)
    if grad_threshold is not None:
        tl.store(grad_threshold + first + lane, sum_threshold, mask=inside)


def forward(i: Inputs, output: str, spikes: Tensor, v: Tensor | None) -> None:
    """Writes spikes and, if wanted, the final state; op.py names the tensors."""
    _launch(forward_kernel, i, FORWARD_BLOCK[i.x.dtype], FORWARD_WARPS, out=spikes, v_out=v, OUTPUT=output)


def backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str,
    grad_x: Tensor, grad_v0: Tensor | None, grad_decay: Tensor | None, grad_threshold: Tensor | None,
) -> None:  # fmt: skip
    """Writes the gradient of x, and of v0, decay and threshold as far as they are wanted."""
    segment = 4 if i.length <= 4 else 8
    saved = (i.length - 1) // segment
    starts = i.x.new_empty(saved, i.row.numel(), dtype=torch.float32) if saved else None  # [segments - 1, N]
    _launch(
        backward_kernel, i, BACKWARD_BLOCK, BACKWARD_WARPS[segment], alpha=i.neuron.alpha, starts=starts,
        grad=grad, grad_v=grad_v, grad_x=grad_x, grad_v0=grad_v0, grad_decay=grad_decay, grad_threshold=grad_threshold,
        DETACH=i.neuron.detach_reset, SURROGATE=i.neuron.surrogate, MEAN=output == "mean",
        CONSTANT=i.steps is not None, SEGMENT=segment,
    )  # fmt: skip


def _launch(kernel: Any, i: Inputs, block: int, warps: int, **arguments: Any) -> None:
    n, x, v0, decay, threshold, steps = i
    neurons = i.row.numel()
    stride = x.stride(0) if steps is None else 0
    # Sizes count units: that neurons come in eights is all the compiler needs for 16-byte accesses.
    unit = 8 if neurons % 8 == 0 and stride % 8 == 0 else 1
    multiply = decay is None and n.multiplies
    decay_number = 1 / n.decay if multiply else n.decay
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(neurons, block),)](
            x=x, v0=v0, decay=decay_number if decay is None else decay, rest=n.rest, levels=float(n.levels),
            threshold=n.threshold if threshold is None else threshold,
            steps=i.length, neurons=neurons // unit, time_stride=stride // unit,
            decay_channels=1 if decay is None else decay.numel(),
            threshold_channels=1 if threshold is None else threshold.numel(),
            inner=i.row.stride(1) if "channels" in (_kind(decay), _kind(threshold)) else 1,
            UNIT=unit, DECAY=_kind(decay), THRESHOLD=_kind(threshold), CHARGE=n.charge, MULTIPLY=multiply,
            FIRE="levels" if n.levels > 1 else n.fire, RESET=n.reset, BLOCK=block,
            num_warps=warps, enable_fp_fusion=False, **arguments,
        )  # fmt: skip


def _kind(parameter: Tensor | None) -> str:
    if parameter is None:
        return "number"
    return "one" if parameter.numel() == 1 else "channels"
