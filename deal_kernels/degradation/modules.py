"""`mixture` as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.fx import Proxy

from deal_kernels._common.tracing import as_node
from deal_kernels.degradation.arguments import Params, check_image, check_names, prepared_weights
from deal_kernels.degradation.functional import mixture
from deal_kernels.degradation.names import DEAL_OPS
from deal_kernels.degradation.sampling import sample_params


class Mixture(nn.Module):
    """`mixture` as a module. It draws the params where a call gives none.

    >>> degrade = Mixture(DEAL_OPS)
    >>> x, weights = torch.rand(2, 1, 48, 64), torch.rand(2, 5, len(DEAL_OPS)).softmax(-1)
    >>> degrade(x, weights).shape
    torch.Size([2, 1, 48, 64])
    """

    def __init__(
        self, ops: Sequence[str] = DEAL_OPS, *, straight_through: bool = False, checkpoint: bool = False,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.ops = check_names(ops)
        self.straight_through, self.checkpoint, self.backend = straight_through, checkpoint, backend

    def forward(self, x: Tensor, weights: Tensor, params: Params | None = None) -> Tensor:
        """Of [B, C, H, W] and [B, S, N]."""
        if isinstance(x, Proxy):
            return as_node(self, x, weights, params)
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
