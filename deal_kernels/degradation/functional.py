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
        weights: [B, S, N] for S stages and N operations. They need not sum to one.
        ops: names of operations, see `deal_kernels.degradation`.
        params: the values of gaussian_blur [B, S], stripe [B, S, W], row_stripe [B, S, H], gain [B, S, W] and noise
            [B, S, C, H, W] by name, for those that ops has. `sample_params` draws them. A blur's deviation must be
            positive. They get no gradient.
        straight_through: gives posterize the gradient of its clamp.
        checkpoint: computes the stages again in the backward pass, instead of keeping the input of each.
        backend: "cpp", "cuda" or "torch" runs that one or raises. None or "auto" chooses.

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
