"""What the spikes in a convolution or a matrix product cause. An operand that is no spike train has no `Spikes`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EXACT = 1 << 24  # float32 has all whole numbers up to this one


class Spikes(NamedTuple):
    """How many spikes each element of a tensor is, and the largest of these numbers."""

    counts: Tensor
    largest: float

    def sum(self, *axes: int) -> Tensor:
        """The exact sum over some axes, as float64."""
        terms = math.prod(self.counts.shape[axis] for axis in axes)
        # Ten times as fast as in float64 on a CPU.
        dtype = torch.float32 if terms * self.largest <= EXACT else torch.float64
        return self.counts.sum(axes, dtype=dtype).double() if axes else self.counts.double()

    def total(self) -> int:
        return round(self.sum(*[-1] * bool(self.counts.dim())).sum().item())

    def present(self) -> Spikes:
        """1 where there are spikes."""
        return self if self.largest <= 1 else Spikes(self.counts != 0, 1.0)


class Product(NamedTuple):
    """The size of a product in multiply-accumulates, the accumulations (None without spikes), and its spike trains."""

    dense: int
    accumulations: int | None
    spikes: int = 0
    elements: int = 0


def matrix_product(a: Tensor, b: Tensor, of_a: Spikes | None, of_b: Spikes | None) -> Product:
    """[..., M, K] @ [..., K, N]."""
    dense = a.numel() * b.shape[-1]
    if of_a is None and of_b is None:
        return Product(dense, None)
    if of_b is None:
        assert of_a is not None
        spikes = of_a.total()
        return Product(dense, spikes * b.shape[-1], spikes, a.numel())
    if of_a is None:
        spikes = of_b.total()
        return Product(dense, spikes * a.shape[-2], spikes, b.numel())
    # Where both are spikes, a large number is added for each small spike, not the other way round.
    first, second = (of_a, of_b.present()) if of_a.largest <= of_b.largest else (of_a.present(), of_b)
    pairs = round((first.sum(-2) * second.sum(-1)).sum().item())
    return Product(dense, pairs, of_a.total() + of_b.total(), a.numel() + b.numel())


def convolution(
    x: Tensor, spikes: Spikes | None, weight: Tensor, result: Tensor, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int = 1, transposed: bool = False,
) -> Product:  # fmt: skip
    """x [N, C, ...] with the weight of torch's convolution; the padding is that in front of each axis."""
    dense = (x if transposed else result).numel() * weight[0].numel()
    if spikes is None:
        return Product(dense, None)
    at_each = reached = spikes.sum(0, 1)
    for axis in reversed(range(reached.dim())):
        by, pad, apart = (values[axis % len(values)] for values in (stride, padding, dilation))
        sizes = x.shape[axis + 2], result.shape[axis + 2], weight.shape[axis + 2]
        reached = reached @ _reach(*sizes, by, pad, apart, transposed).to(reached)
    accumulations = round(reached.item()) * (result.shape[1] // groups)
    return Product(dense, accumulations, round(at_each.sum().item()), x.numel())


@functools.lru_cache
def _reach(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> Tensor:
    """[size]: how many pairs of a weight and an output each position along one axis takes part in."""
    taps = torch.arange(kernel)[:, None] * dilation - padding
    if transposed:
        targets = torch.arange(size) * stride + taps
        return ((targets >= 0) & (targets < out)).sum(0)
    sources = (torch.arange(out) * stride + taps).flatten()
    return torch.bincount(sources[(sources >= 0) & (sources < size)], minlength=size)
