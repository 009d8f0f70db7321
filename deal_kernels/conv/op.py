"""The operations `deal_kernels::conv2d` and `conv2d_backward`: launchers, schemas, fake results, autograd.

They are the CPU engine's and Triton's. Convolutions that torch runs never come here, and keep torch's autograd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common.dispatch import Op, address, exports, needs_gradient, run_compiled, unobserved, wanted_only
from deal_kernels._common.layout import arranged, empty, image_strides, is_channels_last
from deal_kernels._common.types import no_autocast
from deal_kernels.conv import cost, reference, spectra
from deal_kernels.conv.reference import Geometry


def triton_unavailable(device: str) -> str | None:
    return backends.unavailable("triton", device)


triton_unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]  # asked while torch.compile traces


def _images(shape: Sequence[int], channels_last: bool, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Empty images."""
    return empty(shape, image_strides(shape, channels_last), like, dtype)


def _prepared(x: Tensor | None, channels_last: bool) -> Tensor | None:
    """x in float32, contiguous or channels-last: itself, or a copy."""
    return None if x is None else arranged(x.float(), image_strides(x.shape, channels_last))


def _narrowed(y: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return y if y is None or y.dtype == dtype else empty(y.shape, y.stride(), y, dtype).copy_(y)


def _shape_of_result(x: Tensor, weight: Tensor, g: Geometry) -> tuple[int, ...]:
    return x.shape[0], weight.shape[0], *g.size_of_result(x.shape[2:], weight.shape[2:])


def _shape_of_image(grad: Tensor, weight: Tensor, g: Geometry) -> tuple[int, ...]:
    return grad.shape[0], weight.shape[1], *g.size_of_image(grad.shape[2:], weight.shape[2:])


def _call_shape(shape: Sequence[int], weight: Tensor, g: Geometry, channels_last: bool, back: bool) -> dict[str, Any]:
    """The fields that ConvForward and ConvBackward share, for images [B, C, H, W] of a shape."""
    batch, _, height, width = shape
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    top, bottom, left, right = g.padding
    return {
        "batch": batch, "in_channels": in_channels, "out_channels": out_channels, "height": height, "width": width,
        "kernel_h": kernel_h, "kernel_w": kernel_w, "dilation_h": g.dilation[0], "dilation_w": g.dilation[1],
        "top": top, "bottom": bottom, "left": left, "right": right,
        "mode": getattr(backends.extension().Padding, g.padding_mode), "channels_last": channels_last,
        # The best tile of a single image, so that its bits do not depend on the size of the batch.
        "tile": cost.best_tile((1, *shape[1:]), weight.shape, g, back, channels_last),
    }  # fmt: skip


def _runs(backend: str, x: Tensor, shape: Sequence[int]) -> bool:
    """Whether the kernel can run. An exported program may run where it cannot, as on another device."""
    if math.prod(shape) == 0:
        return False
    if backend == "triton":
        return triton_unavailable("cpu" if x.is_cpu else str(x.device)) is None
    return x.is_cpu and backends.extension() is not None


def launch_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, keep: bool,
    backend: str,
) -> Tensor:  # fmt: skip
    """The convolution; with `keep` the engine's spectrum of the weight stays for the next call."""
    last, shape = is_channels_last(x), _shape_of_result(x, weight, g)
    if not _runs(backend, x, x.shape):
        return _images(shape, last, x, x.dtype).copy_(reference.conv2d(x, weight, bias, residual, g, relu))
    if backend == "triton":
        return _triton_forward(x, weight, bias, residual, g, relu)
    fields = _call_shape(x.shape, weight, g, last, back=False)
    spectrum = spectra.of(weight, fields["tile"], False, keep)
    bias = None if bias is None else bias.float().contiguous()
    prepared, residual, y = _prepared(x, last), _prepared(residual, last), _images(shape, last, x, torch.float32)
    call = backends.extension().ConvForward(
        **fields, x=address(prepared), spectrum=spectrum.data_ptr(), bias=address(bias), residual=address(residual),
        relu=relu, out=y.data_ptr(),
    )  # fmt: skip
    run_compiled("conv_forward", call, x, "cpp")
    return _narrowed(y, x.dtype)  # type: ignore[return-value]


def fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, keep: bool,
    backend: str,
) -> Tensor:  # fmt: skip
    return _images(_shape_of_result(x, weight, g), is_channels_last(x), x, x.dtype)


def launch_backward(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, channels_last: bool, keep: bool,
    backend: str, wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias and residual as far as they are wanted.

    If y, the result after a ReLU, is given, grad is the gradient after that ReLU.
    """
    shape, dtype = _shape_of_image(grad, weight, g), grad.dtype
    results = _empty_gradients(grad, weight, g, channels_last, wanted, dtype if backend == "triton" else torch.float32)
    if not _runs(backend, grad, shape):
        _reference_gradients(grad, x, weight, y, g, results)
    elif backend == "triton":
        _triton_gradients(grad, x, weight, y, g, results)
    else:
        fields = _call_shape(shape, weight, g, channels_last, back=True)
        spectrum = spectra.of(weight, fields["tile"], True, keep) if wanted[0] else None
        read_x, read_grad, read_y = (_prepared(each, channels_last) for each in (x, grad, y))
        call = backends.extension().ConvBackward(
            **fields, x=address(read_x), grad=address(read_grad), out=address(read_y), spectrum=address(spectrum),
            grad_x=address(results[0]), grad_weight=address(results[1]), grad_bias=address(results[2]),
            grad_residual=address(results[3]),
        )  # fmt: skip
        run_compiled("conv_backward", call, grad, "cpp")
    of_x, of_weight, of_bias, of_residual = results
    return [_narrowed(of_x, dtype), of_weight, of_bias, _narrowed(of_residual, dtype)]


def fake_backward(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, channels_last: bool, keep: bool,
    backend: str, wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    return _empty_gradients(grad, weight, g, channels_last, wanted, grad.dtype)


def _empty_gradients(
    grad: Tensor, weight: Tensor, g: Geometry, channels_last: bool, wanted: Sequence[bool], dtype: torch.dtype
) -> list[Tensor | None]:
    """Empty gradients: of images in a dtype, of parameters in float32."""
    last, shapes = channels_last, (_shape_of_image(grad, weight, g), grad.shape)
    return [
        _images(shapes[0], last, grad, dtype) if wanted[0] else None,
        grad.new_empty(weight.shape, dtype=torch.float32) if wanted[1] else None,
        grad.new_empty(weight.shape[:1], dtype=torch.float32) if wanted[2] else None,
        _images(shapes[1], last, grad, dtype) if wanted[3] else None,
    ]


def _reference_gradients(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, results: Sequence[Tensor | None]
) -> None:
    found = _differentiable_gradients(grad, x, weight, y, g, [result is not None for result in results])
    for result, gradient in zip(results, found, strict=True):
        if result is not None and gradient is not None:
            result.copy_(gradient)


def _last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x channels-last in a dtype: itself, or a copy."""
    strides = image_strides(x.shape, True)
    return arranged(x, strides) if x.dtype == dtype else empty(x.shape, strides, x, dtype).copy_(x)


def _triton_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool
) -> Tensor:
    from deal_kernels.conv import triton

    last, shape, dtype = is_channels_last(x), _shape_of_result(x, weight, g), x.dtype
    bias = None if bias is None else bias.contiguous()
    residual = None if residual is None else _last(residual, dtype)
    y = _images(shape, True, x, dtype)
    triton.forward(_last(x, dtype), _last(weight, dtype), bias, residual, g, relu, y)
    return y if last else _images(shape, False, x, dtype).copy_(y)


