"""Padding and its adjoint as Triton kernels. The index formulas are those of csrc/math/padding.h.

A program computes a block of words of one row of the result. A word is a few channels of a channels-last pixel, or one
pixel of a channel. A row has fewer than 2^31 words.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.layout import is_channels_last
from deal_kernels.pad.reference import Border

MOST = 1024  # elements of a program


@triton.jit
def pixel_at(at, count, MODE: tl.constexpr):
    """The pixel that is read at an index in [0, count) or outside; -1 stands for a zero."""
    if MODE == "reflect":
        near = tl.where(at < 0, -at, at)
        return tl.where(near < count, near, 2 * (count - 1) - near)
    elif MODE == "replicate":
        return tl.where(at < 0, 0, tl.where(at < count, at, count - 1))
    else:
        return tl.where((at >= 0) & (at < count), at, -1)


@triton.jit
def readers_of(at, count, before, after, MODE: tl.constexpr):
    """The first and the last k of the positions that read a pixel."""
    if MODE == "reflect":
        begin = tl.where((at > 0) & (at <= before), -1, 0)
        return begin, tl.where((at < count - 1) & (at >= count - 1 - after), 1, 0)
    elif MODE == "replicate":
        return tl.where(at == 0, -before, 0), tl.where(at == count - 1, after, 0)
    else:
        return at * 0, at * 0


@triton.jit
def position_of(k, at, count, before, MODE: tl.constexpr):
    """The position k of those that read a pixel."""
    if MODE == "reflect":
        return at + before + tl.where(k < 0, k * 2 * at, k * 2 * (count - 1 - at))
    else:
        return at + before + k


@triton.jit
def words_of_row(blocks, inner, BLOCK: tl.constexpr):
    """The program's row, the words of it, and their columns and channels."""
    row = tl.program_id(0) // blocks
    word = (tl.program_id(0) - row * blocks) * BLOCK + tl.arange(0, BLOCK)
    column = word // inner
    return row, word, column, word - column * inner


@triton.jit(do_not_specialize=["blocks", "height", "width", "above", "below", "left", "right"])
def pad_kernel(
    x, out, blocks, height, width, inner, above, below, left, right,
    MODE: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, word, column, channel = words_of_row(blocks, inner, BLOCK)
    across, plane = (width + left + right) * inner, row // (height + above + below)
    from_y = pixel_at(row - plane * (height + above + below) - above, height, MODE)
    from_x = pixel_at(column - left, width, MODE)
    first = (plane.to(tl.int64) * height + from_y) * width * inner * UNIT
    there, unit = (word < tl.where(from_y >= 0, across, 0)) & (from_x >= 0), tl.arange(0, UNIT)[None, :]
    from_word = (from_x * inner + channel) * UNIT
    values = tl.load(x + first + from_word[:, None] + unit, mask=there[:, None], other=0.0)
    to = out + row.to(tl.int64) * across * UNIT
    tl.store(to + (word * UNIT)[:, None] + unit, values, mask=(word < across)[:, None])


@triton.jit(do_not_specialize=["blocks", "height", "width", "above", "below", "left", "right"])
def unpad_kernel(
    grad, grad_x, blocks, height, width, inner, above, below, left, right,
    MODE: tl.constexpr, UNIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, word, x, channel = words_of_row(blocks, inner, BLOCK)
    across, plane = (width + left + right) * inner, row // height
    y = row - plane * height
    begin_y, end_y = readers_of(y, height, above, below, MODE)
    begin_x, end_x = readers_of(x, width, left, right, MODE)
    first, last = tl.min(begin_x, axis=0), tl.max(end_x, axis=0)  # of the block
    inside, unit = word < width * inner, tl.arange(0, UNIT)[None, :]
    total = tl.zeros((BLOCK, UNIT), tl.float32)
    for k in range(begin_y, end_y + 1):
        position = plane.to(tl.int64) * (height + above + below) + position_of(k, y, height, above, MODE)
        for j in range(first, last + 1):
            there = inside & (j >= begin_x) & (j <= end_x)
            from_word = (position_of(j, x, width, left, MODE) * inner + channel) * UNIT
            words = grad + position * across * UNIT + from_word[:, None] + unit
            total += tl.load(words, mask=there[:, None], other=0.0).to(tl.float32)
    to = grad_x + row.to(tl.int64) * width * inner * UNIT
    tl.store(to + (word * UNIT)[:, None] + unit, total.to(grad_x.dtype.element_ty), mask=inside[:, None])


def pad(x: Tensor, out: Tensor, b: Border) -> None:
    _run(pad_kernel, x, out, b, {"x": x, "out": out})


def unpad(grad: Tensor, grad_x: Tensor, b: Border) -> None:
    _run(unpad_kernel, grad_x, grad_x, b, {"grad": grad, "grad_x": grad_x})


def _run(kernel, image: Tensor, result: Tensor, b: Border, tensors: dict[str, Tensor]) -> None:  # type: ignore[no-untyped-def]
    """Runs a kernel, of which `image` is the tensor without padding."""
    channels, height, width = image.shape[1:]
    channels = channels if is_channels_last(image) else 1
    unit = next(unit for unit in (8, 4, 1) if channels % unit == 0)
    inner, rows = channels // unit, result.numel() // (result.shape[3] * channels)
    block = min(MOST // unit, triton.next_power_of_2(result.shape[3] * inner))
    blocks = triton.cdiv(result.shape[3] * inner, block)
    left, right, above, below = b.padding
    with torch.cuda.device_of(image):
        kernel[(rows * blocks,)](
            **tensors, blocks=blocks, height=height, width=width, inner=inner, above=above, below=below, left=left,
            right=right, MODE=b.mode, UNIT=unit, BLOCK=block, num_warps=max(1, min(4, block * unit // 256)),
            enable_fp_fusion=False,
        )  # fmt: skip
