"""The convolution as Triton kernels: a matrix product on tensor cores whose left factor is read from the image.

Images are channels-last. A program sums a tile of pixels of one image, for a block of columns, the channels of the
result, over the taps of the kernel and the channels of the image. Padding is never written: what lies beyond the border
is found by index as it is read. Tiles that read nothing beyond it skip that arithmetic.

The gradient of the image is the same product with the gradient as the image, zeros around it and the kernel turned by
180 degrees. Behind a reflection or replication it comes out padded, and a second kernel gathers for each pixel of the
image those that were copies of it, in a fixed order.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels.conv.reference import Geometry

TILE = 8, 16  # pixels down and across: nearly a square, so that the taps share most of what they read
LEAST = 16  # channels or columns of a product on tensor cores
STEP = 32  # channels of a step, and columns of a program that has no tensor cores, or 4 warps
WIDEST = 64  # columns of a program
STAGES = 4
ELEMENTS = 4096  # of the image, of a program that folds
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SIZES = ("height", "width", "out_height", "out_width", "top", "left", "down", "across")


@triton.jit
def beyond(place, size, MODE: tl.constexpr):
    """The pixels that places along an axis are read from, those of a reflection or replication inside the image."""
    if MODE == "reflect":
        place = tl.abs(place)
        place = tl.minimum(place, 2 * (size - 1) - place)
    if MODE != "zeros":
        place = tl.minimum(tl.maximum(place, 0), size - 1)
    return place


@triton.jit
def sum_of_taps(
    sums, wanted, image, weight, y, x, column, height, width, down, across,
    MODE: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    TURNED: tl.constexpr, FOLDED: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """[pixels, columns]; y and x are the places of each pixel's first tap."""
    TAPS: tl.constexpr = KERNEL_H * KERNEL_W
    CHUNKS: tl.constexpr = (CHANNELS + BLOCK_K - 1) // BLOCK_K  # steps of a tap
    STEPS: tl.constexpr = (TAPS * CHANNELS + BLOCK_K - 1) // BLOCK_K if FOLDED else TAPS * CHUNKS
    WHOLE: tl.constexpr = (TAPS * CHANNELS if FOLDED else CHANNELS) % BLOCK_K == 0
    y, x, column = y[:, None], x[:, None], column[None, :]
    exists = column < COLUMNS
    for step in range(STEPS * wanted.to(tl.int32)):
        k = tl.arange(0, BLOCK_K)
        if FOLDED:  # a step goes over several taps
            k += step * BLOCK_K
            tap, channel, some = k // CHANNELS, k % CHANNELS, k < TAPS * CHANNELS
            tap_of_row = tap[None, :]
            tap = tap[:, None]
        else:
            tap, channel = step // CHUNKS, step % CHUNKS * BLOCK_K + k
            some, tap_of_row = channel < CHANNELS, tap
        down_here, across_here = tap_of_row // KERNEL_W * down, tap_of_row % KERNEL_W * across
        if MODE == "inside":
            first = (y.to(tl.int64) * width + x) * CHANNELS
            pixel = first + (tl.cast(down_here, tl.int64) * width + across_here) * CHANNELS
        else:
            row, place = beyond(y + down_here, height, MODE), beyond(x + across_here, width, MODE)
            pixel = (row.to(tl.int64) * width + place) * CHANNELS
        there = some[None, :]
        if MODE == "zeros":
            there = there & (row >= 0) & (row < height) & (place >= 0) & (place < width)
        if MODE == "zeros" or not WHOLE:
            values = tl.load(image + (pixel + channel[None, :]), mask=there, other=0.0, cache_modifier=".ca")
        else:
            values = tl.load(image + (pixel + channel[None, :]), cache_modifier=".ca")
        channel = channel[:, None].to(tl.int64)
        if TURNED:
            at = (channel * TAPS + (TAPS - 1 - tap)) * COLUMNS + column
        else:
            at = (column.to(tl.int64) * TAPS + tap) * CHANNELS + channel
        factors = tl.load(weight + at, mask=exists & some[:, None], other=0.0)
        if WIDEN:  # The interpreter would multiply the bits of bfloat16.
            values, factors = values.to(tl.float32), factors.to(tl.float32)
        sums = tl.dot(values, factors, sums, input_precision=PRECISION)
    return sums


