"""Which is faster on a CPU, the engine or torch's own convolution: an estimate from the work of both.

The engine cuts each phase of a dilation into tiles that overlap. Its work is their transforms, the products of their
spectra, reading the weight's spectrum for every few tiles, and in training the weights' transforms. Torch's work is the
direct sum, going over the images, and passes of their own for padding and activation.

The nanoseconds were fitted to measurements of one thread of an AMD Zen 3 with AVX2, 32 to 32 and 16 to 16 channels,
kernels from 1 to 11 and images from 24 x 24 to 256 x 256, forward alone and with all gradients; what Winograd's tiles
and torch's passes take, to 3 x 3 kernels at up to 640 x 480 on two threads. What counts are their ratios;
`bench/bench_conv.py` checks what they choose.
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
WINOGRAD = 6  # the tile of another transform, of kernels of 3 x 3, going forward
_COMPILED = backends.extension()  # asked here, where nothing traces
LANES = {"baseline": 4, "avx2": 8, "avx512": 16}[_COMPILED.isa() if _COMPILED else "baseline"]

TILES_AT_ONCE = 8  # for which a spectrum is read once
WINOGRAD_TRANSFORM = 500  # operations for a channel, counted as slow as those of Fourier transforms are
MARGIN = 1.15  # by which the engine has to be faster


class Work(NamedTuple):
    """Of the engine: floating-point operations, and numbers of the weight's spectrum that are read."""

    transforms: int
    products: int
    weights: int  # transforms of what belongs to the weights
    reads: int


NANOSECONDS = Work(0.055, 0.016, 0.12, 0.55)  # type: ignore[arg-type]
DIRECT, PIXEL = 0.0184, 0.72  # an operation of the direct sum; a number of an image
PASS, FRESH = 1.5, 5.0  # a number that is moved once more, in memory that is used again or that is not
LARGE = 1 << 23  # numbers of a tensor: glibc returns the memory of larger ones when they are freed
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
    ends = filled(inputs) + filled(outputs)
    if tile == WINOGRAD:
        # Its weights stay in the cache. Channels that do not fill a vector of each half are moved one by one.
        alone = 2 * sum(filled(channels) for channels in (inputs, outputs) if channels < 2 * LANES)
        products = count * tile * tile * 2 * inputs * filled(outputs)
        return Work(count * WINOGRAD_TRANSFORM * (ends + alone), products, 0, 0)
    transform = 5 * tile * tile * 2 * round(math.log2(tile)) // 2  # of one channel, as half of a complex transform
    frequencies = tile * tile // 2 + 2
    # Training transforms the images and the gradient of the result for that of the weight once more.
    transforms = count * transform * ends * (3 if trains else 1)
    products = count * frequencies * 6 * inputs * filled(outputs) * (3 if trains else 1)
    reads = -(-count // TILES_AT_ONCE) * frequencies * 3 * inputs * filled(outputs) * (3 if trains else 1)
    return Work(transforms, products, 3 * transform * inputs * filled(outputs) if trains else 0, reads)


def tiles(weight: Sequence[int], trains: bool, channels_last: bool) -> list[int]:
    """Sizes of tiles that serve. Winograd's yield four pixels in a row, too few to transpose."""
    winograd = [WINOGRAD] if tuple(weight[2:]) == (3, 3) and channels_last and not trains else []
    return winograd + [tile for tile in TILES if tile >= max(weight[2:])]


def operations(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """The fewest that the engine can do with Fourier transforms."""
    found = (work(shape, weight, g, tile, trains) for tile in tiles(weight, trains, False))
    return min(w.transforms + w.products + w.weights for w in found)


def engine_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, tile: int) -> float:
    """In nanoseconds of one thread."""
    return sum(map(operator.mul, work(shape, weight, g, tile, trains), NANOSECONDS))


def best_tile(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, channels_last: bool
) -> int:  # fmt: skip
    found = tiles(weight, trains, channels_last)
    return min(found, key=lambda tile: engine_time(shape, weight, g, trains, tile))


def torch_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, passes: int = 0) -> float:
    """In nanoseconds of one thread. Its vectors have eight channels, but for images of three and fewer.

    Args:
        passes: over the result, for what is added to it and its activation. Padding that is not zeros is one over the
            image.
    """
    height, width = g.size_of_result(shape[2:], weight[2:])
    outputs, inputs, *kernel = weight
    filled_in, filled_out = (inputs if inputs <= 3 else -(-inputs // 8) * 8), -(-outputs // 8) * 8
    sums = 2 * shape[0] * height * width * filled_in * filled_out * math.prod(kernel)
    pixels = shape[0] * height * width * (inputs + outputs)
    gradients = pixels * GRADIENT if trains and math.prod(kernel) > 1 else 0
    image, result = math.prod(shape), shape[0] * height * width * outputs
    padded = image if any(g.padding) and g.padding_mode != "zeros" else 0
    moved = sum(count * (FRESH if count > LARGE else PASS) for count in (padded, *[result] * passes))
    fresh = result * FRESH if result > LARGE else 0
    return (sums * DIRECT + pixels * PIXEL) * (3 if trains else 1) + gradients + moved + fresh


def engine_is_faster(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, channels_last: bool, passes: int = 0
) -> bool:  # fmt: skip
    """For images [B, C, H, W] and a weight [O, C, kH, kW] of these shapes."""
    if math.prod(shape) == 0:
        return False
    tile = best_tile(shape, weight, g, trains, channels_last)
    return engine_time(shape, weight, g, trains, tile) * MARGIN < torch_time(shape, weight, g, trains, passes)
