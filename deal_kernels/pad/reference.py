"""Padding and its adjoint in plain torch: the specification of the kernels, and what runs where there are none.

Images are [B, C, H, W]. The gradient of a pixel is the sum over all positions that read it, row by row, which is the
order of torch on a CPU. Half types are summed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from deal_kernels._common.types import STATE, no_autocast

MODES = ("reflect", "replicate", "zeros")


class Border(NamedTuple):
    """What is added around an image."""

    padding: tuple[int, int, int, int]  # pixels to the left, to the right, above and below
    mode: str
    backend: str | None = None

    def around(self, shape: Sequence[int], sign: int = 1) -> tuple[int, int, int, int]:
        """The shape of the padded images, or with the sign -1 that of the images from that of the padded ones."""
        left, right, above, below = self.padding
        batch, channels, height, width = shape
        return batch, channels, height + sign * (above + below), width + sign * (left + right)


def pad2d(x: Tensor, b: Border) -> Tensor:
    with no_autocast(x.device.type):
        return functional.pad(x, b.padding, "constant" if b.mode == "zeros" else b.mode)


def unpad2d(grad: Tensor, b: Border) -> Tensor:
    """The gradient of x from that of `pad2d(x, b)`."""
    left, right, above, below = b.padding
    *_, height, width = shape = b.around(grad.shape, -1)
    total = grad.new_zeros(shape, dtype=STATE[grad.dtype])
    for rows, from_rows in readers(height, above, below, b.mode):
        for columns, from_columns in readers(width, left, right, b.mode):
            pixels = _at(_at(total, rows, -2), columns, -1)
            pixels += _at(_at(grad, from_rows, -2), from_columns, -1)
    return total.to(grad.dtype)


def readers(count: int, before: int, after: int, mode: str) -> Iterator[tuple[range, range]]:
    """Pixels of an axis, and the positions of the padded axis that read them, in the order in which they are summed."""
    last, end, length = count - 1, before + count, before + count + after
    every = range(count), range(before, end)
    if mode == "zeros":
        yield every
    elif mode == "replicate":
        yield from ((range(1), range(position, position + 1)) for position in range(before))
        yield every
        yield from ((range(last, count), range(position, position + 1)) for position in range(end, length))
    else:
        yield range(1, before + 1), range(before - 1, -1, -1)
        yield every
        yield range(last - after, last), range(length - 1, end - 1, -1)


def _at(x: Tensor, indices: range, axis: int) -> Tensor:
    """x at neighbouring indices, in ascending or in descending order."""
    part = x.narrow(axis, min(indices, default=0), len(indices))
    return part.flip(axis) if indices.step < 0 else part
