"""The mathematics of reference.py on a block of neurons.

Order of operations and true division are those of csrc/math/neuron.h, so that float32 bits agree. State is float32.
"""

import triton
import triton.language as tl


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
def normalised(x, mean, scale, shift):
    return (x.to(tl.float32) - mean) * scale + shift


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
def surrogate_slope(u, alpha, height, SURROGATE: tl.constexpr):
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
    elif SURROGATE == "rectangle":
        return tl.where(tl.abs(u) < tl.div_rn(0.5, alpha), alpha, 0.0)
    elif SURROGATE == "fast_sigmoid":
        w = 1.0 + alpha * tl.abs(u)
        return tl.div_rn(height, w * w)
    else:
        w = alpha * u
        return (0.5641895835477563 * alpha) * tl.exp(-(w * w))


@triton.jit
def spike_slope(h, threshold, levels, alpha, height, FIRE: tl.constexpr, SURROGATE: tl.constexpr):
    if FIRE == "levels":
        ratio = tl.div_rn(h, threshold)
        return tl.div_rn(tl.where((ratio >= 0.0) & (ratio <= levels), 1.0, 0.0), threshold)
    else:
        return surrogate_slope(h - threshold, alpha, height, SURROGATE)


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
    if CHARGE == "beta":
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
    return decay if CHARGE == "beta" else 1.0 - over_decay(number(1.0), decay, MULTIPLY)
