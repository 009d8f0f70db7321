"""Contrast: stretched as a whole, or equalised place by place."""

from __future__ import annotations

import torch
from torch import Tensor

from deal.smoothing import mirrored

BINS = 256


def stretch(x: Tensor, gain: float = 1.3) -> Tensor:
    """Images [B, C, H, W] with their distance from their mean times the gain."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + gain * (x - mean)


def clahe(x: Tensor, limit: float = 2.0, tiles: int = 8) -> Tensor:
    """Contrast-limited adaptive histogram equalisation.

    The image is cut into tiles x tiles parts. A part's histogram of 256 bins, cut off at limit times its mean, and what
    is cut off shared out among all bins, gives a curve of brightness; between bins and between parts' centres curves
    are interpolated linearly. Values are clamped to [0, 1].

    Args:
        x: [B, C, H, W]
        limit: 1 changes nothing, more steepens the curves up to so much.
        tiles: along either side.
    """
    height, width = x.shape[2:]
    tall, wide = -(-height // tiles), -(-width // tiles)
    level = mirrored(mirrored(x, 2, tall * tiles), 3, wide * tiles).clamp(0, 1) * BINS
    curves = _curves(level, tiles, limit)  # [B, C, tiles * tiles, BINS + 1]
    level = level[..., :height, :width]
    y_tile, y_share = _between(height, tall, tiles, x)
    x_tile, x_share = _between(width, wide, tiles, x)
    result = torch.zeros_like(level)
    for y, of_y in ((y_tile, 1 - y_share), (y_tile + 1, y_share)):
        for z, of_z in ((x_tile, 1 - x_share), (x_tile + 1, x_share)):
            tile = y.clamp(0, tiles - 1)[:, None] * tiles + z.clamp(0, tiles - 1)
            result += of_y[:, None] * of_z * _looked_up(curves, tile, level)
    return result


def _curves(level: Tensor, tiles: int, limit: float) -> Tensor:
    batch, channels, height, width = level.shape
    parts = level.reshape(batch, channels, tiles, height // tiles, tiles, width // tiles)
    parts = parts.transpose(3, 4).reshape(batch * channels * tiles * tiles, -1)
    count = parts.shape[1]
    bins = parts.long().clamp(max=BINS - 1) + BINS * torch.arange(len(parts), device=level.device)[:, None]
    shares = torch.bincount(bins.reshape(-1), minlength=len(parts) * BINS).reshape(-1, BINS).to(level.dtype) / count
    kept = shares.clamp(max=limit / BINS)
    kept += (1 - kept.sum(1, keepdim=True)) / BINS
    curves = torch.nn.functional.pad(kept.cumsum(1), (1, 0))
    return curves.reshape(batch, channels, tiles * tiles, BINS + 1)


def _between(count: int, size: int, tiles: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For every pixel the tile whose centre is ahead of it, and how far it is to the next one's."""
    place = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / size - 0.5
    tile = place.floor()
    return tile.long(), place - tile


def _looked_up(curves: Tensor, tile: Tensor, level: Tensor) -> Tensor:
    bins = level.long().clamp(max=BINS - 1)
    place = tile * (BINS + 1) + bins
    flat = curves.flatten(2)
    below, above = (flat.gather(2, each.flatten(2)).reshape(level.shape) for each in (place, place + 1))
    return below + (level - bins) * (above - below)
