"""Batch norm per channel as Triton kernels: a program takes tiles [ROWS, WIDTH] of one group of channels.

A group is a channel, whose rows are its `inner` neurons side by side; or, where the channels themselves lie side by
side (COLUMNS), WIDTH of them. The order of a sum depends on how the tensor lies in memory, and on nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.layout import ChannelLayout
from deal_kernels._common.triton_neuron import normalised

TILE = 2048  # elements
WARPS = 4
CHANNELS = 128  # of a program that computes values per channel
LONGEST = 512  # elements of a tile's row where there are more rows: the last part of a row may be almost empty
PROGRAMS = 2048  # of a reduction, if it is large enough
MOST_TILES = 64  # that one program reduces while slices last: with more it would lose digits
MOST_SLICES = 1024  # of a channel, as many as are merged at once
SIZES = ("rows", "time_stride", "groups", "width", "row_tiles", "parts", "tiles", "share", "slices", "channels")


@triton.jit
def group_of(groups):
    """The program's group, and its number among the programs of that group."""
    return (tl.program_id(0) % groups).to(tl.int64), tl.program_id(0) // groups


@triton.jit
def channels_of(group, groups, width, COLUMNS: tl.constexpr, UNIT: tl.constexpr, WIDTH: tl.constexpr):
    """The channel of a group, or its channels [1, WIDTH]; whether they exist; the number of all channels."""
    if COLUMNS:
        channel = group * WIDTH + tl.arange(0, WIDTH)[None, :]
        channels = width.to(tl.int64) * UNIT
    else:
        channel = group
        channels = groups.to(tl.int64)
    return channel, channel < channels, channels


