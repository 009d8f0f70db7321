"""The consensus of rows in plain torch: the specification of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

SCALES = (20.0, 10.0, 5.0, 2.0, 1.0)  # of the tolerance, from the first round to the last
QUARTILES = (0.25, 0.75)
FROM_QUARTILES, FROM_NEIGHBOURS = 2, 3  # how many of the last scales they are followed by
NEIGHBOURS, NEIGHBOUR_SCALE = 9, 2.0  # the columns around each, itself among them, and the tolerance for them
REFINEMENTS = 2
TINY = 1e-9


def sorted_quartiles(x: Tensor) -> list[Tensor]:
    """Those of the columns of x [B, R, W], each [B, 1, W]."""
    ordered = x.sort(1).values
    return [ordered[:, [rank(share, x.shape[1])]] for share in QUARTILES]


def consensus(
    x: Tensor, weights: Tensor, tolerance: Tensor, quartiles_of: Callable[[Tensor], list[Tensor]] = sorted_quartiles
) -> Tensor:  # fmt: skip
    """The values [B, W] of x [B, R, W] with weights [B, R, W] and tolerances [B]."""
    tolerance = tolerance[:, None, None]
    scales = [scale * tolerance for scale in SCALES]
    mean = (weights * x).sum(1, keepdim=True) / (weights.sum(1, keepdim=True) + TINY)
    best, most = torch.zeros_like(mean), torch.zeros_like(mean)
    for start, rounds in ((mean, scales), *((quartile, scales[-FROM_QUARTILES:]) for quartile in quartiles_of(x))):
        value = _settled(x, weights, start, rounds)
        support = nearness(x, value, scales[-1]).sum(1, keepdim=True)
        best, most = torch.where(support > most, value, best), torch.maximum(support, most)
    for _ in range(REFINEMENTS):
        near = functional.avg_pool1d(
            nearness(x, best, NEIGHBOUR_SCALE * tolerance), NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False
        )
        best = _settled(x, weights * near**4, best, scales[-FROM_NEIGHBOURS:])
    return best[:, 0]


def rank(share: float, rows: int) -> int:
    """The index of a quartile among the ordered rows."""
    return round(share * (rows - 1))


def nearness(x: Tensor, value: Tensor, tolerance: float | Tensor) -> Tensor:
    """The agreement of x with a value: 1 where they are equal, 1/2 where they are the tolerance apart."""
    return 1 / (1 + ((x - value) / tolerance).square())


def _settled(x: Tensor, weights: Tensor, value: Tensor, scales: Sequence[Tensor]) -> Tensor:
    """A robust mean: each round weights the rows by their agreement with the last value."""
    for scale in scales:
        near = weights * nearness(x, value, scale)
        value = (near * x).sum(1, keepdim=True) / (near.sum(1, keepdim=True) + TINY)
    return value
