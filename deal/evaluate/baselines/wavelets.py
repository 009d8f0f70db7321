"""Destriping by a wavelet-Fourier filter (Münch 2009)."""

from __future__ import annotations

import functools
import math

import numpy
import torch
from torch import Tensor

from deal.model.filters import mirror_pad


def wavelet_fourier(x: Tensor, levels: int = 3, moments: int = 4, width: float = 0.5) -> Tensor:
    """Removes the lowest frequencies along columns from the vertical detail at every wavelet scale.

    Args:
        x: [B, C, H, W]
        levels: of the wavelet transform. 2 are worse by 0.6 dB; 4 remove more of the scene and are worse by 1.1 dB.
        moments: vanishing moments of the Daubechies wavelet; 4 is db4, with 8 taps. db5 is worse by 0.4 dB.
        width: standard deviation of the Gaussian notch at zero, in cycles per column. 0.5 removes little more than the
            mean.
    """
    height, across = x.shape[2:]
    unit = 2**levels
    tall = mirror_pad(x, 2, unit * math.ceil(height / unit))
    half = mirror_pad(tall, 3, unit * math.ceil(across / unit))
    # Appending the mirrored row avoids the edge that a periodic transform has between the two ends of a row.
    whole = torch.cat([half, half.flip(3)], 3)
    return _filtered(whole, levels, scaling_filter(moments), width)[..., :height, :across]


def _filtered(x: Tensor, levels: int, taps: tuple[float, ...], width: float) -> Tensor:
    if levels == 0:
        return x
    low, high = _split(x, taps, 3)
    low_down, low_up = _split(low, taps, 2)
    high_down, high_up = _split(high, taps, 2)
    low_down = _filtered(low_down, levels - 1, taps, width)
    high_down = _without_slow(high_down, width)
    return _joined(_joined(low_down, low_up, taps, 2), _joined(high_down, high_up, taps, 2), taps, 3)


def _without_slow(x: Tensor, width: float) -> Tensor:
    waves = torch.fft.rfft(x, dim=2)
    number = torch.arange(waves.shape[2], device=x.device, dtype=x.dtype)
    notch = 1 - torch.exp(-((number / width) ** 2) / 2)
    return torch.fft.irfft(waves * notch[:, None], n=x.shape[2], dim=2)


def _split(x: Tensor, taps: tuple[float, ...], dim: int) -> tuple[Tensor, Tensor]:
    """Periodic low-pass and high-pass parts at half the resolution."""
    even, odd = _every_other(x, dim)
    low, high = torch.zeros_like(even), torch.zeros_like(even)
    for shift in range(len(taps) // 2):
        e, o = even.roll(-shift, dim), odd.roll(-shift, dim)
        low += taps[2 * shift] * e + taps[2 * shift + 1] * o
        high += taps[-1 - 2 * shift] * e - taps[-2 - 2 * shift] * o
    return low, high


def _joined(low: Tensor, high: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
    """The inverse of `_split`, which is also its adjoint."""
    even, odd = torch.zeros_like(low), torch.zeros_like(low)
    for shift in range(len(taps) // 2):
        a, d = low.roll(shift, dim), high.roll(shift, dim)
        even += taps[2 * shift] * a + taps[-1 - 2 * shift] * d
        odd += taps[2 * shift + 1] * a - taps[-2 - 2 * shift] * d
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1)


def _every_other(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    pairs = x.unflatten(dim, (-1, 2))
    return pairs.select(dim + 1, 0), pairs.select(dim + 1, 1)


@functools.cache
def scaling_filter(moments: int) -> tuple[float, ...]:
    """The Daubechies scaling filter: the polynomial with the roots inside the unit circle and one root at -1 per
    vanishing moment.

    >>> [round(tap, 4) for tap in scaling_filter(2)]
    [0.483, 0.8365, 0.2241, -0.1294]
    """
    inside = []
    for root in numpy.roots([math.comb(moments - 1 + k, k) for k in reversed(range(moments))]):
        pair = numpy.roots([1, 4 * root - 2, 1])  # y = (2 - z - 1 / z) / 4
        inside.append(pair[abs(pair).argmin()])
    taps = numpy.poly([-1] * moments + inside).real
    return tuple((taps * math.sqrt(2) / taps.sum()).tolist())
