"""Mixtures of image degradations: of every sample and stage, a weighted sum of blurred, striped, posterized ... images.

One call runs all samples through all stages. Operations are named, with their strength behind an underscore:

* identity;
* contrast_R, saturation_R, sharpness_R: R of the image and 1 - R of its mean grey, of its grey image, or of the image
  under a 3 x 3 filter, clamped to [0, 1]. R is 0 or more. Images of one channel keep their saturation;
* gaussian_blur_S: 9 x 9 taps of deviation S, the image reflected at its edges; gaussian_blur: one deviation for every
  sample and stage;
* max_pool_resize_K, average_pool_resize_K, bicubic_resize_K: down by a whole factor, and up again bilinearly;
* coarse_K: likewise, but bicubically both ways and without aliasing, as Pillow and MATLAB do. It has no kernels: a
  mixture with it runs in plain torch;
* posterize_B: clamped to [0, 1], of 8 bits the B highest. It has no gradient unless `straight_through` is asked for;
* stripe, row_stripe: plus a value for every column or row; gain: times a value for every column; noise: plus a value
  for every pixel.

>>> import torch
>>> from deal_kernels.degradation import DEAL, mixture, sample_params
>>> x = torch.rand(2, 1, 48, 64)  # [B, C, H, W]
>>> weights = torch.rand(2, 5, len(DEAL)).softmax(-1)  # [B, S, N]
>>> mixture(x, weights, DEAL, sample_params(DEAL, x, stages=5)).shape
torch.Size([2, 1, 48, 64])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deal_kernels.degradation import op
from deal_kernels.degradation.arguments import Params, check_image, check_names, prepared_values, prepared_weights
from deal_kernels.degradation.names import DEAL, OPERATIONS
from deal_kernels.degradation.op import Settings
from deal_kernels.degradation.sampling import sample_params
from deal_kernels.lif.reference import STATE

__all__ = ["DEAL", "OPERATIONS", "Mixture", "apply", "mixture", "sample_params"]


def mixture(
    x: Tensor, weights: Tensor, ops: Sequence[str], params: Params | None = None, *, straight_through: bool = False,
    checkpoint: bool = False, backend: str | None = None,
) -> Tensor:  # fmt: skip
    """Every sample through all stages: in stage i it becomes the sum over j of weights[b, i, j] * ops[j](x[b]).

    There is no clamp between stages. Gradients reach x and weights through all of them.

    Args:
        x: [B, C, H, W] with one or three channels: float32, float16, bfloat16 or float64. Half types are computed in
            float32, and rounded after every stage. What is not contiguous, as in channels-last layout, is copied once.
        weights: [B, S, N] for S stages and N operations. They need not sum to one.
        ops: names of operations; the module lists them.
        params: for gaussian_blur, stripe, row_stripe, gain and noise, as far as ops has them, their values by name:
            [B, S], [B, S, W], [B, S, H], [B, S, W] and [B, S, C, H, W]. `sample_params` draws them. Deviations of the
            blur have to be positive. They have no gradient.
        straight_through: lets gradients pass posterize as if it were the clamp alone.
        checkpoint: runs forward again in the backward pass, instead of keeping what S - 1 stages read.
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
    """One operation alone.

    Args:
        name: of the operation.
        x, straight_through, backend: as in `mixture`.
        values: what params would have for it, without the axis of stages: [B] for gaussian_blur, [B, W] for stripe, ...

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


class Mixture(nn.Module):
    """`mixture` as a module, which draws params where a call gives none.

    >>> degrade = Mixture(DEAL)
    >>> x, weights = torch.rand(2, 1, 48, 64), torch.rand(2, 5, len(DEAL)).softmax(-1)
    >>> degrade(x, weights).shape
    torch.Size([2, 1, 48, 64])
    """

    def __init__(
        self, ops: Sequence[str] = DEAL, *, straight_through: bool = False, checkpoint: bool = False,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.ops = check_names(ops)
        self.straight_through, self.checkpoint, self.backend = straight_through, checkpoint, backend

    def forward(self, x: Tensor, weights: Tensor, params: Params | None = None) -> Tensor:
        """Of [B, C, H, W] and [B, S, N]."""
        if params is None:
            check_image(x, self.ops)
            params = sample_params(self.ops, x, prepared_weights(x, weights, self.ops).shape[1])
        return mixture(
            x, weights, self.ops, params, straight_through=self.straight_through, checkpoint=self.checkpoint,
            backend=self.backend,
        )  # fmt: skip

    def extra_repr(self) -> str:
        ops = ", ".join(self.ops)
        return f"{ops}, straight_through={self.straight_through}, checkpoint={self.checkpoint}"
