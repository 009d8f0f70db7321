"""Contrast enhancement, global and adaptive."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal.model.filters import mirror_pad

BINS = 256


def stretch(x: Tensor, gain: float = 1.3) -> Tensor:
    """Multiplies the difference of images [B, C, H, W] from their mean by the gain."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + gain * (x - mean)


def clahe(x: Tensor, limit: float = 0.75, tiles: int = 8) -> Tensor:
    """Contrast-limited adaptive histogram equalisation.

    The image is divided into tiles. The 256-bin histogram of each tile is clipped at `limit` times its mean, the excess
    is distributed evenly over all bins, and the cumulative histogram is the tone curve of the tile. Curves are
    interpolated linearly within bins and between the centres of tiles.

    Args:
        x: [B, C, H, W], clamped to [0, 1].
        limit: clip limit; contrast grows at most by the factor limit + 1. The usual values 2 and 4 are worse by 1.4 and
            4.6 dB.
        tiles: number of tiles along each side.
    """
    height, width = x.shape[2:]
    tall, wide = -(-height // tiles), -(-width // tiles)
    level = mirror_pad(mirror_pad(x, 2, tall * tiles), 3, wide * tiles).clamp(0, 1) * BINS
    curves = _curves(level, tiles, limit)
    level = level[..., :height, :width]
    result = torch.zeros_like(level)
    for row, of_row in _nearest_tiles(height, tall, tiles, x):
        for column, of_column in _nearest_tiles(width, wide, tiles, x):
            tile = row[:, None] * tiles + column  # [H, W]
            result += of_row[:, None] * of_column * _apply_curves(curves, tile, level)
    return result


def _curves(level: Tensor, tiles: int, limit: float) -> Tensor:
    """The tone curve of each tile at the bin edges, [B, C, tiles * tiles, BINS + 1]."""
    batch, channels, height, width = level.shape
    parts = level.reshape(batch, channels, tiles, height // tiles, tiles, width // tiles)
    parts = parts.transpose(3, 4).reshape(batch * channels * tiles * tiles, -1)
    count = parts.shape[1]
    bins = parts.long().clamp(max=BINS - 1) + BINS * torch.arange(len(parts), device=level.device)[:, None]
    shares = torch.bincount(bins.reshape(-1), minlength=len(parts) * BINS).reshape(-1, BINS).to(level.dtype) / count
    kept = shares.clamp(max=limit / BINS)
    kept += (1 - kept.sum(1, keepdim=True)) / BINS
    curves = pad(kept.cumsum(1), (1, 0))
    return curves.reshape(batch, channels, tiles * tiles, BINS + 1)


def _nearest_tiles(count: int, size: int, tiles: int, like: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """The two tiles with the nearest centres for each position along one side, and their weights."""
    position = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / size - 0.5
    tile = position.floor()
    first, share = tile.long(), position - tile
    return (first.clamp(min=0), 1 - share), ((first + 1).clamp(max=tiles - 1), share)


def _apply_curves(curves: Tensor, tile: Tensor, level: Tensor) -> Tensor:
    bins = level.long().clamp(max=BINS - 1)
    index = (tile * (BINS + 1) + bins).flatten(2)
    below, above = (curves.flatten(2).gather(2, each).reshape(level.shape) for each in (index, index + 1))
    return below + (level - bins) * (above - below)
