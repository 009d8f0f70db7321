"""The mathematics of cell.py on a block of neurons.

Order of operations and true division are those of csrc/math/neuron.h, so that float32 bits agree. State is float32.
"""

import triton
import triton.language as tl

from deal_kernels._common.triton_surrogate import number, surrogate_slope


@triton.jit
def over_decay(a, decay, RATE: tl.constexpr):
    if RATE:
        return a * decay
    else:
        return tl.div_rn(a, decay)


@triton.jit
def charged(v, x, decay, rest, CHARGE: tl.constexpr, RATE: tl.constexpr):
    if CHARGE == "decay_input":
        return v + over_decay(x - (v - rest), decay, RATE)
    elif CHARGE == "decay":
        return (v - over_decay(v - rest, decay, RATE)) + x
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
def hard_reset(h, s, reset_to, FIRE: tl.constexpr):
    if FIRE == "levels":
        return s * reset_to + (1.0 - s) * h
    else:
        return tl.where(s > 0.0, reset_to, h)


@triton.jit
def cleared(v, threshold, reset_to, levels, FIRE: tl.constexpr, RESET: tl.constexpr):
    """The state that enters a step, after a hard reset if that takes place at the next step."""
    return hard_reset(v, fire(v, threshold, levels, FIRE), reset_to, FIRE) if RESET == "next_hard" else v


@triton.jit
def earlier_spike(v, threshold, levels, FIRE: tl.constexpr, RESET: tl.constexpr):
    """The spike of the state that enters a step, where it counts."""
    if RESET == "next_soft" or RESET == "twice_soft":
        return fire(v, threshold, levels, FIRE)
    else:
        return number(0.0)


@triton.jit
def reset(v, h, s, threshold, reset_to, amount, levels, FIRE: tl.constexpr, RESET: tl.constexpr):
    """The state after a step that v entered."""
    if RESET == "hard":
        return hard_reset(h, s, reset_to, FIRE)
    elif RESET == "soft":
        return h - s * amount
    elif RESET == "twice_soft":
        return h - (s - fire(v, threshold, levels, FIRE)) * amount
    else:
        return h


@triton.jit
def normalised(x, mean, scale, shift):
    return (x.to(tl.float32) - mean) * scale + shift


@triton.jit
def advance(
    v, x, decay, threshold, rest, reset_to, amount, levels,
    CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr,
):  # fmt: skip
    """One step: the membrane before the reset, the spike, and the state after."""
    start = cleared(v, threshold, reset_to, levels, FIRE, RESET)
    h = charged(start, x.to(tl.float32), decay, rest, CHARGE, RATE)
    if RESET == "next_soft" or RESET == "twice_soft":
        h = h - fire(v, threshold, levels, FIRE) * amount
    s = fire(h, threshold, levels, FIRE)
    return h, s, reset(v, h, s, threshold, reset_to, amount, levels, FIRE, RESET)


@triton.jit
def spike_slope(h, threshold, alpha, height, outside, FIRE: tl.constexpr, SURROGATE: tl.constexpr):
    if FIRE == "levels":
        ratio = tl.div_rn(h, threshold)
        return tl.div_rn(surrogate_slope(ratio, alpha, height, outside, SURROGATE), threshold)
    else:
        return surrogate_slope(h - threshold, alpha, height, outside, SURROGATE)


@triton.jit
def reset_slope(h, reset_to, amount, RESET: tl.constexpr):
    if RESET == "hard":
        return reset_to - h
    else:
        return 0.0 - amount


@triton.jit
def charge_gradient(h, s, slope, grad_s, grad_v, reset_to, amount, RESET: tl.constexpr, DETACH: tl.constexpr):
    """The gradient of h, from that of the spike and that of the state after the step."""
    if RESET == "none" or (RESET == "next_hard" or RESET == "next_soft"):
        return grad_s * slope + grad_v
    else:
        through = 1.0 - s if RESET == "hard" else 1.0
        if not DETACH:
            through = through + reset_slope(h, reset_to, amount, RESET) * slope
        return grad_s * slope + grad_v * through


@triton.jit
def state_gradient(v, grad_h, share, threshold, levels, FIRE: tl.constexpr, RESET: tl.constexpr):
    """The gradient of the state v that enters the step."""
    if RESET == "next_hard":
        return (grad_h * share) * (1.0 - fire(v, threshold, levels, FIRE))
    else:
        return grad_h * share


@triton.jit
def threshold_gradient(
    v, h, s, slope, grad_s, grad_v, grad_h, threshold, reset_to, amount, levels,
    FIRE: tl.constexpr, RESET: tl.constexpr, DETACH: tl.constexpr, OWN_AMOUNT: tl.constexpr,
):  # fmt: skip
    grad_spike = grad_s
    if (RESET == "hard" or (RESET == "soft" or RESET == "twice_soft")) and not DETACH:
        grad_spike = grad_spike + grad_v * reset_slope(h, reset_to, amount, RESET)
    moved = slope * tl.div_rn(h, threshold) if FIRE == "levels" else slope
    grad = -(grad_spike * moved)
    if not OWN_AMOUNT:
        earlier = earlier_spike(v, threshold, levels, FIRE, RESET)
        if RESET == "soft":
            grad = grad - grad_v * s
        if RESET == "twice_soft":
            grad = grad - grad_v * (s - earlier)
        if RESET == "next_soft" or RESET == "twice_soft":
            grad = grad - grad_h * earlier
    return grad


@triton.jit
def decay_gradient(
    x, v, grad_h, decay, threshold, rest, reset_to, levels,
    CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr,
):  # fmt: skip
    """v is the state that enters the step."""
    start = cleared(v, threshold, reset_to, levels, FIRE, RESET)
    if CHARGE == "beta":
        return grad_h * start
    else:
        pull = start - rest
        pulled = x - pull if CHARGE == "decay_input" else -pull
        if RATE:
            return grad_h * pulled
        else:
            return -(grad_h * over_decay(over_decay(pulled, decay, RATE), decay, RATE))


@triton.jit
def input_share(decay, CHARGE: tl.constexpr, RATE: tl.constexpr):
    """The gradient of the input as a share of that of h."""
    return over_decay(number(1.0), decay, RATE) if CHARGE == "decay_input" else number(1.0)


@triton.jit
def state_share(decay, CHARGE: tl.constexpr, RATE: tl.constexpr, CARRIES: tl.constexpr):
    """The gradient of the state that the charge starts from as a share of that of h."""
    if not CARRIES:
        return number(0.0)
    else:
        return decay if CHARGE == "beta" else 1.0 - over_decay(number(1.0), decay, RATE)
