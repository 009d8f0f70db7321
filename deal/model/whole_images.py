"""Operations on whole images: torch's, and when a network is exported, equal ones that every runtime has for any size.

>>> averaged(torch.rand(2, 1, 60, 80), (6, 8)).shape
torch.Size([2, 1, 6, 8])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from deal_kernels._common.dispatch import exports
from deal_kernels.consensus.ranks import at_ranks

CUBIC = -0.75  # torch's bicubic kernel has this slope at a distance of one pixel
AROUND = 2  # pixels that it reads beyond the border, at most


def averaged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [..., H, W] averaged to a size."""
    if not exports():
        return functional.adaptive_avg_pool2d(x, size)
    rows, columns = (_averages(count, length, x) for count, length in zip(size, x.shape[-2:], strict=True))
    return rows @ x @ columns.mT


def averaged_rows(x: Tensor, count: int) -> Tensor:
    """Images [..., H, W] averaged to a number of rows."""
    if not exports():
        return functional.adaptive_avg_pool2d(x, (count, x.shape[-1]))
    return _averages(count, x.shape[-2], x) @ x


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Images [B, C, H, W] interpolated bicubically to a size."""
    if not exports():
        return functional.interpolate(x, size, mode="bicubic", align_corners=False)
    around = functional.pad(x, (AROUND,) * 4, mode="replicate")
    rows, columns = (_cubics(count, length, x) for count, length in zip(size, x.shape[2:], strict=True))
    return rows @ around @ columns.mT


def cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The upper left part of images [B, C, H, W]."""
    if not exports():
        return x[..., : size[0], : size[1]]
    # A program with a slice would be for images that are cut, or for those that are not.
    rows, columns = (torch.arange(length, device=x.device) for length in size)
    return x.index_select(2, rows).index_select(3, columns)


def median(x: Tensor) -> Tensor:
    """The medians [B] of x [B, N], of two the lower one."""
    if not exports():
        return x.median(1).values
    count = torch.ones_like(x[0]).sum()
    return at_ranks(x, ((count - 1) / 2).floor()[None], 1)[0, :, 0]


def ordered(x: Tensor, ranks: list[int]) -> Tensor:
    """The values of x [B, N] at some places of their ascending order."""
    if not exports():
        return x.sort(1).values[:, ranks]
    return at_ranks(x, torch.tensor(ranks).to(x), 1)[..., 0].mT


def _positions(count: int, like: Tensor) -> Tensor:
    """0, 1, ... Some runtimes count in whole numbers only."""
    return torch.arange(count, device=like.device).to(like.dtype)


def _averages(count: int, length: int, like: Tensor) -> Tensor:
    """The matrix of averages of a length to a count."""
    place, pixel = _positions(count, like)[:, None], _positions(length, like)
    begin, end = (place * length / count).floor(), ((place + 1) * length / count).ceil()
    return ((pixel >= begin) & (pixel < end)).to(like.dtype) / (end - begin)


def _cubics(count: int, length: int, like: Tensor) -> Tensor:
    """The matrix of bicubic interpolation of a length, with `AROUND` pixels more at each end, to a count."""
    place = (_positions(count, like)[:, None] + 0.5) * length / count - 0.5
    distance = (place - (_positions(length + 2 * AROUND, like) - AROUND)).abs()
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))
