"""Order statistics as an operation `deal_kernels::at_ranks`, which a program keeps until it is translated.

Some runtimes sort at most some thousand values, or as many as are known when a network is built. What a translation
makes of sorted values, it can make of this operation in another way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.dispatch import Op, as_they_are
from deal_kernels.consensus.reference import QUARTILES


def at_ranks(x: Tensor, ranks: Tensor, dim: int) -> Tensor:
    """The values of x at ranks [K] of the ascending order along a dimension, which has one place in [K, ...].

    >>> at_ranks(torch.tensor([0.5, 0.1, 0.9, 0.3]), torch.tensor([0.0, 2.0]), 0).flatten()
    tensor([0.1000, 0.5000])
    """
    result: Tensor = AT_RANKS(x, x[None], ranks.view(-1, *[1] * x.dim()), dim + 1)
    return result


def _sorted(x: Tensor, ranks: Tensor, dim: int) -> Tensor:
    """x is [1, ...], and ranks [K, 1, ...]."""
    return x.sort(dim).values.index_select(dim, ranks.flatten().long()).transpose(0, dim)


def _fake(x: Tensor, ranks: Tensor, dim: int) -> Tensor:
    shape = list(x.shape)
    shape[0], shape[dim] = ranks.shape[0], 1
    return x.new_empty(shape)


AT_RANKS = Op(
    "at_ranks(Tensor x, Tensor ranks, int dim) -> Tensor", launch=lambda *given: _sorted(*given).contiguous(),
    plain=_sorted, fake=_fake, flat=as_they_are, structured=as_they_are,
)  # fmt: skip


def sorted_quartiles(x: Tensor) -> list[Tensor]:
    """Those of the columns of x [B, R, W], each [B, 1, W]. The number of rows may be symbolic."""
    last = torch.ones_like(x[0, :, 0]).sum() - 1
    ranks = torch.stack([(share * last).round() for share in QUARTILES])
    return list(at_ranks(x, ranks, 1).unbind())