@triton.jit(do_not_specialize=SIZES)
def convolution_kernel(
    image, weight, bias, residual, out, height, width, out_height, out_width, top, left, down, across,
    MODE: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    RELU: tl.constexpr, TURNED: tl.constexpr, FOLDED: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_down, tiles_across = tl.cdiv(out_height, TILE_H), tl.cdiv(out_width, TILE_W)
    tile = tl.program_id(0)
    sample = (tile // (tiles_down * tiles_across)).to(tl.int64)
    first_y, first_x = tile // tiles_across % tiles_down * TILE_H, tile % tiles_across * TILE_W
    pixel = tl.arange(0, TILE_H * TILE_W)
    y, x = first_y + pixel // TILE_W, first_x + pixel % TILE_W
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    image += sample * height * width * CHANNELS

    from_y, from_x = first_y - top, first_x - left
    to_y, to_x = from_y + TILE_H + (KERNEL_H - 1) * down, from_x + TILE_W + (KERNEL_W - 1) * across
    inside = (from_y >= 0) & (from_x >= 0) & (to_y <= height) & (to_x <= width)
    sums = tl.zeros([TILE_H * TILE_W, BLOCK_N], tl.float32)
    # One of the two has no steps. In two branches, each would get shared memory of its own.
    sums = sum_of_taps(
        sums, inside, image, weight, y - top, x - left, column, height, width, down, across, "inside", CHANNELS,
        COLUMNS, KERNEL_H, KERNEL_W, TURNED, FOLDED, PRECISION, WIDEN, BLOCK_K,
    )  # fmt: skip
    sums = sum_of_taps(
        sums, inside == 0, image, weight, y - top, x - left, column, height, width, down, across, MODE, CHANNELS,
        COLUMNS, KERNEL_H, KERNEL_W, TURNED, FOLDED, PRECISION, WIDEN, BLOCK_K,
    )  # fmt: skip

    exists = column < COLUMNS
    kept = ((y < out_height) & (x < out_width))[:, None] & exists[None, :]
    at = ((sample * out_height + y) * out_width + x)[:, None] * COLUMNS + column[None, :]
    if bias is not None:
        sums += tl.load(bias + column, mask=exists, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        sums += tl.load(residual + at, mask=kept, other=0.0).to(tl.float32)
    if RELU:
        sums = tl.where(sums <= 0, 0.0, sums)  # a NaN passes
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=kept)


@triton.jit
def copy_of(place, k, size, before, after, MODE: tl.constexpr):
    """The k-th pixel along an axis of the padded image that is read from a place of the image, and whether there is
    one. The place itself is the first, behind `before` others."""
    if MODE == "reflect":
        found = tl.where(k == 1, before - place, before + 2 * (size - 1) - place)
        there = tl.where(k == 1, (place >= 1) & (place <= before), (place >= size - 1 - after) & (place < size - 1))
    else:
        found = tl.where(k <= before, k - 1, size - 1 + k)
        there = tl.where(k <= before, place == 0, place == size - 1)
    return tl.where(k == 0, before + place, found), (k == 0) | there


@triton.jit(do_not_specialize=["height", "width", "top", "bottom", "left", "right", "copies_down", "copies_across"])
def fold_kernel(
    padded, out, height, width, top, bottom, left, right, copies_down, copies_across,
    MODE: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the pixels of the padded image that are copies of a pixel, for a part of a row."""
    line = tl.program_id(0)
    sample, y = (line // height).to(tl.int64), line % height
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, BLOCK)[None, :]
    valid = (x < width)[:, None] & (channel < CHANNELS)
    padded_width = left + width + right
    padded += sample * (top + height + bottom) * padded_width * CHANNELS
    sums = tl.zeros([PIXELS, BLOCK], tl.float32)
    for i in range(copies_down):
        row, there = copy_of(y, i, height, top, bottom, MODE)
        if there:
            for j in range(copies_across):
                place, here = copy_of(x, j, width, left, right, MODE)
                at = (row.to(tl.int64) * padded_width + place) * CHANNELS
                sums += tl.load(padded + at[:, None] + channel, mask=valid & here[:, None], other=0.0).to(tl.float32)
    at = (line.to(tl.int64) * width + x) * CHANNELS
    tl.store(out + at[:, None] + channel, sums.to(out.dtype.element_ty), mask=valid)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, out: Tensor
) -> None:
    """Writes the convolution. All images are channels-last, and so is the weight, which has the dtype of x."""
    top, _, left, _ = g.padding
    _convolve(x, weight, out, (top, left), g.dilation, g.padding_mode, bias, residual, relu)


def backward(grad: Tensor, weight: Tensor, g: Geometry, out: Tensor) -> None:
    """Writes the gradient of the image, from that before the activation; all are channels-last."""
    top, bottom, left, right = g.padding
    reach = [(size - 1) * apart for size, apart in zip(weight.shape[2:], g.dilation, strict=True)]
    if not any(g.padding) or g.padding_mode == "zeros":
        _convolve(grad, weight, out, (reach[0] - top, reach[1] - left), g.dilation, turned=True)
        return
    batch, channels, height, width = out.shape
    size = batch, channels, top + height + bottom, left + width + right
    padded = torch.empty(size, dtype=out.dtype, device=out.device, memory_format=torch.channels_last)
    _convolve(grad, weight, padded, (reach[0], reach[1]), g.dilation, turned=True)
    block = triton.next_power_of_2(channels)
    pixels = max(1, ELEMENTS // block)
    reflects = g.padding_mode == "reflect"
    with torch.cuda.device_of(out):
        fold_kernel[(batch * height, triton.cdiv(width, pixels))](
            padded=padded, out=out, height=height, width=width, top=top, bottom=bottom, left=left, right=right,
            copies_down=3 if reflects else 1 + top + bottom, copies_across=3 if reflects else 1 + left + right,
            MODE=g.padding_mode, CHANNELS=channels, PIXELS=pixels, BLOCK=block, num_warps=4,
            enable_fp_fusion=False,
        )  # fmt: skip


def _convolve(
    image: Tensor, weight: Tensor, out: Tensor, padding: tuple[int, int], dilation: tuple[int, int],
    mode: str = "zeros", bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False,
    turned: bool = False,
) -> None:  # fmt: skip
    """Runs the kernel; with `turned` on the weight turned by 180 degrees, and from its columns to its channels."""
    _, channels, height, width = image.shape
    batch, columns, out_height, out_width = out.shape
    single = image.dtype == torch.float32
    tf32 = single and rounds_to_tf32()
    block_n = min(WIDEST if tf32 or not single else STEP, max(LEAST, triton.next_power_of_2(columns)))
    tiles = batch * triton.cdiv(out_height, TILE[0]) * triton.cdiv(out_width, TILE[1])
    with torch.cuda.device_of(out):
        convolution_kernel[(tiles, triton.cdiv(columns, block_n))](
            image=image, weight=weight, bias=bias, residual=residual, out=out, height=height, width=width,
            out_height=out_height, out_width=out_width, top=padding[0], left=padding[1], down=dilation[0],
            across=dilation[1], MODE=mode, CHANNELS=channels, COLUMNS=columns, KERNEL_H=weight.shape[2],
            KERNEL_W=weight.shape[3], RELU=relu, TURNED=turned, FOLDED=channels < LEAST,
            PRECISION="tf32" if tf32 else "ieee", WIDEN=INTERPRETED and not single, TILE_H=TILE[0], TILE_W=TILE[1],
            BLOCK_N=block_n, BLOCK_K=_block_k(channels), num_warps=8 if single or block_n > STEP else 4,
            num_stages=STAGES, enable_fp_fusion=True,
        )  # fmt: skip


def rounds_to_tf32() -> bool:
    """Whether products of float32 may be rounded to TF32: if the user has asked for it, and not against it."""
    return torch.get_float32_matmul_precision() != "highest" and torch.backends.cudnn.allow_tf32


def _block_k(channels: int) -> int:
    """The channels of a step: as many as leave the fewest of its places empty."""
    return STEP if channels < LEAST or -channels % STEP < LEAST else LEAST
