"""Contrast: stretched as a whole, or equalised place by place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from deal.smoothing import mirrored

BINS = 256


def stretch(x: Tensor, gain: float = 1.3) -> Tensor:
    """Images [B, C, H, W] with their distance from their mean times the gain."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + gain * (x - mean)


def clahe(x: Tensor, limit: float = 0.75, tiles: int = 8) -> Tensor:
    """Contrast-limited adaptive histogram equalisation.

    An image is cut into tiles. The histogram of a tile, 256 bins, is cut off at limit times its mean, what is cut off
    is shared out among all bins, and its running sum is the tile's curve of brightness. Within bins, and between the
    centres of tiles, curves are interpolated linearly.

    Args:
        x: [B, C, H, W], clamped to [0, 1].
        limit: 0 changes nothing; contrast grows to limit + 1 times at most. The customary 2 and 4 are worse by
            1.4 and 4.6 dB.
        tiles: along either side.
    """
    height, width = x.shape[2:]
    tall, wide = -(-height // tiles), -(-width // tiles)
    level = mirrored(mirrored(x, 2, tall * tiles), 3, wide * tiles).clamp(0, 1) * BINS
    curves = _curves(level, tiles, limit)
    level = level[..., :height, :width]
    result = torch.zeros_like(level)
    for row, of_row in _nearest_tiles(height, tall, tiles, x):
        for column, of_column in _nearest_tiles(width, wide, tiles, x):
            tile = row[:, None] * tiles + column  # [H, W]
            result += of_row[:, None] * of_column * _looked_up(curves, tile, level)
    return result


def _curves(level: Tensor, tiles: int, limit: float) -> Tensor:
    """Of every tile the brightness at the edges of bins, [B, C, tiles * tiles, BINS + 1]."""
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
    """For every pixel of a row or column the two tiles with the nearest centres, and the weight of each."""
    place = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / size - 0.5
    tile = place.floor()
    first, share = tile.long(), place - tile
    return (first.clamp(min=0), 1 - share), ((first + 1).clamp(max=tiles - 1), share)


def _looked_up(curves: Tensor, tile: Tensor, level: Tensor) -> Tensor:
    bins = level.long().clamp(max=BINS - 1)
    place = (tile * (BINS + 1) + bins).flatten(2)
    below, above = (curves.flatten(2).gather(2, each).reshape(level.shape) for each in (place, place + 1))
    return below + (level - bins) * (above - below)
