"""`tdbn` and `tdbn_lif` as layers, and the spiking convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.modules.batchnorm import _NormBase

from deal_kernels._common.checks import number, one_of
from deal_kernels._common.neuron import lif_neuron, refuse_unknown, shows
from deal_kernels._common.tracing import as_node
from deal_kernels.lif.functional import Reduce, lif
from deal_kernels.lif.modules import LIF, LayerArguments, LayerSettings
from deal_kernels.tdbn.functional import tdbn, tdbn_lif
from deal_kernels.tdbn.processes import Group

if TYPE_CHECKING:
    from typing_extensions import Unpack


# Not a subclass of _BatchNorm: convert_sync_batchnorm would replace it by a layer without the factor.
class TDBatchNorm2d(_NormBase):
    """`tdbn` as a layer: the arguments and the state_dict of `torch.nn.BatchNorm2d`.

    Args:
        alpha: factor beside the threshold of the neuron that follows; None makes this plain batch norm.
        v_threshold: of that neuron.
        initialise_only: the weight starts at alpha * v_threshold, and there is no separate factor, as in SpikingJelly.
            Otherwise the weight starts at 1 and the factor is separate, as in the paper.
        group: the processes over whose batch the statistics are taken, see `tdbn`.
        backend, channel_axis: see `tdbn`.

    >>> norm = TDBatchNorm2d(8, alpha=0.7071, v_threshold=0.15)
    >>> norm(torch.randn(4, 2, 8, 5, 5)).shape  # [T, B, C, H, W]
    torch.Size([4, 2, 8, 5, 5])
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, alpha: float | None = 1.0, v_threshold: float = 1.0,
        initialise_only: bool = False, group: Group = True, backend: str | None = None,
        channel_axis: int | None = None, device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        self.alpha = None if alpha is None else number("alpha", alpha)
        self.v_threshold = number("v_threshold", v_threshold)
        if initialise_only and (alpha is None or not affine):
            raise ValueError("initialise_only=True needs an alpha and affine=True")
        self.initialise_only = initialise_only
        self.group = group
        self.backend = backend
        self.channel_axis = channel_axis
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.initialise_only and self.alpha is not None:
            nn.init.constant_(self.weight, self.alpha * self.v_threshold)

    def call_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `tdbn` and `tdbn_lif` for one call, which is counted in training."""
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        return {
            "running_mean": self.running_mean, "running_var": self.running_var, "training": self.training,
            "momentum": 0.0 if momentum is None else momentum, "eps": self.eps, "group": self.group,
            "alpha": None if self.initialise_only else self.alpha,
        }  # fmt: skip

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] of y = scale * x + shift, the norm in evaluation."""
        if self.running_mean is None or self.running_var is None:
            raise ValueError("a norm without running statistics cannot be folded")
        scale = 1 / torch.sqrt(self.running_var + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        if self.alpha is not None and not self.initialise_only:
            scale = scale * (self.alpha * self.v_threshold)
        shift = -self.running_mean * scale
        return scale, shift if self.bias is None else shift + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x: [T, B, C, H, W], [T, B, C] or [N, C, H, W]."""
        if isinstance(x, Proxy):
            return as_node(self, x)
        return tdbn(
            x,
            self.weight,
            self.bias,
            v_threshold=self.v_threshold,
            backend=self.backend,
            channel_axis=self.channel_axis,
            **self.call_arguments(),
        )

    def extra_repr(self) -> str:
        factor = f"alpha={self.alpha}, v_threshold={self.v_threshold}"
        return f"{super().extra_repr()}, {factor}" + (", initialise_only=True" if self.initialise_only else "")


class TDBNLIF(LIF):
    """`tdbn_lif` as a layer: a `LIF` whose input is normalised by `norm`, a `TDBatchNorm2d`, in the same operation.

    Args:
        num_features, eps, momentum, affine, track_running_stats, group: of the norm.
        alpha: factor of the norm beside the neuron's threshold; None fuses plain batch norm.
        layer: the arguments of `LIF`.

    >>> layer = TDBNLIF(8, alpha=None, tau=2.0, v_reset=None, stateful=True)
    >>> x = torch.randn(4, 2, 8, 5, 5)  # [T, B, C, H, W]
    >>> layer(x, shortcut=x).shape
    torch.Size([4, 2, 8, 5, 5])
    """

    @shows(LIF.__init__)
    def __init__(
        self, num_features: int, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, alpha: float | None = 1.0, group: Group = True,
        **layer: Unpack[LayerArguments],
    ) -> None:  # fmt: skip
        super().__init__(**layer)
        self.norm = TDBatchNorm2d(num_features, eps, momentum, affine, track_running_stats, alpha=alpha, group=group)

    def forward(  # type: ignore[override]
        self, x: Tensor, shortcut: Tensor | None = None, v0: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of the normalised x [T, B, C, ...] plus the shortcut."""
        if isinstance(x, Proxy):
            return as_node(self, x, shortcut, v0)
        norm = self.norm
        return self.run(tdbn_lif, x, v0, weight=norm.weight, bias=norm.bias, shortcut=shortcut, **norm.call_arguments())


class SpikingConv(nn.Module):
    """Neuron, convolution, norm, and optionally the mean over time.

    In evaluation the norm is folded into the convolution. Both commute with the mean over time, so with
    ``reduce="mean"`` the neuron returns its mean and the convolution runs once instead of once per step.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: of the
            `torch.nn.Conv2d`.
        reduce: "mean" for the mean over time.
        eps, momentum, group: of the `TDBatchNorm2d`.
        alpha: factor of the norm beside ``norm_threshold``; None is plain batch norm.
        norm_threshold: threshold of the neuron that follows the norm; None takes this block's own.
        backend, settings: of the neuron, as in `LIF`.

    >>> block = SpikingConv(8, 16, 3, padding=1, reduce="mean", levels=4, v_reset=None).eval()
    >>> block(torch.randn(2, 8, 5, 5), steps=4).shape  # the same image at each of four steps
    torch.Size([2, 16, 5, 5])
    """

    @shows(lif_neuron)
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 1, *,
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = False,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        reduce: Reduce = None, eps: float = 1e-5, momentum: float | None = 0.1,
        alpha: float | None = 1.0, norm_threshold: float | None = None, group: Group = True,
        backend: str | None = None, **settings: Unpack[LayerSettings],
    ) -> None:  # fmt: skip
        super().__init__()
        refuse_unknown(type(self).__name__, settings)
        one_of("reduce", reduce, (None, "mean"))
        self.reduce = reduce
        self.neuron = LIF(backend=backend, **settings)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        if norm_threshold is None:
            norm_threshold = float(settings.get("v_threshold", 1.0))
        self.norm: TDBatchNorm2d | None = TDBatchNorm2d(
            out_channels, eps, momentum, alpha=alpha, v_threshold=norm_threshold, group=group
        )

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """x [T, B, C, H, W], or with ``steps`` one image [B, C, H, W] for every step."""
        if isinstance(x, Proxy):
            return as_node(self, x, steps)
        if self.training and self.norm is not None:
            y = self.norm(self._each_step(x, steps, self.conv.weight, self.conv.bias))
            return y if self.reduce is None else y.mean(0)
        if self.reduce is None:
            return self._each_step(x, steps, *self._folded())
        rates = self.neuron.run(lif, x, None, steps=steps, reduce="mean")
        return self.conv._conv_forward(rates, *self._folded())

    def fuse(self) -> SpikingConv:
        """Folds the norm into the convolution for good."""
        if self.norm is not None:
            weight, bias = self._folded()
            self.conv.weight, self.conv.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
            self.norm = None
        return self

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution with the norm folded in."""
        weight, bias = self.conv.weight, self.conv.bias
        if self.norm is None:
            assert bias is not None
            return weight, bias
        scale, shift = self.norm.folded()
        return weight * scale.reshape(-1, 1, 1, 1), shift if bias is None else shift + bias * scale

    def _each_step(self, x: Tensor, steps: int | None, weight: Tensor, bias: Tensor | None) -> Tensor:
        spikes = self.neuron.run(lif, x, None, steps=steps)  # [T, B, C, H, W]
        y = self.conv._conv_forward(spikes.flatten(0, 1), weight, bias)
        return y.unflatten(0, spikes.shape[:2])
