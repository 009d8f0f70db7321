"""The images that glow, shading and partial_stripe add to every channel, from their values.

They are computed in float64 and rounded once, so that they have the same bits for every backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.forked import one_thread_if_forked

TERMS = 4  # cosines of shading along each axis


def pattern(kind: str, values: Tensor, height: int, width: int) -> Tensor:
    """[B, S, H, W] in the dtype of the values [B, S, ...]."""
    one_thread_if_forked()
    centres = (torch.arange(size, dtype=torch.float64, device=values.device) + 0.5 for size in (height, width))
    return PATTERNS[kind](values, *centres).to(values.dtype)


def glow(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """a n + b (1 - n) with n = cos(p pi / 2)^4, where p is the distance to a point over its largest value."""
    row, column, near, far = values.double()[..., None, None].unbind(-3)  # each [B, S, 1, 1]
    down, across = (rows[:, None] - row * len(rows)).square(), (columns - column * len(columns)).square()
    largest = (down.amax(-2, keepdim=True) + across.amax(-1, keepdim=True)).clamp(min=torch.finfo(torch.float64).tiny)
    scale = (torch.pi / 2) ** 2 / largest
    share = (down * scale + across * scale).sqrt_().cos_().square_().square_()
    return share.mul_(near - far).add_(far)


def shading(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The sum over u and v of values[u, v] cos(pi u row / H) cos(pi v column / W), at the centres of pixels."""
    down, across = ([torch.cos(torch.pi * k / len(at) * at) for k in range(TERMS)] for at in (rows, columns))
    return torch.stack(down, -1) @ (values.double() @ torch.stack(across))


def partial_stripe(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The offset of each column, in the rows whose centre is between two fractions of the height."""
    offset, first, end = values[..., None, :].unbind(-3)  # each [B, S, 1, W]
    at = (rows / len(rows))[:, None]
    return torch.where((at >= first) & (at < end), offset, 0)


PATTERNS = {"glow": glow, "shading": shading, "partial_stripe": partial_stripe}
