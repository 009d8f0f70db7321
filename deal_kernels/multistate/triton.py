"""Neurons with several states as Triton kernels: a program runs a block of neurons through all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.layout import group_of
from deal_kernels._common.parameters import period
from deal_kernels._common.triton_block import block_of, inside_if, kind_of, lanes_of_group, parameter
from deal_kernels._common.triton_neuron import number, spike_slope
from deal_kernels.multistate.neuron import MOST_PARAMETERS, MOST_STATES
from deal_kernels.multistate.reference import Inputs
from deal_kernels.multistate.triton_models import initial, reverse, step

BLOCK, WARPS = 256, 4
SEGMENT = 4  # steps whose states the backward pass holds in registers
SIZES = (
    "steps", "neurons", "group", "time_stride", "channels_0", "inner_0", "channels_1", "inner_1", "channels_2",
    "inner_2", "channels_3", "inner_3", "channels_4", "inner_4",
)  # fmt: skip


@triton.jit
def load_states(a, b, c, first, lane, inside, p, rest, MODEL: tl.constexpr, BLOCK: tl.constexpr):
    """The initial states: those that are given, and where neurons start."""
    one = load_state(a, 0, first, lane, inside, p, rest, MODEL, BLOCK)
    other = load_state(b, 1, first, lane, inside, p, rest, MODEL, BLOCK)
    if MODEL == "lsnn":
        return one, other, load_state(c, 2, first, lane, inside, p, rest, MODEL, BLOCK)
    else:
        return one, other


@triton.jit
def load_state(given, k: tl.constexpr, first, lane, inside, p, rest, MODEL: tl.constexpr, BLOCK: tl.constexpr):
    if given is None:
        return tl.zeros([BLOCK], tl.float32) + initial(k, p, rest, MODEL)
    else:
        return tl.load(given + first + lane, mask=inside)


@triton.jit
def load_gradient(given, first, lane, inside, BLOCK: tl.constexpr):
    return tl.zeros([BLOCK], tl.float32) if given is None else tl.load(given + first + lane, mask=inside)


@triton.jit
def load_gradients(a, b, c, first, lane, inside, MODEL: tl.constexpr, BLOCK: tl.constexpr):
    one = load_gradient(a, first, lane, inside, BLOCK)
    other = load_gradient(b, first, lane, inside, BLOCK)
    if MODEL == "lsnn":
        return one, other, load_gradient(c, first, lane, inside, BLOCK)
    else:
        return one, other


@triton.jit
def save(target, value, first, lane, inside):
    if target is not None:
        tl.store(target + first + lane, value, mask=inside)


@triton.jit
def parameters(
    p_0, p_1, p_2, p_3, p_4, channels_0, inner_0, channels_1, inner_1, channels_2, inner_2, channels_3, inner_3,
    channels_4, inner_4, first,
    KIND_0: tl.constexpr, KIND_1: tl.constexpr, KIND_2: tl.constexpr, KIND_3: tl.constexpr, KIND_4: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    return (
        parameter(p_0, channels_0, inner_0, first, KIND_0, BLOCK),
        parameter(p_1, channels_1, inner_1, first, KIND_1, BLOCK),
        parameter(p_2, channels_2, inner_2, first, KIND_2, BLOCK),
        parameter(p_3, channels_3, inner_3, first, KIND_3, BLOCK),
        parameter(p_4, channels_4, inner_4, first, KIND_4, BLOCK),
    )


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x, start_0, start_1, start_2, p_0, p_1, p_2, p_3, p_4, out, last_0, last_1, last_2,
    rest, reset_to, amount, steps, neurons, group, time_stride, channels_0, inner_0, channels_1, inner_1, channels_2,
    inner_2, channels_3, inner_3, channels_4, inner_4,
    UNIT: tl.constexpr, GROUPED: tl.constexpr, KIND_0: tl.constexpr, KIND_1: tl.constexpr, KIND_2: tl.constexpr,
    KIND_3: tl.constexpr, KIND_4: tl.constexpr, MODEL: tl.constexpr, CHARGE: tl.constexpr, RATE: tl.constexpr,
    FIRE: tl.constexpr, RESET: tl.constexpr, OWN_AMOUNT: tl.constexpr, OUTPUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, group, time_stride = (
        neurons.to(tl.int64) * UNIT,
        group.to(tl.int64) * UNIT,
        time_stride.to(tl.int64) * UNIT,
    )
    first, place, lane, left = lanes_of_group(neurons, group, steps, UNIT, GROUPED, BLOCK)
    inside = lane < left
    p = parameters(
        p_0, p_1, p_2, p_3, p_4, channels_0, inner_0, channels_1, inner_1, channels_2, inner_2, channels_3, inner_3,
        channels_4, inner_4, first, KIND_0, KIND_1, KIND_2, KIND_3, KIND_4, BLOCK,
    )  # fmt: skip
    n = (number(rest), number(reset_to), number(amount))
    states = load_states(start_0, start_1, start_2, first, lane, inside, p, n[0], MODEL, BLOCK)
    x += place
    out += place
    following = tl.load(x + lane, mask=inside)
    for t in range(steps):
        # The next step is called for before a store of this one, which the compiler moves no load across.
        current = following.to(tl.float32)
        x += time_stride
        following = tl.load(x + lane, mask=inside_if(t + 1 < steps, lane, left))
        _, _, s, states = step(states, current, p, n, MODEL, CHARGE, RATE, FIRE, RESET, OWN_AMOUNT)
        if OUTPUT == "spikes":
            tl.store(out + lane, s.to(out.dtype.element_ty), mask=inside)
        else:
            tl.store(out + lane, states[0], mask=inside)
        out += group
    save(last_0, states[0], first, lane, inside)
    save(last_1, states[1], first, lane, inside)
    if MODEL == "lsnn":
        save(last_2, states[2], first, lane, inside)


# As in the kernel of lif: x is all that was kept, the states of a segment of steps are computed again and held in
# registers, and where there are several segments a first pass finds the states that each starts from.
@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    x, start_0, start_1, start_2, p_0, p_1, p_2, p_3, p_4, grad, grad_last_0, grad_last_1, grad_last_2, starts, grad_x,
    grad_start_0, grad_start_1, grad_start_2, grad_p_0, grad_p_1, grad_p_2, grad_p_3, grad_p_4,
    rest, reset_to, amount, alpha, height, outside, low, high, steps, neurons, group, time_stride,
    channels_0, inner_0, channels_1, inner_1, channels_2, inner_2, channels_3, inner_3, channels_4, inner_4,
    UNIT: tl.constexpr, GROUPED: tl.constexpr, KIND_0: tl.constexpr, KIND_1: tl.constexpr, KIND_2: tl.constexpr,
    KIND_3: tl.constexpr, KIND_4: tl.constexpr, MODEL: tl.constexpr, CHARGE: tl.constexpr, RATE: tl.constexpr,
    FIRE: tl.constexpr, RESET: tl.constexpr, OWN_AMOUNT: tl.constexpr, OUTPUT: tl.constexpr, DETACH: tl.constexpr,
    SURROGATE: tl.constexpr, WINDOWED: tl.constexpr, STATES: tl.constexpr, PARAMETERS: tl.constexpr,
    SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    neurons, group, time_stride = (
        neurons.to(tl.int64) * UNIT,
        group.to(tl.int64) * UNIT,
        time_stride.to(tl.int64) * UNIT,
    )
    first, place, lane, left = lanes_of_group(neurons, group, steps, UNIT, GROUPED, BLOCK)
    inside = lane < left
    p = parameters(
        p_0, p_1, p_2, p_3, p_4, channels_0, inner_0, channels_1, inner_1, channels_2, inner_2, channels_3, inner_3,
        channels_4, inner_4, first, KIND_0, KIND_1, KIND_2, KIND_3, KIND_4, BLOCK,
    )  # fmt: skip
    n = (number(rest), number(reset_to), number(amount))
    alpha, height, outside, low, high = number(alpha), number(height), number(outside), number(low), number(high)
    steps = steps.to(tl.int64)
    segments = tl.cdiv(steps, SEGMENT)
    x += place
    grad += place
    grad_x += place
    states = load_states(start_0, start_1, start_2, first, lane, inside, p, n[0], MODEL, BLOCK)
    if starts is not None:
        starts += first
        for segment in range(segments - 1):
            for k in tl.static_range(STATES):
                tl.store(starts + k * neurons + lane, states[k], mask=inside)
            starts += STATES * neurons
            for k in tl.static_range(SEGMENT):
                current = tl.load(x + (segment * SEGMENT + k) * time_stride + lane, mask=inside).to(tl.float32)
                _, _, _, states = step(states, current, p, n, MODEL, CHARGE, RATE, FIRE, RESET, OWN_AMOUNT)
        # Another thread of the block may load what this one stored.
        tl.debug_barrier()

    zero = tl.zeros([BLOCK], tl.float32)
    grads = load_gradients(grad_last_0, grad_last_1, grad_last_2, first, lane, inside, MODEL, BLOCK)
    shares = repeated(zero, PARAMETERS)
    for later in range(segments):
        begin = (segments - 1 - later) * SEGMENT
        rows = ()
        of_output = ()
        for k in tl.static_range(SEGMENT):
            here = inside_if(begin + k < steps, lane, left)
            rows += (tl.load(x + (begin + k) * time_stride + lane, mask=here),)
            of_output += (tl.load(grad + (begin + k) * group + lane, mask=here),)
        entered = ()
        for k in tl.static_range(SEGMENT):
            entered += (states,)
            _, _, _, states = step(
                states, rows[k].to(tl.float32), p, n, MODEL, CHARGE, RATE, FIRE, RESET, OWN_AMOUNT
            )  # fmt: skip
        for k in tl.static_range(SEGMENT - 1, -1, -1):
            live = begin + k < steps  # the last segment may be longer than what is left
            current = rows[k].to(tl.float32)
            h, threshold, s, _ = step(entered[k], current, p, n, MODEL, CHARGE, RATE, FIRE, RESET, OWN_AMOUNT)
            slope = spike_slope(h, threshold, alpha, height, outside, FIRE, SURROGATE)
            if WINDOWED:
                slope = tl.where((h > low) & (h < high), slope, 0.0)
            of_step = grads
            grad_s = zero
            if OUTPUT == "spikes":
                grad_s = of_output[k].to(tl.float32)
            else:
                of_step = added_to_first(grads, of_output[k])
            found_x, found, found_p = reverse(
                entered[k], current, p, n, h, threshold, s, slope, grad_s, of_step,
                MODEL, CHARGE, RATE, FIRE, RESET, OWN_AMOUNT, DETACH,
            )  # fmt: skip
            target = grad_x + (begin + k) * group + lane
            tl.store(target, found_x.to(grad_x.dtype.element_ty), mask=inside_if(live, lane, left))
            grads = where_each(live, found, grads, STATES)
            shares = added_where(live, shares, found_p, PARAMETERS)
        if starts is not None:
            starts -= STATES * neurons
            states = ()
            for k in tl.static_range(STATES):
                here = inside_if(later + 1 < segments, lane, left)
                states += (tl.load(starts + k * neurons + lane, mask=here),)

    save(grad_start_0, grads[0], first, lane, inside)
    save(grad_start_1, grads[1], first, lane, inside)
    save(grad_p_0, shares[0], first, lane, inside)
    save(grad_p_1, shares[1], first, lane, inside)
    if STATES > 2:
        save(grad_start_2, grads[2], first, lane, inside)
    if PARAMETERS > 2:
        save(grad_p_2, shares[2], first, lane, inside)
    if PARAMETERS > 3:
        save(grad_p_3, shares[3], first, lane, inside)
    if PARAMETERS > 4:
        save(grad_p_4, shares[4], first, lane, inside)


@triton.jit
def repeated(value, COUNT: tl.constexpr):
    """A tuple of so many times the value."""
    values = ()
    for _ in tl.static_range(COUNT):
        values += (value,)
    return values


@triton.jit
def added_to_first(values, more):
    """The tuple with `more` added to its first value."""
    if len(values) == 2:
        return values[0] + more, values[1]
    else:
        return values[0] + more, values[1], values[2]


@triton.jit
def where_each(condition, one, other, COUNT: tl.constexpr):
    result = ()
    for k in tl.static_range(COUNT):
        result += (tl.where(condition, one[k], other[k]),)
    return result


@triton.jit
def added_where(condition, sums, more, COUNT: tl.constexpr):
    result = ()
    for k in tl.static_range(COUNT):
        result += (sums[k] + tl.where(condition, more[k], 0.0),)
    return result


def forward(i: Inputs, output: str, out: Tensor, last: Sequence[Tensor | None]) -> None:
    """Writes the result, and the final states that are given. Tensors are named as in op.py."""
    _launch(forward_kernel, i, output, out=out, **_named("last", last, MOST_STATES))


def backward(
    i: Inputs, grad: Tensor, grad_last: Sequence[Tensor | None], output: str, grad_x: Tensor,
    starts: Sequence[Tensor | None], shares: Sequence[Tensor | None],
) -> None:  # fmt: skip
    """Writes the gradient of x, and of the initial states and each neuron's share of the parameters' where given."""
    cell = i.neuron.cell
    kind, (alpha, height, outside) = cell.slope()
    low, high = i.neuron.window or (0.0, 0.0)
    saved = (i.x.shape[0] - 1) // SEGMENT
    states = len(i.states)
    _launch(
        backward_kernel, i, output, grad=grad, grad_x=grad_x, alpha=alpha, height=height, outside=outside, low=low,
        high=high, starts=i.x.new_empty(saved, states, i.step().numel(), dtype=torch.float32) if saved else None,
        **_named("grad_last", grad_last, MOST_STATES), **_named("grad_start", starts, MOST_STATES),
        **_named("grad_p", shares, MOST_PARAMETERS), DETACH=cell.detach_reset, SURROGATE=kind,
        WINDOWED=i.neuron.window is not None, STATES=states, PARAMETERS=len(i.parameters), SEGMENT=SEGMENT,
    )  # fmt: skip


def _named(name: str, values: Sequence[Any], count: int) -> dict[str, Any]:
    return {f"{name}_{k}": values[k] if k < len(values) else None for k in range(count)}


def _launch(kernel: Any, i: Inputs, output: str, **arguments: Any) -> None:
    x, step = i.x, i.step()
    parameters: list[Tensor | None] = list(i.parameters)
    cell = i.neuron.cell if parameters[1] is not None else i.neuron.cell.with_reciprocal()
    numbers = cell.threshold, cell.decay, *i.neuron.numbers
    for k in range(MOST_PARAMETERS):
        p = parameters[k] if k < len(parameters) else None
        channels, inner = (1, 1) if p is None else period(p, step)
        value = p if p is not None else numbers[k] if k < len(numbers) else 0.0
        arguments |= {f"p_{k}": value, f"channels_{k}": channels, f"inner_{k}": inner, f"KIND_{k}": kind_of(p)}
    neurons, group, stride = step.numel(), group_of(x), x.stride(0)
    block = block_of(group, neurons, BLOCK)
    # Sizes count units: that neurons come in eights is all the compiler needs for 16-byte accesses.
    unit = 8 if group % 8 == 0 and stride % 8 == 0 else 1
    with torch.cuda.device_of(x):
        kernel[(neurons // group * triton.cdiv(group, block),)](
            x=x, **_named("start", i.states, MOST_STATES), rest=cell.rest, reset_to=cell.reset_to,
            amount=cell.amount or 0.0, steps=x.shape[0], neurons=neurons // unit, group=group // unit,
            time_stride=stride // unit, UNIT=unit, GROUPED=group < neurons, MODEL=i.neuron.model, CHARGE=cell.charge,
            RATE=cell.rate, FIRE=cell.fire, RESET=cell.reset,
            OWN_AMOUNT=cell.amount is not None, OUTPUT=output, BLOCK=block, num_warps=WARPS, enable_fp_fusion=False,
            **arguments,
        )  # fmt: skip