@triton.jit
def tile_at(
    number, group, rows, time_stride, groups, width, row_tiles, parts,
    COLUMNS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Offsets of a tile in x and in a tensor without gaps between steps, a mask, and its values per channel."""
    time_stride, width = time_stride.to(tl.int64) * UNIT, width.to(tl.int64) * UNIT
    step, first = (number // parts // row_tiles).to(tl.int64), (number // parts % row_tiles).to(tl.int64) * ROWS
    if COLUMNS:
        stride, column, start = width, group * WIDTH, group * WIDTH
    else:
        column = (number % parts).to(tl.int64) * WIDTH
        stride, start = width * groups, group * width + column
    row, lane = tl.arange(0, ROWS)[:, None], tl.max_contiguous(tl.arange(0, WIDTH), UNIT)[None, :]
    rows_left, lanes_left = tl.minimum(rows - first, ROWS).to(tl.int32), tl.minimum(width - column, WIDTH).to(tl.int32)
    inside = (row < rows_left) & (lane < lanes_left)
    place = start + (first + row) * stride + lane
    count = rows_left if COLUMNS else rows_left * lanes_left
    return step * time_stride + place, step * rows * stride + place, inside, count


@triton.jit
def over_tile(a, COLUMNS: tl.constexpr):
    """The sum by channel."""
    return tl.sum(a, axis=0)[None, :] if COLUMNS else tl.sum(tl.sum(a, axis=1), axis=0)


@triton.jit(do_not_specialize=SIZES)
def normalise_kernel(
    x, mean, scale, shift, out, rows, time_stride, groups, width, row_tiles, parts,
    COLUMNS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    group, number = group_of(groups)
    channel, exists, _ = channels_of(group, groups, width, COLUMNS, UNIT, WIDTH)
    at, dense, inside, _ = tile_at(
        number, group, rows, time_stride, groups, width, row_tiles, parts, COLUMNS, UNIT, ROWS, WIDTH
    )
    mean, scale = tl.load(mean + channel, mask=exists), tl.load(scale + channel, mask=exists)
    y = normalised(tl.load(x + at, mask=inside), mean, scale, tl.load(shift + channel, mask=exists))
    tl.store(out + dense, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def gradient_kernel(
    x, grad, mean, direct, by_variance, by_mean, out, rows, time_stride, groups, width, row_tiles, parts,
    COLUMNS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    group, number = group_of(groups)
    channel, exists, _ = channels_of(group, groups, width, COLUMNS, UNIT, WIDTH)
    at, dense, inside, _ = tile_at(
        number, group, rows, time_stride, groups, width, row_tiles, parts, COLUMNS, UNIT, ROWS, WIDTH
    )
    through = tl.load(grad + dense, mask=inside).to(tl.float32) * tl.load(direct + channel, mask=exists)
    centred = tl.load(x + at, mask=inside).to(tl.float32) - tl.load(mean + channel, mask=exists)
    result = through + centred * tl.load(by_variance + channel, mask=exists)
    result += tl.load(by_mean + channel, mask=exists)
    tl.store(out + dense, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(
    x, grad, mean, partial, rows, time_stride, groups, width, row_tiles, parts, tiles, share, slices,
    COLUMNS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    group, slice = group_of(groups)
    channel, exists, channels = channels_of(group, groups, width, COLUMNS, UNIT, WIDTH)
    mean = tl.load(mean + channel, mask=exists)
    total, product = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    for number in range(slice * share, tl.minimum((slice + 1) * share, tiles)):
        at, dense, inside, _ = tile_at(
            number, group, rows, time_stride, groups, width, row_tiles, parts, COLUMNS, UNIT, ROWS, WIDTH
        )
        g = tl.load(grad + dense, mask=inside, other=0.0).to(tl.float32)
        centred = tl.load(x + at, mask=inside).to(tl.float32) - mean
        total += g
        product += tl.where(inside, g * centred, 0.0)
    partial += channel * slices + slice
    tl.store(partial, over_tile(total, COLUMNS), mask=exists)
    tl.store(partial + channels * slices, over_tile(product, COLUMNS), mask=exists)


# Distances are taken from the mean of the slice's first tile. If that holds one value in k it lies within sqrt(k)
# deviations of the slice's own mean, so that the squares about the latter lose a factor of k in precision at most.
@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    x, partial, rows, time_stride, groups, width, row_tiles, parts, tiles, share, slices,
    COLUMNS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    group, slice = group_of(groups)
    channel, exists, channels = channels_of(group, groups, width, COLUMNS, UNIT, WIDTH)
    at, _, inside, count = tile_at(
        slice * share, group, rows, time_stride, groups, width, row_tiles, parts, COLUMNS, UNIT, ROWS, WIDTH
    )
    total = over_tile(tl.load(x + at, mask=inside, other=0.0).to(tl.float32), COLUMNS)
    near = tl.div_rn(total, count.to(tl.float32))
    count, distances, squares = 0, tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    for number in range(slice * share, tl.minimum((slice + 1) * share, tiles)):
        at, _, inside, more = tile_at(
            number, group, rows, time_stride, groups, width, row_tiles, parts, COLUMNS, UNIT, ROWS, WIDTH
        )
        distance = tl.where(inside, tl.load(x + at, mask=inside).to(tl.float32) - near, 0.0)
        count += more
        distances += distance
        squares += distance * distance
    total = over_tile(distances, COLUMNS)
    further = tl.div_rn(total, count.to(tl.float32))
    partial += channel * slices + slice
    tl.store(partial, count.to(tl.float32), mask=exists)
    tl.store(partial + channels * slices, near + further, mask=exists)
    tl.store(partial + 2 * channels * slices, over_tile(squares, COLUMNS) - total * further, mask=exists)


@triton.jit(do_not_specialize=SIZES)
def merge_kernel(partial, mean, variance, channels, slices, SLICES: tl.constexpr):
    """Merges the count, mean and sum of squared deviations of a channel's slices into its mean and variance."""
    channel, slice = tl.program_id(0).to(tl.int64), tl.arange(0, SLICES)
    inside = slice < slices
    partial += channel * slices
    plane = channels.to(tl.int64) * slices
    count = tl.load(partial + slice, mask=inside, other=0.0)
    near = tl.load(partial + plane)
    away = tl.where(inside, tl.load(partial + plane + slice, mask=inside) - near, 0.0)
    total = tl.sum(count)
    further = tl.div_rn(tl.sum(count * away), total)
    away -= further
    squares = tl.sum(tl.load(partial + 2 * plane + slice, mask=inside, other=0.0) + count * away * away)
    tl.store(mean + channel, near + further)
    tl.store(variance + channel, tl.div_rn(squares, total))


@triton.jit
def scale_kernel(variance, weight, out, channels, eps, correction, WIDTH: tl.constexpr):
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    exists = channel < channels
    spread = tl.load(variance + channel, mask=exists, other=1.0)
    inverse = tl.div_rn(1.0, tl.sqrt_rn(spread + eps))
    tl.store(out + channel, tl.load(weight + channel, mask=exists) * inverse, mask=exists)
    tl.store(out + channels + channel, inverse, mask=exists)
    tl.store(out + 2 * channels + channel, spread * correction, mask=exists)


@triton.jit
def factors_kernel(sums, own, weight, inverse, out, channels, share, WIDTH: tl.constexpr):
    channel = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    exists = channel < channels
    inverse = tl.load(inverse + channel, mask=exists)
    direct = tl.load(weight + channel, mask=exists) * inverse
    of_each = direct * share
    by_variance = (tl.load(sums + channels + channel, mask=exists) * of_each) * (inverse * inverse)
    tl.store(out + channel, direct, mask=exists)
    tl.store(out + channels + channel, by_variance, mask=exists)
    tl.store(out + 2 * channels + channel, tl.load(sums + channel, mask=exists) * of_each, mask=exists)
    of_weight = tl.load(own + channels + channel, mask=exists) * inverse
    tl.store(out + 3 * channels + channel, of_weight, mask=exists)


def scale(out: Tensor, **arguments: Any) -> None:
    _each_channel(scale_kernel, out, arguments)


def factors(out: Tensor, **arguments: Any) -> None:
    _each_channel(factors_kernel, out, arguments)


def _each_channel(kernel: Any, out: Tensor, arguments: dict[str, Any]) -> None:
    channels = out.shape[1]
    with torch.cuda.device_of(out):
        kernel[(triton.cdiv(channels, CHANNELS),)](
            out=out, channels=channels, WIDTH=CHANNELS, **arguments, num_warps=1, enable_fp_fusion=False
        )


def moments(x: Tensor, layout: ChannelLayout, mean: Tensor, variance: Tensor) -> None:
    partial = _reduced(moments_kernel, 3, x, layout)
    _, channels, slices = partial.shape
    with torch.cuda.device_of(x):
        merge_kernel[(channels,)](
            partial=partial, mean=mean, variance=variance, channels=channels, slices=slices, SLICES=MOST_SLICES,
            num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip


def normalise(x: Tensor, layout: ChannelLayout, mean: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    _each_tile(normalise_kernel, x, layout, mean=mean, scale=scale, shift=shift, out=out)


def gradient_sums(x: Tensor, layout: ChannelLayout, grad: Tensor, mean: Tensor, sums: Tensor) -> None:
    torch.sum(_reduced(sums_kernel, 2, x, layout, grad=grad, mean=mean), 2, out=sums)


def gradient(
    x: Tensor, layout: ChannelLayout, grad: Tensor, mean: Tensor, direct: Tensor, by_variance: Tensor, by_mean: Tensor,
    out: Tensor,
) -> None:  # fmt: skip
    factors = {"direct": direct, "by_variance": by_variance, "by_mean": by_mean}
    _each_tile(gradient_kernel, x, layout, grad=grad, mean=mean, **factors, out=out)


def _tiling(layout: ChannelLayout) -> tuple[int, dict[str, int]]:
    """The number of tiles in a group, and the kernels' arguments that describe them."""
    steps, neurons, time_stride, channels, inner = layout
    columns = inner == 1
    width, rows = (channels if columns else inner), neurons // (channels * inner)
    if time_stride == neurons or steps == 1:
        steps, rows, time_stride = 1, steps * rows, 0
    longest = min(triton.next_power_of_2(width), LONGEST)
    tile_rows = min(TILE // longest, triton.next_power_of_2(rows))
    tile_width = TILE // tile_rows
    across, row_tiles = triton.cdiv(width, tile_width), triton.cdiv(rows, tile_rows)
    groups, parts = (across, 1) if columns else (channels, across)
    # Sizes count units, so that the compiler knows how far every row is aligned.
    unit = math.gcd(8, width, time_stride)
    return steps * row_tiles * parts, {
        "rows": rows, "time_stride": time_stride // unit, "groups": groups, "width": width // unit,
        "row_tiles": row_tiles, "parts": parts,
        "COLUMNS": columns, "UNIT": unit, "ROWS": tile_rows, "WIDTH": tile_width,
    }  # fmt: skip


def _each_tile(kernel: Any, x: Tensor, layout: ChannelLayout, **arguments: Tensor) -> None:
    tiles, tiling = _tiling(layout)
    _launch(kernel, tiles, x, tiling, arguments)


def _reduced(kernel: Any, rows: int, x: Tensor, layout: ChannelLayout, **arguments: Tensor) -> Tensor:
    """The kernel's partial results for each slice of each channel, [rows, C, slices]."""
    tiles, tiling = _tiling(layout)
    share = max(1, min(tiles * tiling["groups"] // PROGRAMS, MOST_TILES), triton.cdiv(tiles, MOST_SLICES))
    slices = triton.cdiv(tiles, share)
    partial = x.new_empty((rows, layout.channels, slices), dtype=torch.float32)
    tiling |= {"tiles": tiles, "share": share, "slices": slices}
    _launch(kernel, slices, x, tiling, arguments | {"partial": partial})
    return partial


def _launch(kernel: Any, programs: int, x: Tensor, tiling: dict[str, int], arguments: dict[str, Tensor]) -> None:
    """Launches this many programs for each group."""
    with torch.cuda.device_of(x):
        kernel[(programs * tiling["groups"],)](x=x, **arguments, **tiling, num_warps=WARPS, enable_fp_fusion=False)
