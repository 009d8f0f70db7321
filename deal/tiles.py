"""A large image through the network in parts, so that memory stays bounded and warm, as if it were in one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from deal.model import DEAL

BLEND = 8  # pixels to each side of a seam over which the parts go over into one another
MAPS = 10  # images of the network's width that are alive at once, at most
MOST_PIXELS = 1 << 20
LEAST_TILE = 64


def tiled(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, reach: int) -> Tensor:
    """network(x), computed in parts that see `overlap` pixels more to each side than they are for.

    No part uses a pixel that the end of another part has touched, so the parts agree where they meet.

    Args:
        network: its result at a pixel depends on `reach` pixels to each side.
        x: [B, C, H, W].
        tile: height and width of the parts, without the overlap.
        overlap: the reach or more. What is more blends the seams.
    """
    height, rows = parts(x.shape[2], tile, overlap)
    width, columns = parts(x.shape[3], tile, overlap)
    if len(rows) == len(columns) == 1:
        return network(x)
    down, across = (shares(size, starts, reach).to(x.device) for size, starts in ((height, rows), (width, columns)))
    result = torch.zeros_like(x)
    for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        place = ..., slice(top, top + height), slice(left, left + width)
        result[place] += network(x[place].contiguous()) * (down[i, :, None] * across[j])
    return result


def parts(length: int, tile: int, overlap: int) -> tuple[int, list[int]]:
    """The size that all parts have, with their overlap, and where they start: one size keeps memory warm.

    >>> parts(100, 40, 10)
    (60, [0, 40])
    """
    count = max(1, -(-(length - 2 * overlap) // tile))
    size = min(length, -(-(length - 2 * overlap) // count) + 2 * overlap)
    return size, [round(k * (length - size) / max(1, count - 1)) for k in range(count)]


def shares(size: int, starts: list[int], reach: int) -> Tensor:
    """By part and pixel, how much of the whole it gives there: nothing within its reach of an end inside the image."""
    place = torch.arange(size, dtype=torch.float64) + 0.5
    weights = torch.ones(len(starts), size, dtype=torch.float64)
    for k, (one, other) in enumerate(itertools.pairwise(starts)):
        common = one + size - other  # pixels that both have
        blended = max(common - 2 * reach, 1e-6)
        rising = ((place - reach) / blended).clamp(0, 1)
        weights[k + 1] *= rising
        weights[k] *= 1 - ((place - (size - common) - reach) / blended).clamp(0, 1)
    total = torch.zeros(starts[-1] + size, dtype=torch.float64)
    for start, each in zip(starts, weights, strict=True):
        total[start : start + size] += each
    return torch.stack(
        [each / total[start : start + size] for start, each in zip(starts, weights, strict=True)]
    ).float()


def automatic(network: DEAL, device: torch.device, overlap: int) -> int:
    """The tile that takes at most half of the memory that is free."""
    pixels = free_memory(device) // 2 // (MAPS * 4 * network.width)
    return max(LEAST_TILE, int(min(pixels, MOST_PIXELS) ** 0.5) - 2 * overlap)


def free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return 2 << 30
