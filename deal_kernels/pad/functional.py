"""`pad2d`: check, dispatch, return."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from deal_kernels._common.checks import check_tensor, is_integer, one_of
from deal_kernels.pad import op
from deal_kernels.pad.reference import MODES, Border

Mode = Literal["reflect", "replicate", "zeros"]


def pad2d(
    x: Tensor, padding: int | tuple[int, int, int, int], mode: Mode = "reflect", *, backend: str | None = None
) -> Tensor:
    """Pads images. Autocast changes no type: images are copied as they are.

    Args:
        x: [B, C, H, W] or [C, H, W] in float32, float16, bfloat16 or float64. Contiguous and channels-last images are
            read without a copy, others are copied once.
        padding: pixels on every side, or to the left, to the right, above and below, in the order of
            `torch.nn.functional.pad`.
        mode: "reflect", which needs images larger than the padding; "replicate"; or "zeros".
        backend: "cuda", "triton" or "torch" runs that one or raises. None or "auto" takes torch on a CPU, and on a GPU
            the first that it has. float64 always runs in torch.

    Returns:
        [B, C, H + above + below, W + left + right] or without B, in the dtype of x, and channels-last where x is; x
        itself where nothing is added.

    Gradients of half types are summed in float32.

    >>> pad2d(torch.rand(2, 3, 64, 48), (1, 2, 3, 4)).shape
    torch.Size([2, 3, 71, 51])
    """
    _check_images(x)
    around = _four(padding)
    one_of("mode", mode, MODES)
    _check_size(x, around, mode)
    if not any(around):
        return x
    border = Border(around, mode, backend)
    return op.pad2d(x[None], border)[0] if x.dim() == 3 else op.pad2d(x, border)


def _check_images(x: Tensor) -> None:
    check_tensor("x", x)
    if x.dim() not in (3, 4):
        raise ValueError(f"x must be [B, C, H, W] or [C, H, W]; got the shape {tuple(x.shape)}")
    if 0 in x.shape[-2:]:
        raise ValueError(f"x must have pixels; got the shape {tuple(x.shape)}")


def _four(padding: object) -> tuple[int, int, int, int]:
    four = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
    if len(four) != 4 or not all(map(is_integer, four)):
        raise TypeError(f"padding must be an integer, or four: left, right, above and below; got {padding!r}")
    if min(four) < 0:
        raise ValueError(f"padding must be at least 0; got {padding!r}")
    return four


def _check_size(x: Tensor, around: tuple[int, int, int, int], mode: str) -> None:
    height, width = x.shape[-2:]
    across, down = max(around[:2]), max(around[2:])
    if mode == "reflect" and (across >= width or down >= height):
        raise ValueError(
            f"mode='reflect' needs images larger than the padding, {down} x {across}; got {height} x {width}"
        )
