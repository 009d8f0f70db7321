"""The steps of reference.py on a block of neurons, and their derivatives, in float32.

`p` are the parameters, `entered`, `left` and `grads` tuples of states or of their gradients, `n` the numbers of the
neuron: (rest, reset_to, amount).
"""

import triton
import triton.language as tl

from deal_kernels._common.triton_neuron import (
    charge_gradient,
    charged,
    decay_gradient,
    fire,
    input_share,
    number,
    over_decay,
    reset,
    state_gradient,
    state_share,
    threshold_gradient,
)


@triton.jit
def logistic(a):
    return tl.div_rn(number(1.0), 1.0 + tl.exp(0.0 - a))


@triton.jit
def remembered(m, h, s, decay, RATE: tl.constexpr):
    """What "clif" remembers after a step."""
    return m * logistic(over_decay(h, decay, RATE)) + s


@triton.jit
def amount_of(threshold, n, OWN_AMOUNT: tl.constexpr):
    """What a soft reset subtracts."""
    return n[2] if OWN_AMOUNT else threshold


@triton.jit
def initial(k: tl.constexpr, p, rest, MODEL: tl.constexpr):
    """A state that is not given."""
    if k == 0 and MODEL != "clif":
        return rest
    elif k == 2:
        return p[0]
    else:
        return number(0.0)


@triton.jit
def step(
    entered, x, p, n,
    MODEL: tl.constexpr, CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr,
    OWN_AMOUNT: tl.constexpr,
):  # fmt: skip
    """The membrane potential before the reset, the threshold, the spikes, and the states after the step."""
    v, second, threshold = entered[0], entered[1], p[0]
    if MODEL == "cuba":
        if RATE:
            c = second + x
            h = v + p[1] * ((n[0] - v) + c)
            left = c - p[2] * c
        else:
            left = p[2] * second + x
            h = p[1] * v + left
        if RESET == "next_hard":
            h = tl.where(fire(v, threshold, 1.0, FIRE) > 0.0, n[1], h)
        if RESET == "next_soft" or RESET == "twice_soft":
            h = h - fire(v, threshold, 1.0, FIRE) * amount_of(threshold, n, OWN_AMOUNT)
    elif MODEL == "alif":
        threshold = threshold + p[3] * second
        h = charged(v, x, p[1], n[0], CHARGE, RATE)
    elif MODEL == "lsnn":
        threshold = entered[2] + p[3] * (threshold - entered[2])
        h = v + p[1] * ((n[0] - v) + second)
    else:
        h = charged(v, x, p[1], n[0], CHARGE, RATE)
    s = fire(h, threshold, 1.0, FIRE)
    if MODEL == "clif":
        m = remembered(second, h, s, p[1], RATE)
        return h, threshold, s, (h - s * (threshold + logistic(m)), m)
    else:
        amount = amount_of(threshold, n, OWN_AMOUNT)
        after = reset(v, h, s, threshold, n[1], amount, 1.0, FIRE, RESET)
        if MODEL == "cuba":
            return h, threshold, s, (after, left)
        elif MODEL == "alif":
            return h, threshold, s, (after, p[2] * second + s)
        else:
            return h, threshold, s, (after, (second - p[2] * second) + x, threshold + s * p[4])


@triton.jit
def reverse(
    entered, x, p, n, h, threshold, s, slope, grad_s, grads,
    MODEL: tl.constexpr, CHARGE: tl.constexpr, RATE: tl.constexpr, FIRE: tl.constexpr, RESET: tl.constexpr,
    OWN_AMOUNT: tl.constexpr, DETACH: tl.constexpr,
):  # fmt: skip
    """The gradients of the input, of the states that enter the step, and of the parameters."""
    v, second, grad_v, grad_second = entered[0], entered[1], grads[0], grads[1]
    if MODEL == "clif":
        kept, amount = logistic(over_decay(h, p[1], RATE)), logistic(remembered(second, h, s, p[1], RATE))
        grad_m = grad_second - (grad_v * s) * (amount * (1.0 - amount))
        grad_u = ((grad_s + grad_m) - grad_v * (threshold + amount)) * slope
        grad_kept = (grad_m * second) * (kept * (1.0 - kept))
        grad_h = (grad_u + grad_v) + over_decay(grad_kept, p[1], RATE)
        scaled = h if RATE else -over_decay(over_decay(h, p[1], RATE), p[1], RATE)
        of_decay = decay_gradient(x, v, grad_h, p[1], threshold, n[0], n[1], 1.0, CHARGE, RATE, FIRE, RESET)
        return (
            grad_h,
            (grad_h * state_share(p[1], CHARGE, RATE, True), grad_m * kept),
            (-(grad_u + grad_v * s), grad_kept * scaled + of_decay),
        )
    else:
        if MODEL == "alif":
            grad_s = grad_s + grad_second
        if MODEL == "lsnn":
            grad_s = grad_s + grads[2] * p[4]
        amount = amount_of(threshold, n, OWN_AMOUNT)
        grad_h = charge_gradient(h, s, slope, grad_s, grad_v, n[1], amount, RESET, DETACH)
        of_threshold = threshold_gradient(
            v, h, s, slope, grad_s, grad_v, grad_h, threshold, n[1], amount, 1.0, FIRE, RESET, DETACH, OWN_AMOUNT
        )
        if MODEL == "cuba":
            grad_h = state_gradient(v, grad_h, number(1.0), threshold, 1.0, FIRE, RESET)
            if RATE:
                c = second + x
                pulled = grad_h * p[1]
                grad_c = pulled + (grad_second - grad_second * p[2])
                return (
                    grad_c,
                    (grad_h - pulled, grad_c),
                    (of_threshold, grad_h * ((n[0] - v) + c), -(grad_second * c)),
                )
            else:
                grad_c = grad_h + grad_second
                return grad_c, (grad_h * p[1], grad_c * p[2]), (of_threshold, grad_h * v, grad_c * second)
        elif MODEL == "alif":
            share = state_share(p[1], CHARGE, RATE, True)
            of_decay = decay_gradient(x, v, grad_h, p[1], threshold, n[0], n[1], 1.0, CHARGE, RATE, FIRE, RESET)
            return (
                grad_h * input_share(p[1], CHARGE, RATE),
                (
                    state_gradient(v, grad_h, share, threshold, 1.0, FIRE, RESET),
                    grad_second * p[2] + of_threshold * p[3],
                ),
                (of_threshold, of_decay, grad_second * second, of_threshold * second),
            )
        else:
            of_threshold = of_threshold + grads[2]
            pulled = grad_h * p[1]
            adapted = of_threshold * p[3]
            return (
                grad_second,
                (grad_h - pulled, pulled + (grad_second - grad_second * p[2]), of_threshold - adapted),
                (
                    adapted, grad_h * ((n[0] - v) + second), -(grad_second * second),
                    of_threshold * (p[0] - entered[2]), grads[2] * s,
                ),
            )  # fmt: skip
