"""The degradation mixture in plain torch: the specification of every other implementation.

Of every sample b and stage i, x becomes the sum over j of weights[b, i, j] * D_j(x). Half types are computed in
float32, and what a stage hands to the next one is rounded to their dtype. Images are [B, C, H, W] with one or three
channels.

Each operation has a function of its result and one, `<kind>_gradient`, that carries a gradient of it back to x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from deal_kernels._common.types import STATE
from deal_kernels.degradation.names import PATTERNS, REACH

GRAY = (0.2989, 0.587, 0.114)
_aten = torch.ops.aten


class Operation(NamedTuple):
    """One of a mixture; `values` of a stage broadcast against an image, but for a blur's deviations [B]."""

    kind: str
    strength: float = 0.0
    straight_through: bool = False
    values: Any = None  # a tensor, where the kind takes one


def gray(x: Tensor) -> Tensor:  # [B, 1, H, W]
    if x.shape[1] == 1:
        return x
    red, green, blue = (weight * channel for weight, channel in zip(GRAY, x.split(1, 1), strict=True))
    return red + green + blue


def gray_gradient(grad: Tensor, channels: int) -> Tensor:
    return grad if channels == 1 else torch.cat([weight * grad for weight in GRAY], 1)


def contrast_other(x: Tensor) -> Tensor:
    return gray(x).mean((1, 2, 3), keepdim=True)


