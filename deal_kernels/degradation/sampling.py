"""The values of random operations, drawn from the ranges of the released generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from deal_kernels._common.checks import check_integer, number
from deal_kernels._common.types import STATE
from deal_kernels.degradation.arguments import check_names, shape_of_values
from deal_kernels.degradation.names import RANDOM

Range = tuple[float, float]


def sample_params(
    ops: Sequence[str], x: Tensor, stages: int, *, generator: Generator | None = None,
    gaussian_blur: Range = (1.0, 1.5), stripe: Range = (0.0, 0.51), row_stripe: Range = (0.0, 0.51),
    gain: Range = (0.05, 0.15), noise: Range = (5 / 255, 25 / 255),
) -> dict[str, Tensor]:  # fmt: skip
    """Draws the params of `mixture` for these ops, independently for every sample and stage.

    Args:
        ops: names of operations, as in `mixture`.
        x: the images, [B, C, H, W]; only their shape, dtype and device matter.
        stages: number of stages of the mixture.
        generator: source of random numbers, on its own device; None is torch's default on the device of x.
        gaussian_blur: range of the deviation in pixels.
        stripe, row_stripe, gain, noise: range of the deviation of normal values, whose mean is 1 for gain and 0
            otherwise. Deviations are uniform in their range.

    >>> params = sample_params(["stripe", "gaussian_blur", "identity"], torch.zeros(2, 1, 48, 64), stages=5)
    >>> {name: tuple(values.shape) for name, values in params.items()}
    {'stripe': (2, 5, 64), 'gaussian_blur': (2, 5)}
    """
    ranges = {"gaussian_blur": gaussian_blur, "stripe": stripe, "row_stripe": row_stripe, "gain": gain, "noise": noise}
    for name, between in ranges.items():
        _check_range(name, between)
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype not in STATE:
        raise ValueError(f"x must be images [B, C, H, W] of a floating-point type; got {_described(x)}")
    check_integer("stages", stages, 1)
    found = {}
    for name in dict.fromkeys(name for name in check_names(ops) if name in RANDOM):
        draw = _draw(x, generator)
        low, high = ranges[name]
        shape = shape_of_values(name, x.shape, stages)
        deviation = low + (high - low) * draw(torch.rand, shape[:2])
        if name != "gaussian_blur":
            mean = 1.0 if name == "gain" else 0.0
            deviation = mean + deviation.reshape(*shape[:2], *[1] * len(shape[2:])) * draw(torch.randn, shape)
        found[name] = deviation.to(x.device)
    return found


def _draw(x: Tensor, generator: Generator | None) -> Callable[..., Tensor]:
    device = x.device if generator is None else generator.device
    return lambda function, shape: function(shape, generator=generator, device=device, dtype=STATE[x.dtype])


def _check_range(name: str, between: Range) -> None:
    if not isinstance(between, Sequence) or isinstance(between, str) or len(between) != 2:
        raise TypeError(f"{name} must be a pair of numbers; got {between!r}")
    low, high = (number(name, each) for each in between)
    least = "positive" if name == "gaussian_blur" else "at least 0"
    if not low <= high or low < 0 or (name == "gaussian_blur" and low == 0):
        raise ValueError(f"{name} must be a range of deviations that are {least}, the smaller first; got {between}")


def _described(x: object) -> str:
    return f"{x.dtype} of the shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
