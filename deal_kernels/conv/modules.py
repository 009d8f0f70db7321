"""`conv2d` as a layer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from deal_kernels._common.checks import one_of
from deal_kernels._common.tracing import as_node
from deal_kernels.conv import reference
from deal_kernels.conv.functional import Activation, Pair, conv2d
from deal_kernels.conv.reference import MODES


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` run by `conv2d`, with an optional residual and ReLU: same arguments, parameters, state_dict.

    With a stride, groups or the padding mode "circular" it runs torch's own convolution.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: of
            `torch.nn.Conv2d`.
        activation: "relu" or None.
        backend: of `conv2d`; where torch's own convolution runs, only "torch" may be named.

    >>> layer = Conv2d(8, 8, 7, padding=3, activation="relu")
    >>> x = torch.randn(2, 8, 40, 30)  # [B, C, H, W]
    >>> layer(x, residual=x).shape
    torch.Size([2, 8, 40, 30])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Pair | str = 0,
        dilation: Pair = 1, groups: int = 1, bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros", device: Any = None,
        dtype: torch.dtype | None = None, *, activation: Activation | None = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        one_of("activation", activation, (None, "relu"))
        self.activation = activation
        self.backend = backend
        if not self.plain and backend not in (None, "auto", "torch"):
            raise ValueError(
                f"backend must be None, 'auto' or 'torch' for stride {self.stride}, {groups} groups and "
                f"padding_mode={padding_mode!r}; got {backend!r}"
            )

    @property
    def plain(self) -> bool:
        """Whether `conv2d` can run this layer."""
        return self.stride == (1, 1) and self.groups == 1 and self.padding_mode in MODES

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """input [B, C, H, W] or [C, H, W]; the residual, like the result, is added before the activation."""
        if isinstance(input, Proxy):
            return as_node(self, input, residual)
        return self._conv_forward(input, self.weight, self.bias, residual)

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None
    ) -> Tensor:
        if not self.plain:
            return reference.finished(super()._conv_forward(input, weight, bias), residual, self.activation is not None)
        return conv2d(
            input, weight, bias, padding=self.padding, padding_mode=self.padding_mode, dilation=self.dilation,  # type: ignore[arg-type]
            activation=self.activation, residual=residual, backend=self.backend,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation!r}" if self.activation else "")
