"""Which is faster on a CPU, the engine or torch's own convolution: an estimate from the work of both.

The engine cuts each phase of a dilation into tiles that overlap. Its work is their transforms, the products of their
spectra, reading the weight's spectrum for every few tiles, and in training the weights' transforms. Torch's work is the
direct sum, and going over the images.

The nanoseconds were fitted to measurements of one thread of an AMD Zen 3 with AVX2, 32 to 32 and 16 to 16 channels,
kernels from 1 to 11 and images from 24 x 24 to 256 x 256, forward alone and with all gradients. What counts are their
ratios. Of 55 cases the estimate with its margin errs in one, by a third (5 x 5, 16 channels, 64 x 64);
`bench/bench_conv.py` checks it.
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
    reads = -(-tiles // TILES_AT_ONCE) * frequencies * 3 * inputs * filled(outputs) * (3 if trains else 1)
    return Work(transforms, products, 3 * transform * inputs * filled(outputs) if trains else 0, reads)


def works(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> list[Work]:
    """With each tile that is large enough."""
    return [work(shape, weight, g, tile, trains) for tile in TILES if tile >= max(weight[2:])]


def operations(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """The fewest that the engine can do."""
    return min(w.transforms + w.products + w.weights for w in works(shape, weight, g, trains))


def engine_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> float:
    """In nanoseconds of one thread."""
    return min(sum(map(operator.mul, w, NANOSECONDS)) for w in works(shape, weight, g, trains))


def torch_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> float:
    """In nanoseconds of one thread. Its vectors have eight channels, but for images of three and fewer."""
    height, width = g.size_of_result(shape[2:], weight[2:])
    outputs, inputs, *kernel = weight
    filled_in, filled_out = (inputs if inputs <= 3 else -(-inputs // 8) * 8), -(-outputs // 8) * 8
    sums = 2 * shape[0] * height * width * filled_in * filled_out * math.prod(kernel)
    pixels = shape[0] * height * width * (inputs + outputs)
    return (sums * DIRECT + pixels * PIXEL) * (3 if trains else 1)


def engine_is_faster(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> bool:
    """For images [B, C, H, W] and a weight [O, C, kH, kW] of these shapes."""
    if math.prod(shape) == 0:
        return False
    return engine_time(shape, weight, g, trains) * MARGIN < torch_time(shape, weight, g, trains)
