"""`consensus`: check, dispatch, return."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion, check_tensor
from deal_kernels.consensus import op


@torch.no_grad()
def consensus(x: Tensor, weights: Tensor, tolerance: Tensor, *, backend: str | None = None) -> Tensor:
    """The value of each column that most rows agree on. It has no gradient.

    Args:
        x: [B, R, W] in float32, float16, bfloat16 or float64. Half types are computed in float32.
        weights: of each row at each column, at least 0, in the shape and dtype of x.
        tolerance: [B], above 0, in the dtype of x: values this far apart agree by half.
        backend: "cpp" or "torch" runs that one or raises. None or "auto" takes cpp on a CPU where it is built, and
            torch elsewhere.

    Returns:
        [B, W] in the dtype of x.

    >>> noisy = torch.rand(2, 50, 30)
    >>> consensus(noisy, torch.ones_like(noisy), torch.tensor([0.1, 0.1])).shape
    torch.Size([2, 30])
    """
    check_tensor("x", x)
    if x.dim() != 3 or 0 in x.shape[1:]:
        raise ValueError(f"x must be [B, R, W] with rows and columns; got the shape {tuple(x.shape)}")
    for name, tensor, shape in (("weights", weights, x.shape), ("tolerance", tolerance, x.shape[:1])):
        check_companion(name, tensor, x)
        if tensor.shape != shape or tensor.dtype != x.dtype:
            raise ValueError(
                f"{name} must have the shape {tuple(shape)} and {x.dtype}; got {tuple(tensor.shape)} and {tensor.dtype}"
            )
    return op.CONSENSUS(x, x, weights, tolerance, backend)
