"""The values of random operations: for those of the released generator from its ranges, for the others from ranges that
are usual for thermal images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from deal_kernels._common.checks import check_integer, number
from deal_kernels._common.types import STATE
from deal_kernels.degradation.arguments import check_names, shape_of_values
from deal_kernels.degradation.names import RANDOM, REACH

Range = tuple[float, float]
Draw = Callable[..., Tensor]  # of torch.rand or torch.randn, and a shape
MEASURES = {"tone": "gains", "tone_offset": "offsets", "dead": "shares", "glow": "strengths"}  # others: deviations


def sample_params(
    ops: Sequence[str], x: Tensor, stages: int, *, generator: Generator | None = None,
    gaussian_blur: Range = (1.0, 1.5), stripe: Range = (0.0, 0.51), row_stripe: Range = (0.0, 0.51),
    gain: Range = (0.05, 0.15), noise: Range = (5 / 255, 25 / 255), wide_blur: Range = (1.0, 3.0),
    row_gain: Range = (0.03, 0.1), tone: Range = (0.2, 0.8), tone_offset: Range = (0.2, 0.4), dead: Range = (0.0, 0.01),
    glow: Range = (15 / 255, 75 / 255), shading: Range = (0.02, 0.1), partial_stripe: Range = (0.0, 5 / 255),
) -> dict[str, Tensor]:  # fmt: skip
    """Draws the params of `mixture` for these ops, independently for every sample and stage.

    Each sample and stage has a number of its own that is uniform in the operation's range.

    Args:
        ops: names of operations, as in `mixture`.
        x: the images, [B, C, H, W]; only their shape, dtype and device matter.
        stages: number of stages of the mixture.
        generator: source of random numbers, on its own device; None is torch's default on the device of x.
        gaussian_blur, wide_blur: range of the deviation in pixels.
        stripe, row_stripe, gain, row_gain, noise: range of the deviation of normal values, whose mean is 1 for gain and
            row_gain and 0 otherwise.
        tone, tone_offset: ranges of the gain and of the offset.
        dead: range of the share of pixels that are replaced, by 0 or 1 with equal chance.
        glow: range of the strength. Either a or b has it, with equal chance, and the other is 0. The point is
            anywhere in the image.
        shading: range of the deviation of normal coefficients. That of u and v is divided by u + v, which makes slow
            changes stronger than fast ones, and the constant one, u = v = 0, is 0.
        partial_stripe: range of the deviation of normal offsets. The span of each column is between two uniform
            fractions of the height.

    >>> params = sample_params(["stripe", "gaussian_blur", "identity"], torch.zeros(2, 1, 48, 64), stages=5)
    >>> {name: tuple(values.shape) for name, values in params.items()}
    {'stripe': (2, 5, 64), 'gaussian_blur': (2, 5)}
    """
    ranges = {
        "gaussian_blur": gaussian_blur, "stripe": stripe, "row_stripe": row_stripe, "gain": gain, "noise": noise,
        "wide_blur": wide_blur, "row_gain": row_gain, "tone": tone, "tone_offset": tone_offset, "dead": dead,
        "glow": glow, "shading": shading, "partial_stripe": partial_stripe,
    }  # fmt: skip
    for name, between in ranges.items():
        _check_range(name, between)
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype not in STATE:
        raise ValueError(f"x must be images [B, C, H, W] of a floating-point type; got {_described(x)}")
    check_integer("stages", stages, 1)
    found = {}
    for name in dict.fromkeys(name for name in check_names(ops) if name in RANDOM):
        draw = _draw(x, generator)
        shape = shape_of_values(name, x.shape, stages)
        strength = _uniform(draw, shape[:2], ranges[name])
        if name in REACH:
            values = strength
        elif name == "tone":
            values = torch.stack([strength, _uniform(draw, shape[:2], tone_offset)], -1)
        elif name in SPECIAL:
            values = SPECIAL[name](draw, strength, shape)
        else:
            values = _normal(draw, strength, shape, 1.0 if name in ("gain", "row_gain") else 0.0)
        found[name] = values.to(x.device)
    return found


def _draw(x: Tensor, generator: Generator | None) -> Draw:
    device = x.device if generator is None else generator.device
    return lambda function, shape: function(shape, generator=generator, device=device, dtype=STATE[x.dtype])


def _uniform(draw: Draw, shape: Sequence[int], between: Range) -> Tensor:
    low, high = between
    return low + (high - low) * draw(torch.rand, shape)


def _normal(draw: Draw, deviation: Tensor, shape: Sequence[int], mean: float = 0.0) -> Tensor:
    return mean + deviation.reshape(*shape[:2], *[1] * len(shape[2:])) * draw(torch.randn, shape)


def _dead(draw: Draw, share: Tensor, shape: Sequence[int]) -> Tensor:
    chance, colour = (draw(torch.rand, shape) for _ in range(2))
    return torch.where(chance < share[..., None, None, None], (colour < 0.5).to(share), torch.nan)


def _glow(draw: Draw, strength: Tensor, shape: Sequence[int]) -> Tensor:
    point, near = draw(torch.rand, (*shape[:2], 2)), draw(torch.rand, shape[:2]) < 0.5
    zero = torch.zeros_like(strength)
    sides = torch.where(near, strength, zero), torch.where(near, zero, strength)
    return torch.cat([point, torch.stack(sides, -1)], -1)


def _shading(draw: Draw, deviation: Tensor, shape: Sequence[int]) -> Tensor:
    values = _normal(draw, deviation, shape)
    order = torch.arange(shape[-1], device=values.device)
    values = values / (order[:, None] + order).clamp(min=1)
    values[..., 0, 0] = 0
    return values


def _partial_stripe(draw: Draw, deviation: Tensor, shape: Sequence[int]) -> Tensor:
    batch, stages, _, width = shape
    offsets = _normal(draw, deviation, (batch, stages, 1, width))
    spans = draw(torch.rand, (batch, stages, 2, width)).sort(-2).values
    return torch.cat([offsets, spans], -2)


SPECIAL = {"dead": _dead, "glow": _glow, "shading": _shading, "partial_stripe": _partial_stripe}


def _check_range(name: str, between: Range) -> None:
    if not isinstance(between, Sequence) or isinstance(between, str) or len(between) != 2:
        raise TypeError(f"{name} must be a pair of numbers; got {between!r}")
    low, high = (number(name, each) for each in between)
    if name == "tone_offset":
        accepted, fits = "finite", low <= high
    elif name == "dead":
        accepted, fits = "from 0 to 1", 0 <= low <= high <= 1
    elif name in REACH:
        accepted, fits = "positive", 0 < low <= high
    else:
        accepted, fits = "at least 0", 0 <= low <= high
    if not fits:
        what = MEASURES.get(name, "deviations")
        raise ValueError(f"{name} must be a range of {what} that are {accepted}, the smaller first; got {between}")


def _described(x: object) -> str:
    return f"{x.dtype} of the shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
