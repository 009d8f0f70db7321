"""Which is faster on a CPU, the engine or torch's own convolution: an estimate from the operations of both.

The engine cuts each phase of a dilation into tiles that overlap. Its work is their transforms, the products of their
spectra, and in training the weights' transforms. Torch's work is the direct sum. The rates were fitted to measurements
(`bench/bench_conv.py` checks what they choose); what counts are their ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from deal_kernels import backend as backends
from deal_kernels.conv.reference import Geometry

LARGEST_KERNEL = 32
TILES = (16, 32)
_COMPILED = backends.extension()  # asked here, where nothing traces
LANES = {"baseline": 4, "avx2": 8, "avx512": 16}[_COMPILED.isa() if _COMPILED else "baseline"]


class Work(NamedTuple):
    """Floating-point operations of the engine."""

    transforms: int
    products: int
    weights: int  # transforms of what belongs to the weights


def filled(channels: int) -> int:
    """Channels, with those that fill the vectors: one half of them is the real part, the other the imaginary part."""
    half = (channels + 1) // 2
    return 2 * LANES * -(-half // LANES)


def work(shape: Sequence[int], weight: Sequence[int], g: Geometry, tile: int, trains: bool) -> Work:
    """For images and a weight of some shapes, with tiles of a size."""
    tiles = shape[0]
    for size, kernel, dilation in zip(g.size_of_result(shape[2:], weight[2:]), weight[2:], g.dilation, strict=True):
        phases = min(dilation, size)
        tiles *= phases * -(-size // (phases * (tile - kernel + 1)))
    outputs, inputs = weight[:2]
    transform = 5 * tile * tile * 2 * round(math.log2(tile)) // 2  # of one channel, as half of a complex transform
    frequencies = tile * tile // 2 + 2
    # Training transforms the images and the gradient of the result for that of the weight once more.
    ends = filled(inputs) + filled(outputs)
    transforms = tiles * transform * ends * (3 if trains else 1)
    products = tiles * frequencies * 6 * inputs * filled(outputs) * (3 if trains else 1)
    return Work(transforms, products, 3 * transform * inputs * filled(outputs) if trains else 0)


def operations(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """The fewest that the engine can do."""
    return min(sum(work(shape, weight, g, tile, trains)) for tile in TILES if tile >= max(weight[2:]))


def direct(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """Those of the direct sum."""
    height, width = g.size_of_result(shape[2:], weight[2:])
    return 2 * shape[0] * height * width * math.prod(weight) * (3 if trains else 1)


def engine_is_faster(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> bool:
    """For images [B, C, H, W] and a weight [O, C, kH, kW] of these shapes."""
    return math.prod(shape) > 0 and operations(shape, weight, g, trains) * 2 < direct(shape, weight, g, trains)
