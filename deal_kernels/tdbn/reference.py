"""Batch norm per channel in plain torch: the specification of every other implementation.

The channels are on `axis`, and statistics are taken over all others. Half types are computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.types import STATE
from deal_kernels.lif.reference import by_channel, gradient_sums, normalised

__all__ = ["factors", "gradient", "gradient_sums", "moments", "normalise", "scale"]


def moments(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel."""
    others = [a for a in range(x.dim()) if a != axis]
    variance, mean = torch.var_mean(x.to(STATE[x.dtype]), others, correction=0)
    return mean, variance


def scale(variance: Tensor, weight: Tensor, eps: float, values: int) -> Tensor:
    """Scale, one over the deviation, and the unbiased variance of each channel, [3, C].

    Args:
        variance, values: the biased variance of this number of values.
    """
    inverse = torch.rsqrt(variance + eps)
    return torch.stack([weight * inverse, inverse, variance * (values / (values - 1))])


def normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int) -> Tensor:
    return normalised(x.to(STATE[x.dtype]), mean, scale, shift, axis).to(x.dtype)


def gradient(
    grad: Tensor, x: Tensor, mean: Tensor, direct: Tensor, by_variance: Tensor, by_mean: Tensor, axis: int
) -> Tensor:
    """The gradient of x: directly, and through the variance and the mean of its channel."""
    mean, direct, by_variance, by_mean = (by_channel(p, x, axis) for p in (mean, direct, by_variance, by_mean))
    grad, wide = grad.to(mean.dtype), x.to(mean.dtype)
    return ((grad * direct + (wide - mean) * by_variance) + by_mean).to(x.dtype)


def factors(sums: Tensor, own: Tensor, weight: Tensor, inverse: Tensor, values: int | None) -> Tensor:
    """The arguments direct, by_variance and by_mean of `gradient`, and the gradient of the weight, [4, C].

    Args:
        sums, own: the sums of the gradient and of gradient * (x - mean) over all processes, and over this one, [2, C].
        values: of a channel in all processes; None where the statistics are constants.
    """
    direct = weight * inverse
    by_mean, by_variance = sums * (direct * (-1 / values if values else 0.0))
    return torch.stack([direct, by_variance * (inverse * inverse), by_mean, own[1] * inverse])
