"""SSIM as a Triton kernel: a program takes a tile of one plane, with what windows reach beyond it.

The filter is a product with a band matrix from either side, so that nothing has to be moved between threads. Such a
product spreads what is not finite over the whole tile: it is taken out before and put back into its windows after.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels.ssim.op import Settings
from deal_kernels.ssim.reference import REACH, taps

TILE = 64  # rows and columns, of which windows take 10, or 20 with a gradient
WARPS = 8


@triton.jit
def filtered(image, band):
    down = tl.dot(band, image, input_precision="ieee")
    return tl.dot(down, tl.trans(band), input_precision="ieee")


@triton.jit
def spoilt(bad, band):
    """Where a window holds a pixel that is not finite."""
    return filtered(bad.to(tl.float32), tl.where(band > 0, 1.0, 0.0)) > 0.5


@triton.jit
def finite(image):
    return tl.abs(image) <= 3.4028234e38


@triton.jit(do_not_specialize=["height", "width", "margin", "across", "tiles"])
def ssim_kernel(
    a, b, window, map, parts, grad, grad_a, grad_b,
    height, width, margin, across, tiles, c1, c2, structure, pixel,
    GRADIENT: tl.constexpr, OF_MAP: tl.constexpr, REACH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    EDGE: tl.constexpr = 2 * REACH if GRADIENT else REACH
    OWN: tl.constexpr = TILE - 2 * EDGE
    plane, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    lane = tl.arange(0, TILE)
    y = (tile // across * OWN - EDGE + lane)[:, None]
    x = (tile % across * OWN - EDGE + lane)[None, :]
    inner = (lane >= EDGE) & (lane < TILE - EDGE)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    own = inside & inner[:, None] & inner[None, :]
    in_map = (y >= margin) & (y < height - margin) & (x >= margin) & (x < width - margin)
    at = plane * height * width + y.to(tl.int64) * width + x
    map_width = width - 2 * margin
    map_at = plane * (height - 2 * margin) * map_width + (y - margin).to(tl.int64) * map_width + (x - margin)

    distance = lane[None, :] - lane[:, None] + REACH
    near = (distance >= 0) & (distance <= 2 * REACH)
    band = tl.load(window + distance, mask=near, other=0.0)  # [TILE, TILE], a row for every window

    one = tl.load(a + at, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(b + at, mask=inside, other=0.0).to(tl.float32)
    squares = one * one + other * other
    good = finite(squares)
    bad = spoilt(good == 0, band)
    mean_a, mean_b = filtered(tl.where(good, one, 0.0), band), filtered(tl.where(good, other, 0.0), band)
    aabb, ab = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
    product = filtered(tl.where(good, one * other, 0.0), band)
    over1, over2 = 2 * ab + c1, 2 * (product - ab) + c2
    under1, under2 = aabb + c1, filtered(tl.where(good, squares, 0.0), band) - aabb + c2
    under = under1 * under2
    value = tl.where(bad, float("nan"), tl.div_rn(over1 * over2, under))
    if map is not None:
        tl.store(map + map_at, value.to(map.dtype.element_ty), mask=own & in_map)
    if parts is not None:
        apart = tl.where(own, tl.abs(one - other), 0.0)
        total = structure * tl.where(own & in_map, value, 0.0) + pixel * apart
        tl.store(parts + tl.program_id(0), tl.sum(tl.sum(total, axis=1), axis=0))

    if GRADIENT:
        factor = 1.0
        weight = tl.zeros([TILE, TILE], tl.float32) + structure
        if OF_MAP:
            weight = tl.load(grad + map_at, mask=in_map & inside, other=0.0).to(tl.float32)
        elif grad is not None:
            factor = tl.load(grad)
            weight = weight * factor
        share = tl.div_rn(2 * weight, under)
        value = tl.div_rn(over1 * over2, under)
        # The tile's edge, where windows are cut off, is not in any window of an own pixel.
        known = in_map & inside & finite(share * value) & (bad == 0)
        bad = spoilt(in_map & inside & (known == 0), band)
        share = tl.where(known, share, 0.0)
        less = tl.where(known, value, 0.0) * share
        with_product = filtered(over1 * share, band)
        with_squares = filtered(-under1 * less, band)
        turn, same = (over2 - over1) * share, (under1 - under2) * less
        sign = tl.where(one > other, 1.0, 0.0) - tl.where(one < other, 1.0, 0.0)
        apart = sign * (pixel * factor)
        if grad_a is not None:
            found = filtered(mean_b * turn + mean_a * same, band) + one * with_squares + other * with_product + apart
            found = tl.where(bad, float("nan"), found)
            tl.store(grad_a + at, found.to(grad_a.dtype.element_ty), mask=own)
        if grad_b is not None:
            found = filtered(mean_a * turn + mean_b * same, band) + other * with_squares + one * with_product - apart
            found = tl.where(bad, float("nan"), found)
            tl.store(grad_b + at, found.to(grad_b.dtype.element_ty), mask=own)


def run(
    a: Tensor, b: Tensor, s: Settings, structure: float, pixel: float, similarity: Tensor | None, loss: Tensor | None,
    grad: Tensor | None, grads: Sequence[Tensor | None],
) -> None:  # fmt: skip
    """Finds what there is a tensor for; `op._run` says what the factors are."""
    *_, height, width = a.shape
    gradient = any(each is not None for each in grads)
    own = TILE - 2 * REACH * (2 if gradient else 1)
    across, down = triton.cdiv(width, own), triton.cdiv(height, own)
    programs = a.numel() // (height * width) * across * down
    parts = None if loss is None else a.new_empty(programs, dtype=torch.float32)
    window = torch.tensor(taps(), dtype=torch.float32, device=a.device)
    c1, c2 = s.constants
    with torch.cuda.device_of(a):
        ssim_kernel[(programs,)](
            a=a, b=b, window=window, map=similarity, parts=parts, grad=grad, grad_a=grads[0], grad_b=grads[1],
            height=height, width=width, margin=s.margin, across=across, tiles=across * down, c1=c1, c2=c2,
            structure=structure, pixel=pixel, GRADIENT=gradient, OF_MAP=grad is not None and grad.dim() > 0,
            REACH=REACH, TILE=TILE, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    if loss is not None and parts is not None:
        loss.copy_(parts.double().sum() + s.offset)
