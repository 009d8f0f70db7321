"""`l1_ssim` as a module."""

from __future__ import annotations

from torch import Tensor, nn
from torch.fx import Proxy

from deal_kernels._common.tracing import as_node
from deal_kernels.ssim.functional import Padding, l1_ssim


class L1SSIM(nn.Module):
    """`l1_ssim` as a module.

    >>> y = torch.rand(2, 3, 64, 48)  # [B, C, H, W]
    >>> L1SSIM(beta=0)(y + 0.5, y)
    tensor(0.3750)
    """

    def __init__(
        self, alpha: float = 0.75, beta: float = 1.1, *, data_range: float = 1.0, padding: Padding = "zeros",
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha, self.beta, self.data_range = alpha, beta, data_range
        self.padding, self.backend = padding, backend

    def forward(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The loss, a scalar, of images [B, C, H, W] or [C, H, W]."""
        if isinstance(y_hat, Proxy):
            return as_node(self, y_hat, y)
        return l1_ssim(
            y_hat, y, self.alpha, self.beta, data_range=self.data_range, padding=self.padding, backend=self.backend
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, data_range={self.data_range}, padding={self.padding!r}"
