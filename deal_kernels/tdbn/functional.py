"""`tdbn` and `tdbn_lif`: check, find the statistics, dispatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from deal_kernels._common.axes import checked_axis, in_usual_order
from deal_kernels._common.checks import check_companion, check_strided, number, refuse_gradient
from deal_kernels._common.neuron import NeuronSettings, lif_neuron, neuron_and_tensors, shows
from deal_kernels._common.types import STATE, Number
from deal_kernels.lif.arguments import check_input, output_of, state_and_parameters
from deal_kernels.lif.functional import Output, Reduce
from deal_kernels.tdbn import op
from deal_kernels.tdbn.channels import SCALE
from deal_kernels.tdbn.processes import Group

if TYPE_CHECKING:
    from typing_extensions import Unpack


def tdbn(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    alpha: float | None = 1.0,
    v_threshold: Number = 1.0,
    group: Group = True,
    backend: str | None = None,
    channel_axis: int | None = None,
) -> Tensor:
    """Threshold-dependent batch norm: y = weight * alpha * v_threshold * (x - mean) / sqrt(variance + eps) + bias.

    Args:
        x: [T, B, C, H, W], [T, B, C] or [N, C, H, W], or any other with ``channel_axis``; float32, float16, bfloat16
            or float64, in any dense layout. Half types are normalised in float32.
        weight, bias: [C] each; None is 1 and 0.
        running_mean, running_var: [C] each. In training they are updated with the statistics of x (the variance
            unbiased), otherwise they are used as the statistics. None: the statistics are always those of x.
        training: whether the statistics are those of x.
        momentum: weight of the new statistics in the update, as in `torch.nn.BatchNorm2d`.
        eps: added to the variance.
        alpha: factor beside the threshold of the neuron that follows; None is plain batch norm.
        v_threshold: number, or a tensor with one value or one per channel, which gets a gradient.
        group: the processes over whose batch the statistics are taken, where torch.distributed runs: True, all of them
            (each has to take part); a process group; False, this process alone.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        channel_axis: the axis of x that is its channels, such as -1 for [T, B, N, C].

    Returns:
        A tensor like x.

    >>> x = torch.randn(4, 2, 8, 5, 5) * 3 + 7  # [T, B, C, H, W]
    >>> y = tdbn(x, training=True, v_threshold=0.5)
    >>> y.std().round(decimals=2).item()
    0.5
    """
    check_input(x, None)
    axis = _channel_axis(x) if channel_axis is None else checked_axis("channel_axis", channel_axis, x)
    weight, bias, statistics, settings = normalisation(
        x, axis, weight, bias, running_mean, running_var, training, momentum, eps, alpha, v_threshold, group, backend
    )
    return op.norm(x, weight, bias, statistics, settings)


@overload
def tdbn_lif(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, running_mean: Tensor | None = None,
    running_var: Tensor | None = None, *, training: bool, momentum: float = 0.1, eps: float = 1e-5,
    alpha: float | None = 1.0, group: Group = True, shortcut: Tensor | None = None, v0: Tensor | None = None,
    steps: int | None = None, output: Output = "spikes", reduce: Reduce = None, pack: bool = False,
    return_state: Literal[False] = False, backend: str | None = None, time_axis: int = 0,
    channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor: ...  # fmt: skip
@overload
def tdbn_lif(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, running_mean: Tensor | None = None,
    running_var: Tensor | None = None, *, training: bool, momentum: float = 0.1, eps: float = 1e-5,
    alpha: float | None = 1.0, group: Group = True, shortcut: Tensor | None = None, v0: Tensor | None = None,
    steps: int | None = None, output: Output = "spikes", reduce: Reduce = None, pack: bool = False,
    return_state: Literal[True], backend: str | None = None, time_axis: int = 0,
    channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def tdbn_lif(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, running_mean: Tensor | None = None,
    running_var: Tensor | None = None, *, training: bool, momentum: float = 0.1, eps: float = 1e-5,
    alpha: float | None = 1.0, group: Group = True, shortcut: Tensor | None = None, v0: Tensor | None = None,
    steps: int | None = None, output: Output = "spikes", reduce: Reduce = None, pack: bool = False,
    return_state: bool, backend: str | None = None, time_axis: int = 0,
    channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
@shows(lif_neuron)
def tdbn_lif(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, running_mean: Tensor | None = None,
    running_var: Tensor | None = None, *, training: bool, momentum: float = 0.1, eps: float = 1e-5,
    alpha: float | None = 1.0, group: Group = True, shortcut: Tensor | None = None, v0: Tensor | None = None,
    steps: int | None = None, output: Output = "spikes", reduce: Reduce = None, pack: bool = False,
    return_state: bool = False, backend: str | None = None, time_axis: int = 0,
    channel_axis: int | None = None, **settings: Unpack[NeuronSettings],
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`lif(tdbn(x) + shortcut)` as one operation that keeps x for the backward pass and nothing else of its size.

    Args:
        x: [T, B, C, ...], or [B, C, ...] with ``steps``.
        weight, bias, running_mean, running_var, training, momentum, eps, group: as in `tdbn`.
        alpha: factor of the norm beside ``v_threshold``; None fuses plain batch norm.
        shortcut: added to the normalised x before the neuron, in the shape of x.
        v0, steps, output, reduce, pack, return_state, backend, time_axis, channel_axis: as in `lif`. The channels are
            those of the norm, too.
        settings: of the neuron, as in `lif`.

    Returns:
        What `lif` returns.

    >>> x = torch.randn(4, 2, 8, 5, 5)  # [T, B, C, H, W]
    >>> tdbn_lif(x, torch.ones(8), torch.zeros(8), training=True, v_reset=None, reduce="mean").shape
    torch.Size([2, 8, 5, 5])
    """
    if time_axis != 0 or channel_axis is not None:
        check_strided("x", x)
        return in_usual_order(  # type: ignore[no-any-return]
            tdbn_lif, x, time_axis, channel_axis, weight=weight, bias=bias, running_mean=running_mean,
            running_var=running_var, training=training, momentum=momentum, eps=eps, alpha=alpha, group=group,
            shortcut=shortcut, v0=v0, steps=steps, output=output, reduce=reduce, pack=pack, return_state=return_state,
            backend=backend, **settings,
        )  # fmt: skip
    neuron, decay, threshold = neuron_and_tensors(settings)
    check_input(x, steps)
    axis = 2 if steps is None else 1
    if x.dim() <= axis:
        shape = "[T, B, C, ...]" if steps is None else "[B, C, ...] with steps"
        raise ValueError(f"x must be {shape}; got the shape {tuple(x.shape)}")
    kept = output_of(output, reduce, pack, neuron)
    v0, decay, threshold = state_and_parameters(x, steps, v0, decay, threshold)
    _check_shortcut(shortcut, x)
    if pack:
        refuse_gradient("pack=True", x, weight, bias, shortcut, v0, decay, threshold)
    weight, bias, statistics, norm = normalisation(
        x, axis, weight, bias, running_mean, running_var, training, momentum, eps, alpha,
        neuron.threshold if threshold is None else threshold, group, backend,
    )  # fmt: skip
    tensors = x, weight, bias, shortcut, v0, decay, threshold
    spikes, v = op.lif(tensors, statistics, norm, neuron, kept, steps, return_state)
    return (spikes, v) if return_state else spikes  # type: ignore[return-value]


