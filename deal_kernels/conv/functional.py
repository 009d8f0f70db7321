"""`conv2d`: check, choose, dispatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion, check_tensor, is_integer, one_of
from deal_kernels._common.dispatch import needs_gradient, transformed
from deal_kernels._common.forked import one_thread_if_forked
from deal_kernels._common.types import STATE
from deal_kernels.conv import choice, op, reference
from deal_kernels.conv.reference import MODES, Geometry

PaddingMode = Literal["zeros", "reflect", "replicate"]
Activation = Literal["relu"]
Pair = int | tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Pair | Literal["valid", "same"] = 0,
    padding_mode: PaddingMode = "zeros",
    dilation: Pair = 1,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Computes activation(conv(padded(x), weight) + bias + residual) with stride 1 and one group, in one operation.

    Args:
        x: [B, C, H, W] or [C, H, W] in float32, float16, bfloat16 or float64. Contiguous and channels-last images are
            read without a copy, others are copied once. The engine computes half types in float32. A pixel that is not
            finite can make every pixel of its tiles NaN, up to 31 pixels away (times the dilation). Under autocast x
            and the residual are cast as for torch's convolution.
        weight: [O, C, kH, kW], in the dtype of x, or in float32 for half types.
        bias: [O], likewise.
        padding: pixels above and below, and left and right; "same" keeps the size of the image, an odd pixel being
            added below and to the right; "valid" adds none.
        padding_mode: "zeros"; "reflect", which needs images larger than the padding; or "replicate".
        dilation: distance between the pixels under the kernel, down and across.
        activation: "relu" or None.
        residual: added before the activation, in the shape and dtype of the result.
        backend: "cpp", the engine, "triton" or "torch" runs that one or raises. None or "auto" takes the engine on a
            CPU where `deal_kernels.conv.cost` expects it to be faster, and Triton on a GPU where its first use has
            measured it to be faster, for channels-last images in half types; else torch. float64 runs in torch alone.

    Returns:
        [B, O, H', W'] or [O, H', W'] in the dtype of x, and channels-last where x is.

    The engine keeps the spectrum of a weight that is used without gradient, as long as the weight does not change.
    Triton multiplies half types as they are, a float32 weight rounded to the type of x, and sums in float32. It rounds
    float32 to TF32 only if `torch.set_float32_matmul_precision` allows it.

    >>> x = torch.randn(2, 3, 64, 48)
    >>> conv2d(x, torch.randn(8, 3, 7, 7), padding="same", padding_mode="reflect", activation="relu").shape
    torch.Size([2, 8, 64, 48])
    """
    _check_image(x)
    if x.dtype != torch.float64 and _autocasts(x.device.type):
        x, residual = (_cast(tensor, torch.get_autocast_dtype(x.device.type)) for tensor in (x, residual))
    _check_weight(x, weight)
    _check_bias(x, weight, bias)
    geometry = _geometry(weight, padding, padding_mode, dilation)
    _check_size(x, weight, geometry)
    one_of("activation", activation, (None, "relu"))
    if residual is not None:
        _check_residual(x, weight, residual, geometry)
    if x.dim() == 3:
        one = None if residual is None else residual[None]
        return _conv2d(x[None], weight, bias, one, geometry, activation is not None, backend)[0]
    return _conv2d(x, weight, bias, residual, geometry, activation is not None, backend)


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool,
    backend: str | None,
) -> Tensor:  # fmt: skip
    one_thread_if_forked()
    if transformed():
        return reference.conv2d(x, weight, bias, residual, g, relu)
    trains = needs_gradient(x, weight, bias, residual)
    chosen = choice.chosen_backend(backend, x, weight, g, trains, residual, relu)
    if chosen == "torch":
        return reference.conv2d(x, weight, bias, residual, g, relu)
    return op.conv2d(x, weight, bias, residual, g, relu, chosen)


def _autocasts(device: str) -> bool:
    # torch.compile of torch 2.9 cannot trace torch.amp.is_autocast_available.
    return device != "meta" and torch.is_autocast_enabled(device)


