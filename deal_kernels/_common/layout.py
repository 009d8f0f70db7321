"""Memory layout. Kernels take any dense layout whose outermost axis is time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common import page_cache


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
        steps, row = (x.shape[0], x[0]) if axis == 2 else (1, x)
        stride = x.stride(0) if axis == 2 else x.numel()
        return cls(steps, row.numel(), stride, x.shape[axis], inner_of(row))


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
    return x.permute(0, *(axis + 1 for axis in order)).flatten(1)
