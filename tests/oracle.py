"""An independent neuron: a plain loop with torch's autograd behind it, in the input's own precision."""

import math

import torch


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
    def forward(ctx, ratio, levels):
        ctx.save_for_backward(((ratio >= 0) & (ratio <= levels)).to(ratio.dtype))
        return ratio.clamp(0, levels).round()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


ALPHA = {"sigmoid": 4.0, "atan": 2.0, "triangle": 1.0, "rectangle": 1.0, "fast_sigmoid": 25.0, "erf": 2.0}


def slope(surrogate, u):
    """Of a name, with its usual sharpness, or of an object of deal_kernels.surrogate."""
    if isinstance(surrogate, str):
        kind, alpha, height = surrogate, ALPHA[surrogate], 1.0
    else:
        kind, alpha, height = surrogate.kind, surrogate.alpha, surrogate.height
    if kind == "fast_sigmoid":
        return height / torch.square(1 + alpha * u.abs())
    if kind == "erf":
        return torch.exp(-torch.square(alpha * u)) * (alpha / math.sqrt(math.pi))
    if kind == "sigmoid":
        return alpha / (2 + torch.exp(alpha * u) + torch.exp(-alpha * u))
    if kind == "atan":
        return alpha / 2 / (1 + (math.pi / 2 * alpha * u).square())
    if kind == "triangle":
        return torch.relu(alpha - alpha * alpha * u.abs())
    return torch.where(u.abs() < 0.5 / alpha, alpha, 0.0).to(u.dtype)


def lif(
    x, v0=None, *, tau=2.0, beta=None, decay_input=True, v_threshold=1.0, v_reset=0.0, reset="auto",
    detach_reset=False, surrogate="sigmoid", fire="ge", levels=1, steps=None, reduce=None,
):  # fmt: skip
    """Spikes (or their mean) and the final state. tau, beta and v_threshold broadcast against one step."""
    if reset == "auto":
        reset = "soft" if v_reset is None else "hard"
    rest = v_reset if reset == "hard" else 0.0
    inputs = [x] * steps if steps else list(x)
    v = torch.full_like(inputs[0], rest) if v0 is None else v0
    spikes = []
    for current in inputs:
        if beta is not None:
            h = beta * v + current
        elif tau is None:
            h = v + current
        elif decay_input:
            h = v + (current - (v - rest)) / tau
        else:
            h = (v - (v - rest) / tau) + current
        if levels > 1:
            s = Levels.apply(h / v_threshold, levels)
        else:
            u = h - v_threshold
            s = Spike.apply(u, slope(surrogate, u.detach()), fire)
        r = s.detach() if detach_reset else s
        v = r * rest + (1 - r) * h if reset == "hard" else h - r * v_threshold if reset == "soft" else h
        if reset == "hard" and levels == 1:
            v = torch.where((h == math.inf) & (r > 0), rest, v)  # and not 0 * infinity
        spikes.append(s)
    result = torch.stack(spikes)
    return (result.mean(0) if reduce else result), v


def close(a, b, relative=1e-6):
    """Within a fraction of the largest expected value."""
    return (a - b).abs().max().item() <= relative * max(b.abs().max().item(), 1e-30)
