"""Parallel spiking neurons as Triton kernels: a program sums a group of steps of a block of neurons."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels._common.layout import group_of
from deal_kernels._common.triton_block import block_of, lanes_of_group
from deal_kernels._common.triton_surrogate import number, surrogate_slope
from deal_kernels.psn.reference import Inputs
from deal_kernels.surrogate import Surrogate

MOST_ROWS = 16  # steps of a group
BLOCK = 256
SIZES = ("steps", "neurons", "group", "stride", "skipped", "band")


@triton.jit
def rows_of_group(first, steps, skipped, band, BANDED: tl.constexpr, TRANSPOSED: tl.constexpr, ROWS: tl.constexpr):
    """The first of the rows that the steps of a group have weights for, and the one after the last."""
    if BANDED:
        end = tl.minimum(first + ROWS, steps)
        if TRANSPOSED:
            return tl.maximum(first, skipped), tl.minimum(end - 1 + band, steps)
        else:
            return tl.maximum(first - band + 1, 0), end
    else:
        return first * 0, steps


@triton.jit(do_not_specialize=SIZES)
def mix_kernel(
    source, weight, bias, grad, out, alpha, height, outside, steps, neurons, group, stride, skipped, band,
    UNIT: tl.constexpr, GROUPED: tl.constexpr, SLIDING: tl.constexpr, BANDED: tl.constexpr, TRANSPOSED: tl.constexpr,
    RESULT: tl.constexpr, SURROGATE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the inputs, or with TRANSPOSED of the gradients of h, and what RESULT makes of them."""
    neurons, group, stride = neurons.to(tl.int64) * UNIT, group.to(tl.int64) * UNIT, stride.to(tl.int64) * UNIT
    _, place, lane, left = lanes_of_group(neurons, group, steps, UNIT, GROUPED, BLOCK)
    inside = lane < left
    first = tl.program_id(1) * ROWS
    source += place
    if TRANSPOSED:
        source -= skipped * stride
    else:
        first += skipped
    rows = first + tl.arange(0, ROWS)
    exists = rows < steps
    begin, end = rows_of_group(first, steps, skipped, band, BANDED, TRANSPOSED, ROWS)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for s in range(begin, end):
        x = tl.load(source + s * stride + lane, mask=inside).to(tl.float32)
        distance = s - rows if TRANSPOSED else rows - s
        sees = exists
        if BANDED:
            sees = exists & (distance >= 0) & (distance < band)
        if SLIDING:
            index = (band - 1 - distance).to(tl.int64)
        elif TRANSPOSED:
            index = tl.cast(s, tl.int64) * steps + rows
        else:
            index = rows.to(tl.int64) * steps + s
        some = tl.fma(tl.load(weight + index, mask=sees, other=0.0)[:, None], x[None, :], sums)
        # Not even a NaN gets to a step without a weight for it.
        sums = tl.where(sees[:, None], some, sums) if BANDED else some
    if not TRANSPOSED:
        sums += tl.load(bias) if SLIDING else tl.load(bias + rows, mask=exists, other=0.0)[:, None]
        rows -= skipped
    at = rows.to(tl.int64)[:, None] * group + (place + lane)[None, :]
    kept = exists[:, None] & inside[None, :]
    if RESULT == "spikes":
        sums = tl.where(sums >= 0.0, 1.0, 0.0)
    elif RESULT == "gradient":
        slope = surrogate_slope(sums, number(alpha), number(height), number(outside), SURROGATE)
        sums = tl.load(grad + at, mask=kept).to(tl.float32) * slope
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=kept)


def forward(i: Inputs, membranes: bool, out: Tensor) -> None:
    """Writes the spikes, or h."""
    _launch(i, i.x, i.outputs, out, RESULT="sums" if membranes else "spikes")


def backward(i: Inputs, grad: Tensor, surrogate: Surrogate, grad_h: Tensor, grad_x: Tensor | None) -> None:
    """Writes the gradients of h and, if wanted, of x."""
    numbers = dict(zip(("alpha", "height", "outside"), surrogate.numbers, strict=True))
    _launch(i, i.x, i.outputs, grad_h, grad, RESULT="gradient", SURROGATE=surrogate.kind, **numbers)
    if grad_x is not None:
        _launch(i, grad_h, i.x.shape[0], grad_x, RESULT="sums", TRANSPOSED=True)


def _launch(i: Inputs, source: Tensor, steps: int, out: Tensor, grad: Tensor | None = None, **arguments: Any) -> None:
    """Runs the kernel for so many steps of the result."""
    neurons, group, stride = i.x[0].numel(), group_of(i.x), source.stride(0)
    block = block_of(group, neurons, BLOCK)
    # Sizes count units: that neurons come in eights is all the compiler needs for 16-byte accesses.
    unit = 8 if group % 8 == 0 and stride % 8 == 0 else 1
    rows = min(MOST_ROWS, triton.next_power_of_2(steps))
    defaults = {
        "alpha": 0.0, "height": 0.0, "outside": 0.0, "TRANSPOSED": False, "SURROGATE": None, "SLIDING": i.sliding,
        "BANDED": i.band is not None,
    }  # fmt: skip
    with torch.cuda.device_of(source):
        mix_kernel[(neurons // group * triton.cdiv(group, block), triton.cdiv(steps, rows))](
            source=source, weight=i.weight, bias=i.bias, grad=grad, out=out, steps=i.x.shape[0],
            neurons=neurons // unit, group=group // unit, stride=stride // unit, skipped=i.skipped, band=i.band or 0,
            UNIT=unit, GROUPED=group < neurons, ROWS=rows, BLOCK=block, num_warps=4, enable_fp_fusion=False,
            **(defaults | arguments),
        )  # fmt: skip
