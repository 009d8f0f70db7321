"""Statistics of a batch that is split over processes. Every process computes the same numbers, in the same order."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any  # True: every process; a torch.distributed group; False: this process alone


def many(group: Group) -> bool:
    """Whether the batch is split over several processes."""
    if group is False or not dist.is_available() or not dist.is_initialized():
        return False
    return dist.get_world_size(_named(group)) > 1


def _named(group: Group) -> Any:
    return None if group is True else group


def merged(mean: Tensor, variance: Tensor, count: int, group: Group) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and count over all processes, from those of each."""
    mine = torch.cat([mean, variance, mean.new_tensor([count])]).double()
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(_named(group)))]
    dist.all_gather(parts, mine, group=_named(group))
    means, variances, counts = torch.stack(parts).tensor_split([len(mean), 2 * len(mean)], dim=1)  # [processes, C or 1]
    total = counts.sum()
    all_mean = (means * counts).sum(0) / total
    all_variance = ((variances + (means - all_mean) ** 2) * counts).sum(0) / total
    return all_mean.to(mean.dtype), all_variance.to(mean.dtype), int(total)


def summed(sums: Tensor, group: Group) -> Tensor:
    """The sums over all processes."""
    total = sums.double()
    dist.all_reduce(total, group=_named(group))
    return total.to(sums.dtype)