def contrast_other_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """`grad` is of the mean as it stands at every pixel of every channel."""
    share = grad.sum((1, 2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    return gray_gradient(share, x.shape[1]).expand_as(x)


def saturation_other_gradient(grad: Tensor, x: Tensor) -> Tensor:
    return gray_gradient(grad.sum(1, keepdim=True), x.shape[1])


def smoothed(x: Tensor) -> Tensor:
    """Under [1 1 1; 1 5 1; 1 1 1] / 13, but at the border x itself."""
    inside = sum(x[..., i : i + x.shape[2] - 2, j : j + x.shape[3] - 2] for i in range(3) for j in range(3))
    result = x.clone()
    result[..., 1:-1, 1:-1] = (inside + 4 * x[..., 1:-1, 1:-1]) / 13
    return result


def smoothed_gradient(grad: Tensor, x: Tensor) -> Tensor:
    inside, result = grad[..., 1:-1, 1:-1] / 13, grad.clone()
    result[..., 1:-1, 1:-1] = 4 * inside
    for i in range(3):
        for j in range(3):
            result[..., i : i + inside.shape[2], j : j + inside.shape[3]] += inside
    return result


OTHERS = {"contrast": contrast_other, "saturation": gray, "sharpness": smoothed}
OTHERS_GRADIENTS = {
    "contrast": contrast_other_gradient,
    "saturation": saturation_other_gradient,
    "sharpness": smoothed_gradient,
}


def _returns_x(x: Tensor, o: Operation) -> bool:
    """Whether a blend leaves x as it is, unclamped too."""
    return x.shape[1] == 1 if o.kind == "saturation" else o.kind == "sharpness" and min(x.shape[2:]) <= 2


def blend(x: Tensor, o: Operation) -> Tensor:
    return x if _returns_x(x, o) else _blended(x, o).clamp(0, 1)


def _blended(x: Tensor, o: Operation) -> Tensor:
    return o.strength * x + (1 - o.strength) * OTHERS[o.kind](x)


def blend_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    if _returns_x(x, o):
        return grad
    grad = _through_clamp(grad, _blended(x, o))
    return o.strength * grad + OTHERS_GRADIENTS[o.kind]((1 - o.strength) * grad, x)


def _through_clamp(grad: Tensor, x: Tensor) -> Tensor:
    return torch.where((x >= 0) & (x <= 1), grad, 0)


def taps(deviation: Tensor, reach: int) -> Tensor:
    """[B] -> [2 reach + 1, B, 1, 1, 1], found in float64."""
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64, device=deviation.device)[:, None]
    weights = torch.exp(-((offsets / deviation.double()) ** 2) / 2)
    return (weights / weights.sum(0))[..., None, None, None].to(deviation.dtype)


def blur(x: Tensor, o: Operation) -> Tensor:
    reach = REACH[o.kind]
    weights = taps(_deviation(x, o), reach)
    x = pad(x, [reach] * 4, mode="reflect")
    for axis in (2, 3):
        size = x.shape[axis] - 2 * reach
        x = sum(weight * x.narrow(axis, k, size) for k, weight in enumerate(weights))  # type: ignore[assignment]
    return x


def _deviation(x: Tensor, o: Operation) -> Tensor:
    return x.new_full((len(x),), o.strength) if o.values is None else o.values


def blur_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    reach = REACH[o.kind]
    weights = taps(_deviation(x, o), reach)
    for axis in (3, 2):
        size = grad.shape[axis]
        shape = [*grad.shape[:axis], size + 2 * reach, *grad.shape[axis + 1 :]]
        spread = grad.new_zeros(shape)
        for k, weight in enumerate(weights):
            spread.narrow(axis, k, size).add_(weight * grad)
        grad = spread
    return _aten.reflection_pad2d_backward(grad, x, [reach] * 4)


def shrunk(x: Tensor, o: Operation) -> Tensor:
    factor = int(o.strength)
    if o.kind == "bicubic_resize":
        return interpolate(x, size=_small(x, factor), mode="bicubic")
    return (max_pool2d if o.kind == "max_pool_resize" else avg_pool2d)(x, factor)


def _small(x: Tensor, factor: int) -> tuple[int, int]:
    return x.shape[2] // factor, x.shape[3] // factor


def resize(x: Tensor, o: Operation) -> Tensor:
    return interpolate(shrunk(x, o), size=x.shape[2:], mode="bilinear")


def resize_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    factor = int(o.strength)
    small = _small(x, factor)
    grad = _aten.upsample_bilinear2d_backward(grad.contiguous(), x.shape[2:], [*x.shape[:2], *small], False)
    if o.kind == "bicubic_resize":
        return _aten.upsample_bicubic2d_backward(grad, small, x.shape, False)
    result = torch.zeros_like(x)
    if o.kind == "max_pool_resize":
        places = max_pool2d(x, factor, return_indices=True)[1]
        result.flatten(2).scatter_(2, places.flatten(2), grad.flatten(2))
    else:
        filled = (grad / (factor * factor)).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        result[..., : small[0] * factor, : small[1] * factor] = filled
    return result


def coarse(x: Tensor, o: Operation) -> Tensor:
    """Down and up again, bicubically with a = -0.5, and with antialiasing down. A side that the factor does not divide
    is rounded up at the low resolution."""
    # With antialiasing torch has a = -0.5, without a = -0.75; where images grow there is nothing else to it.
    small = interpolate(x, _rounded_up(x, o), mode="bicubic", antialias=True)
    return interpolate(small, x.shape[2:], mode="bicubic", antialias=True)


def _rounded_up(x: Tensor, o: Operation) -> tuple[int, int]:
    return math.ceil(x.shape[2] / o.strength), math.ceil(x.shape[3] / o.strength)


def coarse_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    small, sizes = _rounded_up(x, o), x.shape[:2]
    grad = _aten._upsample_bicubic2d_aa_backward(grad.contiguous(), x.shape[2:], [*sizes, *small], False)
    return _aten._upsample_bicubic2d_aa_backward(grad, small, x.shape, False)


def posterize(x: Tensor, o: Operation) -> Tensor:
    step = 2.0 ** (8 - o.strength)
    level = torch.floor(x.clamp(0, 1) * 255)
    return torch.floor(level / step) * step / 255


def posterize_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return _through_clamp(grad, x) if o.straight_through else torch.zeros_like(grad)


def quantise(x: Tensor, o: Operation) -> Tensor:
    levels = 2**o.strength - 1
    return torch.round(x.clamp(0, 1) * levels) / levels


def clip(x: Tensor, o: Operation) -> Tensor:
    return x.clamp(0, 1)


def clip_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return _through_clamp(grad, x)


def plus_values(x: Tensor, o: Operation) -> Tensor:
    return x + o.values


def times_values(x: Tensor, o: Operation) -> Tensor:
    return x * o.values


def times_values_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return grad * o.values


def tone(x: Tensor, o: Operation) -> Tensor:
    gain, offset = o.values
    return x * gain + offset


def tone_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return grad * o.values[0]


def dead(x: Tensor, o: Operation) -> Tensor:
    return torch.where(o.values.isnan(), x, o.values)


def dead_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return torch.where(o.values.isnan(), grad, 0)


def same(x: Tensor, o: Operation) -> Tensor:
    return x


def same_gradient(grad: Tensor, x: Tensor, o: Operation) -> Tensor:
    return grad


Gradient = Callable[[Tensor, Tensor, Operation], Tensor]
FUNCTIONS: dict[str, tuple[Callable[[Tensor, Operation], Tensor], Gradient]] = {
    "identity": (same, same_gradient),
    **dict.fromkeys(("contrast", "saturation", "sharpness"), (blend, blend_gradient)),
    **dict.fromkeys(REACH, (blur, blur_gradient)),
    **dict.fromkeys(("max_pool_resize", "average_pool_resize", "bicubic_resize"), (resize, resize_gradient)),
    "coarse": (coarse, coarse_gradient),
    "posterize": (posterize, posterize_gradient),
    "quantise": (quantise, clip_gradient),
    "clip": (clip, clip_gradient),
    **dict.fromkeys(("stripe", "row_stripe", "noise", *PATTERNS), (plus_values, same_gradient)),
    **dict.fromkeys(("gain", "row_gain"), (times_values, times_values_gradient)),
    "tone": (tone, tone_gradient),
    "dead": (dead, dead_gradient),
}


def of_stage(o: Operation, stage: int) -> Operation:
    """With the values of one stage."""
    if o.values is None:
        return o
    values = o.values[:, stage]
    if o.kind in ("stripe", "gain"):  # [B, W]
        values = values[:, None, None, :]
    elif o.kind in ("row_stripe", "row_gain"):  # [B, H]
        values = values[:, None, :, None]
    elif o.kind in PATTERNS:  # [B, H, W]
        values = values[:, None]
    elif o.kind == "tone":  # [B, 2]
        values = values.T[..., None, None, None]
    return o._replace(values=values)


def mixture(x: Tensor, weights: Tensor, operations: Sequence[Operation]) -> tuple[Tensor, list[Tensor]]:
    """The result, and what each stage read."""
    inputs = []
    for stage in range(weights.shape[1]):
        inputs.append(x)
        image = x.to(STATE[x.dtype])
        total = torch.zeros_like(image)
        for o, weight in zip(operations, weights[:, stage, :, None, None, None].unbind(1), strict=True):
            total = total + weight * FUNCTIONS[o.kind][0](image, of_stage(o, stage))
        x = total.to(x.dtype)
    return x, inputs


def gradients(
    grad: Tensor, inputs: Sequence[Tensor], weights: Tensor, operations: Sequence[Operation]
) -> tuple[Tensor, Tensor]:
    """Of x and of weights."""
    dtype = STATE[grad.dtype]
    grad, of_weights = grad.to(dtype), torch.zeros_like(weights)
    for stage in reversed(range(len(inputs))):
        x = inputs[stage].to(dtype)
        total = torch.zeros_like(x)
        for j, o in enumerate(operations):
            run, back = FUNCTIONS[o.kind]
            o = of_stage(o, stage)
            of_weights[:, stage, j] = (grad * run(x, o)).sum((1, 2, 3))
            total = total + back(weights[:, stage, j, None, None, None] * grad, x, o)
        grad = total
    return grad.to(inputs[0].dtype), of_weights