def _cast(tensor: Any, dtype: torch.dtype) -> Any:
    return tensor.to(dtype) if isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor


def pair(name: str, value: object, least: int) -> tuple[int, int]:
    """The numbers for down and across, which may be given as one."""
    two = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(two) != 2 or not all(map(is_integer, two)):
        raise TypeError(f"{name} must be an integer or a pair of them; got {value!r}")
    if min(two) < least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")
    return two


def _geometry(weight: Tensor, padding: object, padding_mode: str, dilation: object) -> Geometry:
    one_of("padding_mode", padding_mode, MODES)
    apart = pair("dilation", dilation, 1)
    if isinstance(padding, str):
        one_of("padding", padding, ("valid", "same"))
        total = [(size - 1) * d if padding == "same" else 0 for size, d in zip(weight.shape[2:], apart, strict=True)]
        around = tuple(share for each in total for share in (each // 2, each - each // 2))
    else:
        down, across = pair("padding", padding, 0)
        around = down, down, across, across
    return Geometry(around, padding_mode, apart)  # type: ignore[arg-type]


def _check_image(x: Tensor) -> None:
    check_tensor("x", x)
    if x.dim() not in (3, 4):
        raise ValueError(f"x must be [B, C, H, W] or [C, H, W]; got the shape {tuple(x.shape)}")
    if 0 in x.shape[-2:]:
        raise ValueError(f"x must have pixels; got the shape {tuple(x.shape)}")


def _check_parameter(name: str, tensor: Tensor, x: Tensor) -> None:
    check_companion(name, tensor, x)
    if tensor.dtype not in (x.dtype, STATE[x.dtype]):
        accepted = " or ".join(dict.fromkeys((str(x.dtype), str(STATE[x.dtype]))))
        raise TypeError(f"{name} must be {accepted} for x of {x.dtype}; got {tensor.dtype}")


def _check_weight(x: Tensor, weight: Tensor) -> None:
    _check_parameter("weight", weight, x)
    if weight.dim() != 4 or 0 in weight.shape:
        raise ValueError(f"weight must be [O, C, kH, kW], none of them 0; got the shape {tuple(weight.shape)}")
    if weight.shape[1] != x.shape[-3]:
        raise ValueError(
            f"weight must have the channels of x, {x.shape[-3]} for x of shape {tuple(x.shape)}; "
            f"got {weight.shape[1]} in the shape {tuple(weight.shape)}"
        )


def _check_bias(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if bias is None:
        return
    _check_parameter("bias", bias, x)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have the shape ({len(weight)},) of weight's first axis; got {tuple(bias.shape)}")


def _check_size(x: Tensor, weight: Tensor, g: Geometry) -> None:
    size = x.shape[-2:]
    widest = max(g.padding[:2]), max(g.padding[2:])
    if g.padding_mode == "reflect" and (widest[0] >= size[0] or widest[1] >= size[1]):
        raise ValueError(
            f"padding_mode='reflect' needs images larger than the padding, {widest[0]} x {widest[1]}; "
            f"got {size[0]} x {size[1]}"
        )
    if min(g.size_of_result(size, weight.shape[2:])) < 1:
        raise ValueError(
            f"the padded image must be at least as large as the dilated kernel; got images of {size[0]} x {size[1]}, "
            f"padding {_described(g.padding)}, a kernel of {tuple(weight.shape[2:])} and dilation {g.dilation}"
        )


def _described(padding: Sequence[int]) -> str:
    above, below, left, right = padding
    return f"({above}, {left})" if (above, left) == (below, right) else f"({above} + {below}, {left} + {right})"


def _check_residual(x: Tensor, weight: Tensor, residual: Tensor, g: Geometry) -> None:
    check_companion("residual", residual, x)
    shape = *x.shape[:-3], len(weight), *g.size_of_result(x.shape[-2:], weight.shape[2:])
    if residual.shape != shape or residual.dtype != x.dtype:
        raise ValueError(
            f"residual must be like the result, {x.dtype} {tuple(shape)}; got {residual.dtype} {tuple(residual.shape)}"
        )
