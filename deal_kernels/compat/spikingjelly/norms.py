"""Batch norm whose weight starts at alpha * v_th, by `deal_kernels.tdbn`."""

from typing import Any

from torch import Tensor

from deal_kernels.tdbn import TDBatchNorm2d


class ThresholdDependentBatchNorm2d(TDBatchNorm2d):
    """The weight starts at alpha * v_th. The other arguments are those of `torch.nn.BatchNorm2d`."""

    def __init__(self, alpha: float, v_th: float, *batch_norm: Any, **named: Any) -> None:
        super().__init__(*batch_norm, **named, alpha=alpha, v_threshold=v_th, initialise_only=True)


class ThresholdDependentBatchNorm1d(ThresholdDependentBatchNorm2d):
    """As `ThresholdDependentBatchNorm2d`, for x [T, B, C] or [T, B, C, L].

    >>> ThresholdDependentBatchNorm1d(1.0, 0.5, 8)(torch.randn(4, 2, 8, 5)).shape
    torch.Size([4, 2, 8, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in (3, 4):
            raise ValueError(f"x must be [T, B, C] or [T, B, C, L]; got the shape {tuple(x.shape)}")
        return super().forward(x) if x.dim() == 3 else super().forward(x.unsqueeze(-1)).squeeze(-1)


class ThresholdDependentBatchNorm3d(ThresholdDependentBatchNorm2d):
    """As `ThresholdDependentBatchNorm2d`, for x [T, B, C, D, H, W].

    >>> ThresholdDependentBatchNorm3d(1.0, 0.5, 8)(torch.randn(4, 2, 8, 3, 5, 5)).shape
    torch.Size([4, 2, 8, 3, 5, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 6:
            raise ValueError(f"x must be [T, B, C, D, H, W]; got the shape {tuple(x.shape)}")
        return super().forward(x.flatten(4)).unflatten(4, x.shape[4:])
