"""A cost model that estimates whether the engine or torch's own convolution is faster on a CPU.

The engine splits the image into overlapping tiles, separately for each phase of a dilation. Its work is the transforms
of the tiles, the products of spectra, reading the spectrum of the weight once for every few tiles, and in training the
transforms of the weight's gradient. Torch's work is the direct sum, the traffic of the images, and extra passes for
padding and activation.

The constants were fitted to measurements on one thread of an AMD Zen 3 with AVX2: 16 to 16 and 32 to 32 channels,
kernels from 1 to 11, images from 24 x 24 to 256 x 256, forward alone and with all gradients. Those of Winograd's tiles
and of torch's passes were fitted to 3 x 3 kernels at up to 640 x 480 on two threads. Only their ratios matter.
`bench/bench_conv.py` checks the choices.
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
WINOGRAD = 6  # tile of Winograd's transform, for the forward pass of 3 x 3 kernels
_COMPILED = backends.extension()  # loaded at import, where nothing traces
LANES = {"baseline": 4, "avx2": 8, "avx512": 16}[_COMPILED.isa() if _COMPILED else "baseline"]

TILES_AT_ONCE = 8  # tiles for which a spectrum is read once
WINOGRAD_TRANSFORM = 500  # operations for a channel of a tile, in units of the Fourier transform's
MARGIN = 1.15  # the engine is taken if it is faster by this factor


class Work(NamedTuple):
    """The engine's floating-point operations, and how many numbers of the weight's spectrum it reads."""

    transforms: int
    products: int
    weights: int  # operations of transforms of the weight and its gradient
    reads: int


NANOSECONDS = Work(0.055, 0.016, 0.12, 0.55)  # type: ignore[arg-type]
DIRECT, PIXEL = 0.0184, 0.72  # for an operation of the direct sum; for a number of an image
PASS, FRESH = 1.5, 5.0  # for a number that an extra pass moves, in reused memory; in fresh memory
MATRIX_UNIT = 0.1  # time of a direct sum on a matrix unit, of that on vectors
LARGE = 1 << 23  # numbers in a tensor whose memory glibc returns to the system when it is freed
GRADIENT = 9.4  # for a number of an image, in gradients of kernels larger than one pixel


def filled(channels: int) -> int:
    """The number of channels after padding: the real and the imaginary half are each padded to whole vectors."""
    half = (channels + 1) // 2
    return 2 * LANES * -(-half // LANES)


def work(shape: Sequence[int], weight: Sequence[int], g: Geometry, tile: int, trains: bool) -> Work:
    """The engine's work for images and a weight of these shapes, with tiles of a size."""
    count = shape[0]
    for size, kernel, dilation in zip(g.size_of_result(shape[2:], weight[2:]), weight[2:], g.dilation, strict=True):
        phases = min(dilation, size)
        count *= phases * -(-size // (phases * (tile - kernel + 1)))
    outputs, inputs = weight[:2]
    ends = filled(inputs) + filled(outputs)
    if tile == WINOGRAD:
        # The weights stay in the cache. Channels that do not fill a vector of each half are moved one by one.
        alone = 2 * sum(filled(channels) for channels in (inputs, outputs) if channels < 2 * LANES)
        products = count * tile * tile * 2 * inputs * filled(outputs)
        return Work(count * WINOGRAD_TRANSFORM * (ends + alone), products, 0, 0)
    transform = 5 * tile * tile * 2 * round(math.log2(tile)) // 2  # for one channel, half of a complex transform
    frequencies = tile * tile // 2 + 2
    # In training the images and the gradient of the result are transformed once more, for the weight's gradient.
    transforms = count * transform * ends * (3 if trains else 1)
    products = count * frequencies * 6 * inputs * filled(outputs) * (3 if trains else 1)
    reads = -(-count // TILES_AT_ONCE) * frequencies * 3 * inputs * filled(outputs) * (3 if trains else 1)
    return Work(transforms, products, 3 * transform * inputs * filled(outputs) if trains else 0, reads)


def tiles(weight: Sequence[int], trains: bool, channels_last: bool) -> list[int]:
    """The possible tile sizes. Winograd's tiles give four pixels in a row, too few to transpose from other layouts."""
    winograd = [WINOGRAD] if tuple(weight[2:]) == (3, 3) and channels_last and not trains else []
    return winograd + [tile for tile in TILES if tile >= max(weight[2:])]


def operations(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool) -> int:
    """The least number of operations of the engine with Fourier transforms."""
    found = (work(shape, weight, g, tile, trains) for tile in tiles(weight, trains, False))
    return min(w.transforms + w.products + w.weights for w in found)


def engine_time(shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, tile: int) -> float:
    """Nanoseconds on one thread."""
    return sum(map(operator.mul, work(shape, weight, g, tile, trains), NANOSECONDS))


def best_tile(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, channels_last: bool
) -> int:  # fmt: skip
    found = tiles(weight, trains, channels_last)
    times = [engine_time(shape, weight, g, trains, tile) for tile in found]
    return found[times.index(min(times))]


def torch_time(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, passes: int = 0, matrix_unit: bool = False
) -> float:  # fmt: skip
    """Nanoseconds on one thread. Torch's vectors have eight channels, except for images of three or fewer.

    Args:
        matrix_unit: whether the sums run on one, which images in bfloat16 do on some processors.
        passes: extra passes over the result, one for a residual and one for an activation. Padding other than zeros
            adds a pass over the image.
    """
    height, width = g.size_of_result(shape[2:], weight[2:])
    outputs, inputs, *kernel = weight
    filled_in, filled_out = (inputs if inputs <= 3 else -(-inputs // 8) * 8), -(-outputs // 8) * 8
    sums = (
        (MATRIX_UNIT if matrix_unit else 1.0)
        * 2
        * shape[0]
        * height
        * width
        * filled_in
        * filled_out
        * math.prod(kernel)
    )
    pixels = shape[0] * height * width * (inputs + outputs)
    gradients = pixels * GRADIENT if trains and math.prod(kernel) > 1 else 0
    image, result = math.prod(shape), shape[0] * height * width * outputs
    padded = image if any(g.padding) and g.padding_mode != "zeros" else 0
    moved = sum(count * (FRESH if count > LARGE else PASS) for count in (padded, *[result] * passes))
    fresh = result * FRESH if result > LARGE else 0
    return (sums * DIRECT + pixels * PIXEL) * (3 if trains else 1) + gradients + moved + fresh


def engine_is_faster(
    shape: Sequence[int], weight: Sequence[int], g: Geometry, trains: bool, channels_last: bool, passes: int = 0,
    matrix_unit: bool = False,
) -> bool:  # fmt: skip
    """Whether the engine is faster for images [B, C, H, W] and a weight [O, C, kH, kW] of these shapes."""
    if math.prod(shape) == 0:
        return False
    tile = best_tile(shape, weight, g, trains, channels_last)
    return engine_time(shape, weight, g, trains, tile) * MARGIN < torch_time(
        shape, weight, g, trains, passes, matrix_unit
    )  # fmt: skip
