"""`mixture` and `apply`: check, dispatch, return."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deal_kernels._common.types import STATE
from deal_kernels.degradation import op
from deal_kernels.degradation.arguments import Params, check_image, check_names, prepared_values, prepared_weights
from deal_kernels.degradation.op import Settings


def mixture(
    x: Tensor, weights: Tensor, ops: Sequence[str], params: Params | None = None, *, straight_through: bool = False,
    checkpoint: bool = False, backend: str | None = None,
) -> Tensor:  # fmt: skip
    """Degrades a batch: in stage i, sample b becomes the sum over j of weights[b, i, j] * ops[j](x[b]).

    Nothing is clamped between stages. x and weights get gradients through all of them.

    Args:
        x: [B, C, H, W] with one or three channels: float32, float16, bfloat16 or float64. Half types are computed in
            float32 and rounded after every stage. An x that is not contiguous (channels-last too) is copied once.
        weights: [B, S, N] for S stages and N operations. They need not sum to one. triton leaves an operation without
            weight out; elsewhere 0 times a result that is not finite is NaN.
        ops: names of operations, see `deal_kernels.degradation`.
        params: the values of operations by name, for those that ops has. `sample_params` draws them. They get no
            gradient.

            * gaussian_blur, wide_blur: [B, S], a deviation in pixels, above 0. This is checked on a CPU.
            * stripe, gain: [B, S, W]. row_stripe, row_gain: [B, S, H].
            * noise, dead: [B, S, C, H, W]; dead has the value that replaces a pixel, and NaN where the pixel is kept.
            * tone: [B, S, 2], the factor and the value that is added.
            * glow: [B, S, 4], the row and the column of the point, as fractions of the height and of the width, a, b.
            * shading: [B, S, 4, 4]. At [u, v] is the factor of cos(pi u (i + 1/2) / H) cos(pi v (k + 1/2) / W) at the
              pixel in row i and column k.
            * partial_stripe: [B, S, 3, W], the value of each column, and the first row and the row after the last, as
              fractions of the height. A row counts if its centre lies between them.
        straight_through: gives posterize the gradient of its clamp.
        checkpoint: computes the stages again in the backward pass, instead of keeping the input of each.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.

    Returns:
        A contiguous tensor like x.

    >>> x = torch.tensor([[[[0.5, 1.0]]]], requires_grad=True)
    >>> y = mixture(x, torch.tensor([[[0.25, 1.0]]]), ["identity", "gain"], {"gain": torch.tensor([[[1.0, 2.0]]])})
    >>> y.tolist()
    [[[[0.625, 2.25]]]]
    >>> torch.autograd.grad(y.sum(), x)[0].tolist()
    [[[[1.25, 2.25]]]]
    """
    ops = check_names(ops)
    check_image(x, ops)
    weights = prepared_weights(x, weights, ops)
    values = prepared_values(x, weights.shape[1], ops, params)
    return op.mixture(x, weights, values, Settings(ops, bool(straight_through), backend), checkpoint)


def apply(
    name: str, x: Tensor, values: Tensor | None = None, *, straight_through: bool = False, backend: str | None = None
) -> Tensor:
    """Applies a single operation.

    Args:
        name: of the operation.
        x, straight_through, backend: as in `mixture`.
        values: its params as in `mixture`, without the axis of stages: [B] for gaussian_blur, [B, W] for stripe, ...

    >>> apply("posterize_1", torch.tensor([[[[0.25, 0.75]]]])).tolist()[0][0][0]
    [0.0, 0.501960813999176]
    """
    ops = check_names([name])
    check_image(x, ops)
    params = (
        None if values is None else {name: values[:, None] if isinstance(values, Tensor) and values.dim() else values}
    )
    weights = torch.ones((len(x), 1, 1), dtype=STATE[x.dtype], device=x.device)
    prepared = prepared_values(x, 1, ops, params)
    return op.mixture(x, weights, prepared, Settings(ops, bool(straight_through), backend), False)
