"""The surrogate derivatives of deal_kernels.surrogate in Triton kernels, with the order of operations of
csrc/math/surrogate.h."""

import triton
import triton.language as tl


@triton.jit
def number(a):
    # The interpreter hands over Python floats, whose products among each other would be float64.
    return tl.full((), a, tl.float32)


@triton.jit
def surrogate_slope(u, alpha, height, outside, SURROGATE: tl.constexpr):
    if SURROGATE == "sigmoid":
        # sigma(1 - sigma) is even in u; e <= 1 keeps it free of overflow and cancellation.
        e = tl.exp(-alpha * tl.abs(u))
        d = 1.0 + e
        return (4.0 * height) * tl.div_rn(e, d * d)
    elif SURROGATE == "atan":
        w = (1.5707963267948966 * alpha) * u
        return tl.div_rn(alpha * 0.5, 1.0 + w * w)
    elif SURROGATE == "triangle":
        w = alpha - (alpha * alpha) * tl.abs(u)
        return tl.where(w < 0.0, 0.0, w)
    elif SURROGATE == "rectangle":
        return tl.where(tl.abs(u) < alpha, height, outside)
    elif SURROGATE == "fast_sigmoid":
        w = 1.0 + alpha * tl.abs(u)
        return tl.div_rn(height, w * w)
    elif SURROGATE == "erf":
        w = alpha * u
        return (0.5641895835477563 * alpha) * tl.exp(-(w * w))
    elif SURROGATE == "exponential":
        return height * tl.exp(-alpha * tl.abs(u))
    elif SURROGATE == "sides":
        return tl.where(u < 0.0, outside, height)
    else:
        return tl.where((u >= alpha) & (u <= height), 1.0, 0.0)