def _channel_axis(x: Tensor) -> int:
    if x.dim() not in (3, 4, 5):
        raise ValueError(f"x must be [T, B, C, H, W], [T, B, C] or [N, C, H, W]; got the shape {tuple(x.shape)}")
    return 1 if x.dim() == 4 else 2


def normalisation(
    x: Tensor, axis: int, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float, alpha: float | None, v_threshold: Number,
    group: Group, backend: str | None,
) -> tuple[Tensor, Tensor | None, op.Statistics, op.Settings]:  # fmt: skip
    """The weight times its factor, the bias, the statistics, and the settings of the ops.

    In training this updates the running statistics.
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    _check_channels(x, axis, weight=weight, bias=bias, **running)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must both be given, or neither")
    eps, momentum = number("eps", eps), number("momentum", momentum)
    if eps < 0 or not 0 <= momentum <= 1:
        raise ValueError(f"eps must not be negative and momentum must be from 0 to 1; got {eps} and {momentum}")
    dtype = STATE[x.dtype]
    weight = _with_factor(weight, alpha, v_threshold, x, axis)
    bias = None if bias is None else bias.to(dtype).contiguous()
    if running_mean is not None and running_var is not None and not training:
        mean, inverse = running_mean.detach().to(dtype).contiguous(), torch.rsqrt(running_var.detach().to(dtype) + eps)
        constant = op.Statistics(mean, inverse, weight.detach() * inverse)
        return weight, bias, constant, op.Settings(axis, None, group, backend, eps)
    with torch.no_grad():
        mean, variance, count = op.moments(x, axis, group, backend)
        if count < 2:
            raise ValueError(f"training needs more than one value per channel; got x of shape {tuple(x.shape)}")
        found = SCALE(variance, variance, weight.detach(), eps, count, backend)
        scale, inverse, unbiased = found.unbind()
        if running_mean is not None and running_var is not None:
            new = mean.to(running_mean.dtype), unbiased.to(running_var.dtype)
            torch._foreach_lerp_([running_mean, running_var], new, momentum)
    return weight, bias, op.Statistics(mean, inverse, scale), op.Settings(axis, count, group, backend, eps)


def _with_factor(weight: Tensor | None, alpha: float | None, v_threshold: Number, x: Tensor, axis: int) -> Tensor:
    """weight * alpha * v_threshold, [C]."""
    dtype = STATE[x.dtype]
    weight = x.new_ones(x.shape[axis], dtype=dtype) if weight is None else weight.to(dtype)
    if alpha is None:
        return weight
    if isinstance(v_threshold, Tensor):
        if v_threshold.numel() != 1 and v_threshold.shape != (x.shape[axis],):
            raise ValueError(
                f"with alpha, v_threshold must have one value or one per channel, {x.shape[axis]}; "
                f"got the shape {tuple(v_threshold.shape)}"
            )
        v_threshold = v_threshold.to(dtype).reshape(() if v_threshold.numel() == 1 else -1)
    else:
        v_threshold = number("v_threshold", v_threshold)
    factor = number("alpha", alpha) * v_threshold
    return weight if isinstance(factor, float) and factor == 1 else weight * factor


def _check_channels(x: Tensor, axis: int, **given: Tensor | None) -> None:
    for name, tensor in given.items():
        if tensor is None:
            continue
        check_companion(name, tensor, x)
        if tensor.shape != (x.shape[axis],):
            raise ValueError(
                f"{name} must have one value per channel, {x.shape[axis]} for x of shape {tuple(x.shape)}; "
                f"got the shape {tuple(tensor.shape)}"
            )


def _check_shortcut(shortcut: Tensor | None, x: Tensor) -> None:
    if shortcut is None:
        return
    check_companion("shortcut", shortcut, x)
    if shortcut.shape != x.shape or shortcut.dtype != x.dtype:
        raise ValueError(
            f"shortcut must be like x, {x.dtype} {tuple(x.shape)}; got {shortcut.dtype} {tuple(shortcut.shape)}"
        )