def _triton_gradients(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, results: Sequence[Tensor | None]
) -> None:
    """Writes the gradients: that of the image by Triton, those of the parameters by torch."""
    from deal_kernels.conv import triton

    of_x, of_weight, of_bias, of_residual = results
    before = grad if y is None else reference.before_activation(grad, y)
    if of_x is not None:
        image = _images(of_x.shape, True, of_x, of_x.dtype)
        triton.backward(_last(before, grad.dtype), _last(weight, grad.dtype), g, image)
        of_x.copy_(image)
    if of_weight is not None and x is not None:
        with no_autocast(grad.device.type):
            found = reference.gradients(before, x, weight, g, (False, True, False))[1]
        of_weight.copy_(found)  # type: ignore[arg-type]
    if of_bias is not None:
        torch.sum(before, (0, 2, 3), dtype=torch.float32, out=of_bias)
    if of_residual is not None:
        of_residual.copy_(before)


def _differentiable_gradients(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """`launch_backward` made of torch's own operations."""
    x = grad.new_zeros(_shape_of_image(grad, weight, g)) if x is None else x
    before = grad.float() if y is None else reference.before_activation(grad.float(), y)
    of_x, *parameters = reference.gradients(before, x.float(), weight, g, wanted[:3])
    return [of_x if of_x is None else of_x.to(grad.dtype), *parameters, before.to(grad.dtype) if wanted[3] else None]


_GEOMETRY = "SymInt[4] padding, str padding_mode, SymInt[2] dilation"

FORWARD = Op(
    f"conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, {_GEOMETRY}, bool relu, bool keep, str backend) "
    "-> Tensor",
    launch=launch_forward, fake=fake_forward,
    flat=lambda x, weight, bias, residual, g, *rest: (x, weight, bias, residual, *g, *rest),
    structured=lambda x, weight, bias, residual, padding, mode, dilation, *rest: (
        x, weight, bias, residual, Geometry(padding, mode, dilation), *rest
    ),
    plain=lambda *arguments: reference.conv2d(*arguments[:-2]),
)  # fmt: skip
BACKWARD = Op(
    f"conv2d_backward(Tensor grad, Tensor? x, Tensor weight, Tensor? y, {_GEOMETRY}, bool channels_last, bool keep, "
    "str backend, bool[4] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
    launch=launch_backward, fake=fake_backward,
    flat=lambda grad, x, weight, y, g, *rest: (grad, x, weight, y, *g, *rest),
    structured=lambda grad, x, weight, y, padding, mode, dilation, *rest: (
        grad, x, weight, y, Geometry(padding, mode, dilation), *rest
    ),
)  # fmt: skip


class ConvolutionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, g, relu, backend):
        of_weight = ctx.needs_input_grad[1]
        ctx.keep = not of_weight
        y = FORWARD(x, x, weight, bias, residual, g, relu, ctx.keep, backend)
        ctx.save_for_backward(x if of_weight else None, weight, y if relu else None)
        ctx.arguments = g, is_channels_last(x)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.backend = backend
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, y = ctx.saved_tensors
        of_residual = ctx.needs_input_grad[3]
        wanted = [*ctx.needs_input_grad[:3], of_residual and y is not None]
        of_x, *parameters, last = _gradients(ctx, grad, x, weight, y, wanted)
        parameters = [None if p is None else p.to(d) for p, d in zip(parameters, ctx.dtypes, strict=True)]
        return of_x, *parameters, grad if of_residual and y is None else last, None, None, None


def _gradients(
    ctx: Any, grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, wanted: Sequence[bool]
) -> Sequence[Tensor | None]:
    g, channels_last = ctx.arguments
    if not any(wanted):
        return [None] * 4
    if unobserved(grad) and torch.is_grad_enabled():  # for second derivatives, by torch's own operations
        return _differentiable_gradients(grad, x, weight, y, g, wanted)
    return wanted_only(BACKWARD(grad, grad, x, weight, y, g, channels_last, ctx.keep, ctx.backend, wanted), wanted)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, backend: str
) -> Tensor:
    """The convolution of a kernel, "cpp" or "triton", through autograd where a gradient is needed."""
    # An exported program has no gradients, and torch 2.9 does not export a function whose result has another size.
    if needs_gradient(x, weight, bias, residual) and not exports():
        residual = x.view_as(x) if residual is x else residual  # torch.compile accepts no tensor twice
        return ConvolutionFunction.apply(x, weight, bias, residual, g, relu, backend)
    return FORWARD(x, x, weight, bias, residual, g, relu, True, backend)
