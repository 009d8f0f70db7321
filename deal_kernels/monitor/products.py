"""What the spikes in a convolution or a matrix product cause.

The functions take operands as `Operand`, which says whether they are spikes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Operand(NamedTuple):
    """A tensor, and how many spikes each of its elements is; None if it is not a spike train."""

    values: Tensor
    spikes: Tensor | None


class Product(NamedTuple):
    """The size of a product in multiply-accumulates, the accumulations (None without spikes), and the spike trains."""

    dense: int
    accumulations: int | None
    trains: tuple[Tensor, ...] = ()


def matrix_product(a: Operand, b: Operand) -> Product:
    """[..., M, K] @ [..., K, N]."""
    dense = a.values.numel() * b.values.shape[-1]
    if a.spikes is None and b.spikes is None:
        return Product(dense, None)
    if b.spikes is None:
        assert a.spikes is not None
        return Product(dense, total(a.spikes) * b.values.shape[-1], (a.spikes,))
    if a.spikes is None:
        return Product(dense, total(b.spikes) * a.values.shape[-2], (b.spikes,))
    return Product(dense, _pairs(a.spikes, b.spikes), (a.spikes, b.spikes))


def _pairs(a: Tensor, b: Tensor) -> int:
    """Where two spike trains meet. A large number is added for each small spike, not the other way round."""
    if a.numel() == 0 or b.numel() == 0:
        return 0
    a, b = (a, b != 0) if a.max() <= b.max() else (a != 0, b)
    return total(a.sum(-2, dtype=torch.float64) * b.sum(-1, dtype=torch.float64))


def convolution(
    x: Operand, weight: Tensor, result: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    groups: int = 1, transposed: bool = False,
) -> Product:  # fmt: skip
    """x [N, C, ...] with the weight of torch's convolution; the padding is that in front of each axis."""
    dense = (x.values if transposed else result).numel() * weight[0].numel()
    if x.spikes is None:
        return Product(dense, None)
    reached = x.spikes.sum((0, 1), dtype=torch.float64)
    for axis in reversed(range(reached.dim())):
        sizes = x.values.shape[axis + 2], result.shape[axis + 2], weight.shape[axis + 2]
        by, pad, apart = (values[axis % len(values)] for values in (stride, padding, dilation))
        reached = reached @ _reach(*sizes, by, pad, apart, transposed).to(reached)
    return Product(dense, round(reached.item()) * (result.shape[1] // groups), (x.spikes,))


def _reach(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> Tensor:
    """[size]: how many pairs of a weight and an output each position along one axis takes part in."""
    taps = torch.arange(kernel)[:, None] * dilation - padding
    if transposed:
        targets = torch.arange(size) * stride + taps
        return ((targets >= 0) & (targets < out)).sum(0)
    sources = (torch.arange(out) * stride + taps).flatten()
    return torch.bincount(sources[(sources >= 0) & (sources < size)], minlength=size)


def total(spikes: Tensor) -> int:
    return round(spikes.sum(dtype=torch.float64).item())
