"""Memory layout. Kernels take any dense layout of a step, the neurons of which lie side by side or in groups.

In x [T, ...] that is [B, T, ...] in memory, the neurons of a sample are a group, which is followed by itself at the
next step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common import page_cache

LEAST_GROUP = 32  # neurons; x in smaller groups is read faster from a copy


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements fill one block of memory without gaps, in any order of the axes."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(x: Tensor, time: bool) -> Tensor:
    """x if it is dense (with `time`: if every x[t] is dense), else a contiguous copy."""
    if x.is_contiguous():
        return x
    skip = int(time)
    return x if is_dense(x.shape[skip:], x.stride()[skip:]) else x.contiguous()


def dense_or_grouped(x: Tensor, multiple: int = 1) -> Tensor:
    """x [T, ...] if every x[t] is dense or in groups of a multiple of so many neurons, else a contiguous copy."""
    if x.is_contiguous() or is_dense(x.shape[1:], x.stride()[1:]):
        return x
    group = x.stride(0)
    grouped = is_dense(x.shape, x.stride()) and group >= LEAST_GROUP and group % multiple == 0
    return x if grouped else x.contiguous()


def group_of(x: Tensor) -> int:
    """How many neurons of x [T, ...], as `dense_or_grouped` returns it, lie side by side."""
    steps, group = x.shape[0], x.stride(0)
    row = x.numel() // steps
    if x.is_contiguous() or group >= row or steps == 1:
        return row
    # Steps that lie closer together than they are long may also be dense, as those of an expanded tensor are.
    axes = zip(x.shape[1:], x.stride()[1:], strict=True)
    return group if any(size > 1 and size * stride > row for size, stride in axes) else row


def strides_like(x: Tensor) -> tuple[int, ...]:
    """Strides of a result for x [T, ...], as `dense_or_grouped` returns it: its layout, without gaps between steps."""
    row = x.numel() // x.shape[0]
    return (row, *x.stride()[1:]) if group_of(x) == row else x.stride()


def dense_step(x: Tensor) -> Tensor:
    """A tensor with the shape and strides of a dense step of x [T, ...]: x[0], or where that has gaps, a meta one."""
    row, group = x[0], group_of(x)
    if group == row.numel():
        return row
    strides = [stride if stride < group else stride // x.shape[0] for stride in row.stride()]
    return torch.empty_strided(row.shape, strides, dtype=x.dtype, device="meta")


def same_layout(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two strides describe the same layout. The stride of an axis of size 1 does not count."""
    return all(size == 1 or one == other for size, one, other in zip(shape, a, b, strict=True))


def arranged(x: Tensor, strides: Sequence[int]) -> Tensor:
    """x with these strides, those of a dense tensor of its shape: x itself, or a copy."""
    if same_layout(x.shape, x.stride(), strides):
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def inner_of(row: Tensor) -> int:
    """Neurons of a dense row [B, C, ...] that lie side by side in one channel."""
    return row.stride(1) if row.shape[1] > 1 else row.numel()


class ChannelLayout(NamedTuple):
    """How a dense tensor lies in memory: steps of neurons, neuron n in channel (n / inner) % channels."""

    steps: int
    neurons: int
    time_stride: int  # elements between two steps
    channels: int
    inner: int

    @classmethod
    def of(cls, x: Tensor, axis: int) -> ChannelLayout:
        """The layout of x with its channels on `axis`: [T, B, C, ...] for 2, without time for others."""
        count, channels = x.numel(), x.shape[axis]
        row = count // x.shape[0] if axis == 2 else count
        if axis == 2 and group_of(x) == row:
            return cls(x.shape[0], row, x.stride(0), channels, x.stride(2) if channels > 1 else row)
        return cls(1, count, count, channels, x.stride(axis) if channels > 1 else count)


def empty(shape: Sequence[int], strides: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the device of `like`, on a CPU from the page cache if it is large."""
    if type(like) is Tensor and like.is_cpu:
        size = math.prod(shape) * dtype.itemsize
        if size >= page_cache.LARGE:
            return page_cache.empty(shape, strides, dtype, size)
    return torch.empty_strided(shape, strides, dtype=dtype, device=like.device)


def in_memory_order(x: Tensor, strides: Sequence[int]) -> Tensor:
    """x [T, ...] as [T, N], the neurons in memory order of a dense layout with these strides."""
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    return x.permute(0, *(axis + 1 for axis in order)).flatten(1) if order else x[:, None]


def is_channels_last(x: Tensor) -> bool:
    """Whether x is channels-last. Images of one channel fit both layouts: their strides decide, as in torch."""
    if x.shape[1] == 1:
        return x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1 and x.is_contiguous()
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def image_strides(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Strides of images [B, C, H, W], contiguous or channels-last."""
    _, channels, height, width = shape
    if channels_last:
        return height * width * channels, 1, width * channels, channels
    return channels * height * width, height * width, width, 1
