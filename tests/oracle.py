"""An independent neuron: a plain loop with torch's autograd behind it, in the input's own precision."""

import math

import torch

from deal_kernels import surrogate as surrogates


class Spike(torch.autograd.Function):
    """The step function (or the rounded ratio) with a surrogate derivative."""

    @staticmethod
    def forward(ctx, u, slope, fire):
        ctx.save_for_backward(slope)
        return (u >= 0 if fire == "ge" else u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


class Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ratio, levels, surrogate):
        low, high = surrogate.numbers[:2] if isinstance(surrogate, surrogates.Window) else (0, levels)
        ctx.save_for_backward(((ratio >= low) & (ratio <= high)).to(ratio.dtype))
        return ratio.clamp(0, levels).round()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


def slope(surrogate, u):
    """Of a name, with its usual sharpness, or of an object of deal_kernels.surrogate."""
    if isinstance(surrogate, str):
        surrogate = surrogates.DEFAULTS[surrogate]
    a, height, outside = surrogate.numbers
    size = u.abs()
    if surrogate.kind == "fast_sigmoid":
        return height / torch.square(1 + a * size)
    if surrogate.kind == "erf":
        return torch.exp(-torch.square(a * u)) * (a / math.sqrt(math.pi))
    if surrogate.kind == "sigmoid":
        return 4 * height / (2 + torch.exp(a * u) + torch.exp(-a * u))
    if surrogate.kind == "atan":
        return a / 2 / (1 + (math.pi / 2 * a * u).square())
    if surrogate.kind == "triangle":
        return torch.relu(a - a * a * size)
    if surrogate.kind == "exponential":
        return height / torch.exp(a * size)
    if surrogate.kind == "rectangle":
        return torch.full_like(u, outside).masked_fill(size < a, height)
    if surrogate.kind == "sides":
        return torch.full_like(u, height).masked_fill(u < 0, outside)
    return ((a <= u) & (u <= height)).to(u.dtype)


def fired(h, threshold, fire, levels):
    """The spikes, without a gradient."""
    h, threshold = h.detach(), threshold.detach() if isinstance(threshold, torch.Tensor) else threshold
    if levels > 1:
        return (h / threshold).clamp(0, levels).round()
    return (h - threshold >= 0 if fire == "ge" else h - threshold > 0).to(h.dtype)


def charged(v, current, rest, tau, rate, beta, decay_input):
    if beta is not None:
        return beta * v + current
    if tau is rate is None:
        return v + current
    pull = (lambda a: a * rate) if rate is not None else (lambda a: a / tau)
    return v + pull(current - (v - rest)) if decay_input else (v - pull(v - rest)) + current


def cleared(h, s, back, levels):
    """A hard reset."""
    v = s * back + (1 - s) * h
    return torch.where((h == math.inf) & (s > 0), back, v) if levels == 1 else v  # and not 0 * infinity


def lif(
    x, v0=None, *, tau=2.0, rate=None, beta=None, decay_input=True, v_threshold=1.0, v_reset=0.0, v_rest=None,
    reset="auto", reset_by=None, detach_reset=False, carry_gradient=True, surrogate="sigmoid", fire="ge", levels=1,
    scale=1.0, steps=None, output="spikes", reduce=None, second_derivatives=False,
):  # fmt: skip
    """The output and the final state. tau, rate, beta and v_threshold broadcast against one step."""
    if reset == "auto":
        reset = "soft" if v_reset is None else "hard"
    back = v_reset if reset in ("hard", "next_hard") else 0.0
    rest = back if v_rest is None else v_rest
    amount = v_threshold if reset_by is None else reset_by
    inputs = [x] * steps if steps else list(x)
    v = torch.full_like(inputs[0], rest) if v0 is None else v0
    outputs = {"spikes": [], "v": [], "h": []}
    for current in inputs:
        v = v if carry_gradient else v.detach()
        before = fired(v, v_threshold, fire, levels)
        if reset == "next_hard":
            v = cleared(v, before, back, levels)
        h = charged(v, current, rest, tau, rate, beta, decay_input)
        if reset in ("next_soft", "twice_soft"):
            h = h - before * amount
        if levels > 1:
            s = Levels.apply(h / v_threshold, levels, surrogate)
        else:
            u = h - v_threshold
            s = Spike.apply(u, slope(surrogate, u if second_derivatives else u.detach()), fire)
        r = s.detach() if detach_reset else s
        v = h
        if reset == "hard":
            v = cleared(h, r, back, levels)
        if reset == "soft":
            v = h - r * amount
        if reset == "twice_soft":
            v = h - (r - before) * amount
        for name, value in (("spikes", s), ("v", v), ("h", h)):
            outputs[name].append(value)
    result = torch.stack(outputs[output])
    result = result if output != "spikes" else result * scale
    return (result.mean(0) if reduce else result), v


def close(a, b, relative=1e-6):
    """Within a fraction of the largest expected value."""
    return (a - b).abs().max().item() <= relative * max(b.abs().max().item(), 1e-30)


def same_image(one, other, atol, device):
    """Up to rounding, which differs with the size on a GPU, and decides on a few spikes: they may change a part."""
    share = (~((one - other).abs() <= atol)).float().mean().item()
    return share <= (0 if device == "cpu" else 0.05)
