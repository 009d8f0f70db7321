"""SSIM as Triton kernels.

The window is separable: one kernel filters along rows, the next one down columns and computes the map. The same two
steps lead from the derivatives of the map to the gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels.ssim.reference import REACH, Settings, taps

BLOCK = 512  # pixels of a program, in memory order
WARPS = 4


@triton.jit
def pixels(BLOCK: tl.constexpr):
    return tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def filtered(image, n, place, size, stride, valid, window, REACH: tl.constexpr):
    """Along the axis on which pixel n has a place, and where neighbours are a stride apart; zeros are beyond it."""
    result = tl.zeros_like(n).to(tl.float32)
    for k in tl.static_range(-REACH, REACH + 1):
        there = valid & (place + k >= 0) & (place + k < size)
        result += tl.load(window + (k + REACH)) * tl.load(image + n + k * stride, mask=there, other=0.0).to(tl.float32)
    return result


@triton.jit(do_not_specialize=["total", "width"])
def moments_kernel(a, b, window, rows, total, width, REACH: tl.constexpr, BLOCK: tl.constexpr):
    """Of a, b, a^2 + b^2 and ab, along rows."""
    n, total = pixels(BLOCK), tl.cast(total, tl.int64)
    x, valid = n % width, n < total
    mean_a = tl.zeros_like(n).to(tl.float32)
    mean_b, squares, product = mean_a, mean_a, mean_a
    for k in tl.static_range(-REACH, REACH + 1):
        there = valid & (x + k >= 0) & (x + k < width)
        weight = tl.load(window + (k + REACH))
        one = tl.load(a + n + k, mask=there, other=0.0).to(tl.float32)
        other = tl.load(b + n + k, mask=there, other=0.0).to(tl.float32)
        mean_a += weight * one
        mean_b += weight * other
        squares += weight * (one * one + other * other)
        product += weight * (one * other)
    tl.store(rows + n, mean_a, mask=valid)
    tl.store(rows + total + n, mean_b, mask=valid)
    tl.store(rows + 2 * total + n, squares, mask=valid)
    tl.store(rows + 3 * total + n, product, mask=valid)


@triton.jit(do_not_specialize=["total", "height", "width", "margin"])
def map_kernel(
    a, b, window, rows, map, parts, grad, slopes, total, height, width, margin, c1, c2, structure,
    GRADIENT: tl.constexpr, OF_MAP: tl.constexpr, REACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, total = pixels(BLOCK), tl.cast(total, tl.int64)
    row, x, valid = n // width, n % width, n < total
    plane, y = row // height, row % height
    in_map = valid & (y >= margin) & (y < height - margin) & (x >= margin) & (x < width - margin)
    map_at = (plane * (height - 2 * margin) + y - margin) * (width - 2 * margin) + x - margin

    mean_a = filtered(rows, n, y, height, width, valid, window, REACH)
    mean_b = filtered(rows + total, n, y, height, width, valid, window, REACH)
    squares = filtered(rows + 2 * total, n, y, height, width, valid, window, REACH)
    product = filtered(rows + 3 * total, n, y, height, width, valid, window, REACH)
    aabb, ab = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
    over1, over2 = 2 * ab + c1, 2 * (product - ab) + c2
    under1, under2 = aabb + c1, squares - aabb + c2
    under = under1 * under2
    value = tl.div_rn(over1 * over2, under)
    if map is not None:
        tl.store(map + map_at, value.to(map.dtype.element_ty), mask=in_map)
    if parts is not None:
        one = tl.load(a + n, mask=valid, other=0.0).to(tl.float32)
        other = tl.load(b + n, mask=valid, other=0.0).to(tl.float32)
        tl.store(parts + 2 * tl.program_id(0), tl.sum(tl.where(in_map, value, 0.0), axis=0))
        tl.store(parts + 2 * tl.program_id(0) + 1, tl.sum(tl.abs(one - other), axis=0))

    if GRADIENT:
        weight = tl.zeros_like(value) + structure
        if OF_MAP:
            weight = tl.load(grad + map_at, mask=in_map, other=0.0).to(tl.float32)
        elif grad is not None:
            weight = weight * tl.load(grad)
        share = tl.where(in_map, tl.div_rn(2 * weight, under), 0.0)
        less = tl.where(in_map, value, 0.0) * share
        turn, same = (over2 - over1) * share, (under1 - under2) * less
        tl.store(slopes + n, mean_b * turn + mean_a * same, mask=valid)
        tl.store(slopes + total + n, mean_a * turn + mean_b * same, mask=valid)
        tl.store(slopes + 2 * total + n, -(under1 * less), mask=valid)
        tl.store(slopes + 3 * total + n, over1 * share, mask=valid)


@triton.jit(do_not_specialize=["total", "width"])
def slopes_kernel(slopes, window, rows, total, width, REACH: tl.constexpr, BLOCK: tl.constexpr):
    """The slopes along rows."""
    n = pixels(BLOCK)
    valid = n < total
    tl.store(rows + n, filtered(slopes, n, n % width, width, 1, valid, window, REACH), mask=valid)


@triton.jit(do_not_specialize=["total", "height", "width"])
def gradient_kernel(
    a, b, window, rows, grad, grad_a, grad_b, total, height, width, pixel,
    OF_MAP: tl.constexpr, REACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, total = pixels(BLOCK), tl.cast(total, tl.int64)
    y, valid = n // width % height, n < total
    one = tl.load(a + n, mask=valid, other=0.0).to(tl.float32)
    other = tl.load(b + n, mask=valid, other=0.0).to(tl.float32)
    squares = filtered(rows + 2 * total, n, y, height, width, valid, window, REACH)
    product = filtered(rows + 3 * total, n, y, height, width, valid, window, REACH)
    factor = pixel
    if grad is not None and not OF_MAP:
        factor = pixel * tl.load(grad)
    apart = (tl.where(one > other, 1.0, 0.0) - tl.where(one < other, 1.0, 0.0)) * factor
    if grad_a is not None:
        found = filtered(rows, n, y, height, width, valid, window, REACH) + one * squares + other * product + apart
        tl.store(grad_a + n, found.to(grad_a.dtype.element_ty), mask=valid)
    if grad_b is not None:
        found = filtered(rows + total, n, y, height, width, valid, window, REACH)
        found = found + other * squares + one * product - apart
        tl.store(grad_b + n, found.to(grad_b.dtype.element_ty), mask=valid)


@functools.cache
def _window(device: torch.device) -> Tensor:
    """The taps. Copied to the device once: no copy from the host could be captured in a CUDA graph."""
    return torch.tensor(taps(), dtype=torch.float32, device=device)


def run(
    a: Tensor, b: Tensor, s: Settings, structure: float, pixel: float, similarity: Tensor | None, loss: Tensor | None,
    grad: Tensor | None, grads: Sequence[Tensor | None],
) -> None:  # fmt: skip
    """Computes what there is a tensor for, with the factors of `op._run`."""
    *_, height, width = a.shape
    total = a.numel()
    gradient, of_map = any(each is not None for each in grads), grad is not None and grad.dim() > 0
    programs = triton.cdiv(total, BLOCK)
    rows = a.new_empty(4 * total, dtype=torch.float32)
    slopes = torch.empty_like(rows) if gradient else None
    parts = None if loss is None else a.new_empty(programs, 2, dtype=torch.float32)
    c1, c2 = s.constants
    options = {"window": _window(a.device), "rows": rows, "width": width, "REACH": REACH, "BLOCK": BLOCK}
    options |= {"num_warps": WARPS, "enable_fp_fusion": False}
    with torch.cuda.device_of(a):
        moments_kernel[(programs,)](a=a, b=b, total=total, **options)
        map_kernel[(programs,)](
            a=a, b=b, map=similarity, parts=parts, grad=grad, slopes=slopes, total=total, height=height,
            margin=s.margin, c1=c1, c2=c2, structure=structure, GRADIENT=gradient, OF_MAP=of_map, **options,
        )  # fmt: skip
        if gradient:
            slopes_kernel[(triton.cdiv(4 * total, BLOCK),)](slopes=slopes, total=4 * total, **options)
            gradient_kernel[(programs,)](
                a=a, b=b, grad=grad, grad_a=grads[0], grad_b=grads[1], total=total, height=height, pixel=pixel,
                OF_MAP=of_map, **options,
            )  # fmt: skip
    if loss is not None and parts is not None:
        similarities, distances = parts.double().sum(0)
        loss.copy_(s.offset + structure * similarities + pixel * distances)
