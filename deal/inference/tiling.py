"""Tiled inference with bounded memory, equal to whole-image inference up to rounding."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import torch
from torch import Tensor

from deal.model.pretrained import Network

BLEND = 8  # pixels to each side of a seam over which neighbouring tiles are blended
FEATURE_MAPS = 10  # the most feature maps of full width in memory at the same time
MAX_PIXELS = 1 << 20
MIN_TILE = 64


def run_tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, reach: int, stride: int = 1
) -> Tensor:  # fmt: skip
    """network(x), computed in overlapping tiles.

    Pixels within `reach` of the border of a tile depend on the padding there and have weight 0, so the tiles agree
    where they overlap.

    Args:
        network: the result at a pixel must depend on at most `reach` pixels to each side.
        x: [B, C, H, W].
        tile: height and width of the tiles, without the overlap.
        overlap: pixels that a tile extends beyond its own area to each side, at least `reach`; further ones are
            blended.
        reach: the receptive radius of the network.
        stride: of the network: the sides of x are multiples of it, and so are the sides and positions of tiles.
    """
    height, rows = tile_grid(x.shape[2], tile, overlap, stride)
    width, columns = tile_grid(x.shape[3], tile, overlap, stride)
    if len(rows) == len(columns) == 1:
        return network(x)
    down, across = (
        blend_weights(size, starts, reach).to(x.device) for size, starts in ((height, rows), (width, columns))
    )
    result = torch.zeros_like(x)
    for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        area = ..., slice(top, top + height), slice(left, left + width)
        result[area] += network(x[area].contiguous()) * (down[i, :, None] * across[j])
    return result


def tile_grid(length: int, tile: int, overlap: int, stride: int = 1) -> tuple[int, list[int]]:
    """The common size of all tiles, overlap included, and their starts. With one size, memory blocks are reused.

    >>> tile_grid(100, 40, 10)
    (60, [0, 40])
    """
    count = max(1, -(-(length - 2 * overlap) // tile))
    size = min(length, -(-(length - 2 * overlap) // (count * stride)) * stride + -(-2 * overlap // stride) * stride)
    return size, [round(k * (length - size) / (stride * max(1, count - 1))) * stride for k in range(count)]


def blend_weights(size: int, starts: list[int], reach: int) -> Tensor:
    """The weight of every tile at each of its pixels: 0 within `reach` of a border inside of the image."""
    position = torch.arange(size, dtype=torch.float64) + 0.5
    weights = torch.ones(len(starts), size, dtype=torch.float64)
    for k, (one, other) in enumerate(itertools.pairwise(starts)):
        common = one + size - other  # pixels in both tiles
        blended = max(common - 2 * reach, 1e-6)
        rising = ((position - reach) / blended).clamp(0, 1)
        weights[k + 1] *= rising
        weights[k] *= 1 - ((position - (size - common) - reach) / blended).clamp(0, 1)
    total = torch.zeros(starts[-1] + size, dtype=torch.float64)
    for start, each in zip(starts, weights, strict=True):
        total[start : start + size] += each
    return torch.stack(
        [each / total[start : start + size] for start, each in zip(starts, weights, strict=True)]
    ).float()


def automatic_tile(network: Network, device: torch.device, overlap: int) -> int:
    """The tile size that needs at most half of the free memory."""
    pixels = free_memory(device) // 2 // (FEATURE_MAPS * 4 * network.width)
    return max(MIN_TILE, int(min(pixels, MAX_PIXELS) ** 0.5) - 2 * overlap)


def free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not available on every system
        return 2 << 30
