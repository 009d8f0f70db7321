"""Which is faster on a CPU, the engine or torch's own convolution: an estimate from the work of both.

The engine cuts each phase of a dilation into tiles that overlap. Its work is their transforms, the products of their
spectra, reading the weight's spectrum for every few tiles, and in training the weights' transforms. Torch's work is the
direct sum, and going over the images.

The nanoseconds were fitted to measurements of one thread of an AMD Zen 3 with AVX2, 32 to 32 and 16 to 16 channels,
kernels from 1 to 11 and images from 24 x 24 to 256 x 256, forward alone and with all gradients. What counts are their
ratios; `bench/bench_conv.py` checks what they choose.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

from deal_kernels import backend as backends
from deal_kernels.conv.reference import Geometry

LARGEST_KERNEL = 32
TILES = (16, 32)
_COMPILED = backends.extension()  # asked here, where nothing traces
LANES = {"baseline": 4, "avx2": 8, "avx512": 16}[_COMPILED.isa() if _COMPILED else "baseline"]


TILES_AT_ONCE = 8  # for which a spectrum is read once
MARGIN = 1.15  # by which the engine has to be faster


class Work(NamedTuple):
    """Of the engine: floating-point operations, and numbers of the weight's spectrum that are read."""

    transforms: int
    products: int
    weights: int  # transforms of what belongs to the weights
    reads: int


NANOSECONDS = Work(0.055, 0.016, 0.12, 0.55)  # type: ignore[arg-type]
DIRECT, PIXEL = 0.0184, 0.72  # an operation of the direct sum; a number of an image
GRADIENT = 9.4  # a number of an image, for gradients of kernels that are larger than a pixel


def filled(channels: int) -> int:
    """Channels, with those that fill the vectors: one half of them is the real part, the other the imaginary part."""
    half = (channels + 1) // 2
    return 2 * LANES * -(-half // LANES)


def work(shape: Sequence[int], weight: Sequence[int], g: Geometry, tile: int, trains: bool) -> Work:
    """For images and a weight of some shapes, with tiles of a size."""
    count = shape[0]
    for size, kernel, dilation in zip(g.size_of_result(shape[2:], weight[2:]), weight[2:], g.dilation, strict=True):
        phases = min(dilation, size)
        count *= phases * -(-size // (phases * (tile - kernel + 1)))
    outputs, inputs = weight[:2]
    transform = 5 * tile * tile * 2 * round(math.log2(tile)) // 2  # of one channel, as half of a complex transform
    frequencies = tile * tile // 2 + 2
    # Training transforms the images and the gradient of the result for that of the weight once more.
    ends = filled(inputs) + filled(outputs)
    transforms = count * transform * ends * (3 if trains else 1)
    products = count * frequencies * 6 * inputs * filled(outputs) * (3 if trains else 1)
    reads = -(-count // TILES_AT_ONCE) * frequencies * 3 * inputs * filled(outputs) * (3 if trains else 1)
    return Work(transforms, products, 3 * transform * inputs * filled(outputs) if trains else 0, reads)


def tiles(weight: Sequence[int]) -> list[int]:
    """Sizes of tiles that are large enough."""
    return [tile for tile in TILES if tile >= max(weight[2:])]


def operations(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """The fewest that the engine can do."""
    found = (work(shape, weight, g, tile, trains) for tile in tiles(weight))
    return min(w.transforms + w.products + w.weights for w in found)


def engine_time(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, tile: int | None = None
) -> float:
    """In nanoseconds of one thread, with the best tile or this one."""
    found = (work(shape, weight, g, each, trains) for each in (tiles(weight) if tile is None else [tile]))
    return min(sum(map(operator.mul, w, NANOSECONDS)) for w in found)


def best_tile(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    return min(tiles(weight), key=lambda tile: engine_time(shape, weight, g, trains, tile))


def torch_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> float:
    """In nanoseconds of one thread. Its vectors have eight channels, but for images of three and fewer."""
    height, width = g.size_of_result(shape[2:], weight[2:])
    outputs, inputs, *kernel = weight
    filled_in, filled_out = (inputs if inputs <= 3 else -(-inputs // 8) * 8), -(-outputs // 8) * 8
    sums = 2 * shape[0] * height * width * filled_in * filled_out * math.prod(kernel)
    pixels = shape[0] * height * width * (inputs + outputs)
    gradients = pixels * GRADIENT if trains and math.prod(kernel) > 1 else 0
    return (sums * DIRECT + pixels * PIXEL) * (3 if trains else 1) + gradients


def engine_is_faster(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> bool:
    """For images [B, C, H, W] and a weight [O, C, kH, kW] of these shapes."""
    if math.prod(shape) == 0:
        return False
    return engine_time(shape, weight, g, trains) * MARGIN < torch_time(shape, weight, g, trains)
