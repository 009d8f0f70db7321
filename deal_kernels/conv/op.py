"""The operations `deal_kernels::conv2d` and `conv2d_backward`: schemas, fake kernels, autograd, the launcher.

They are the engine's; what torch's own convolution runs never comes here, and keeps torch's autograd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.conv import cost, reference, spectra
from deal_kernels.conv.reference import MODES, Geometry
from deal_kernels.layout import arranged, empty
from deal_kernels.lif import op as lif_op

NOT_BUILT = backends.unavailable("cpp", "cpu")  # found here, where nothing traces
_GEOMETRY = "SymInt[4] padding, str padding_mode, SymInt[2] dilation"

library = torch.library.Library("deal_kernels", "FRAGMENT")
library.define(
    f"conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, {_GEOMETRY}, bool relu, bool keep) -> Tensor"
)
library.define(
    f"conv2d_backward(Tensor grad, Tensor? x, Tensor weight, Tensor? y, {_GEOMETRY}, bool channels_last, bool keep, "
    "bool[4] wanted) -> (Tensor, Tensor, Tensor, Tensor)"
)


def chosen(named: str | None, x: Tensor, weight: Tensor, g: Geometry, trains: bool, passes: int = 0) -> str:
    """Which backend runs this convolution. DEAL_KERNELS_BACKEND names one as far as there is a choice.

    Args:
        passes: that torch needs over the result, see `cost.torch_time`.
    """
    named = named or (backends.FORCED if backends.FORCED in ("cpp", "torch") else None)
    if named in (None, "auto"):
        if not x.is_cpu or _engine_lacks(x, weight):
            return "torch"
        # A compiled or exported program is not to depend on the size of its images: they are taken to be large.
        shape = (1, x.shape[1], 512, 512) if torch.compiler.is_compiling() else x.shape
        faster = cost.engine_is_faster(shape, weight.shape, g, trains, is_channels_last(x), passes)
        return "cpp" if faster else "torch"
    if named in ("cuda", "triton"):
        reason: str | None = "convolution has no kernel of its own there; backend 'torch' runs on any device"
    elif named in ("cpp", "torch"):
        reason = _engine_lacks(x, weight) if named == "cpp" else None
    else:
        raise ValueError(f"backend must be 'auto' or one of cpp, torch; got {named!r}")
    if reason:
        raise RuntimeError(f"backend {named!r} cannot run: {reason}")
    return named


def _engine_lacks(x: Tensor, weight: Tensor) -> str | None:
    """Why the engine cannot run this; None when it can."""
    if x.dtype == torch.float64:
        return "it has no float64; backend 'torch' has"
    if max(weight.shape[2:]) > cost.LARGEST_KERNEL:
        return f"it has kernels up to {cost.LARGEST_KERNEL} pixels wide; backend 'torch' has all"
    return NOT_BUILT if x.is_cpu else backends.unavailable("cpp", x.device.type)


def is_channels_last(x: Tensor) -> bool:
    """Of images of one channel, which lie in memory as either would, the strides tell, as they do torch."""
    if x.shape[1] == 1:
        return x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1 and x.is_contiguous()
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _strides(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    _, channels, height, width = shape
    if channels_last:
        return height * width * channels, 1, width * channels, channels
    return channels * height * width, height * width, width, 1


def images(shape: Sequence[int], channels_last: bool, like: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty result."""
    return empty(shape, _strides(shape, channels_last), like, dtype)


def _prepared(x: Tensor, channels_last: bool) -> Tensor:
    """x in float32, contiguous or channels-last: itself, or a copy."""
    return arranged(x.float(), _strides(x.shape, channels_last))


def shape_of_result(x: Tensor, weight: Tensor, g: Geometry) -> tuple[int, ...]:
    return x.shape[0], weight.shape[0], *g.size_of_result(x.shape[2:], weight.shape[2:])


def shape_of_image(grad: Tensor, weight: Tensor, g: Geometry) -> tuple[int, ...]:
    return grad.shape[0], weight.shape[1], *g.size_of_image(grad.shape[2:], weight.shape[2:])


def _numbers(shape: Sequence[int], weight: Tensor, g: Geometry, channels_last: bool, back: bool) -> tuple[Any, ...]:
    """What the engine takes first, for images of a shape; csrc/bindings/conv.h names it. The tile is last but one."""
    out_channels, in_channels, *kernel = weight.shape
    sizes = shape[0], in_channels, out_channels, *shape[2:], *kernel, *g.dilation, *g.padding
    sizes = *sizes, MODES.index(g.padding_mode)
    # Of one image, so that its bits do not depend on those beside it.
    return *sizes, cost.best_tile((1, *shape[1:]), weight.shape, g, back, channels_last), channels_last


def _engine_runs(grad: Tensor, shape: Sequence[int]) -> bool:
    """Not on images without pixels, nor where an exported program may find itself."""
    return grad.is_cpu and backends.extension() is not None and math.prod(shape) > 0


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, keep: bool
) -> Tensor:
    last, shape = is_channels_last(x), shape_of_result(x, weight, g)
    if not _engine_runs(x, x.shape):
        return images(shape, last, x, x.dtype).copy_(reference.conv2d(x, weight, bias, residual, g, relu))
    numbers = _numbers(x.shape, weight, g, last, back=False)
    spectrum = spectra.of(weight, numbers[-2], False, keep)
    bias = None if bias is None else bias.float().contiguous()
    residual = None if residual is None else _prepared(residual, last)
    prepared, y = _prepared(x, last), images(shape, last, x, torch.float32)
    addresses = map(lif_op._address, (prepared, spectrum, bias, residual))
    backends.extension().conv_forward(*numbers, *addresses, relu, y.data_ptr(), torch.get_num_threads())
    return _narrowed(y, x.dtype)


def _narrowed(y: Tensor, dtype: torch.dtype) -> Tensor:
    return y if y.dtype == dtype else empty(y.shape, y.stride(), y, dtype).copy_(y)


def _gradients_like(
    grad: Tensor, weight: Tensor, g: Geometry, channels_last: bool, wanted: Sequence[bool], dtype: torch.dtype
) -> list[Tensor | None]:
    """Empty ones as far as they are wanted, in float32 but for those of images."""
    last, shapes = channels_last, (shape_of_image(grad, weight, g), grad.shape)
    return [
        images(shapes[0], last, grad, dtype) if wanted[0] else None,
        grad.new_empty(weight.shape, dtype=torch.float32) if wanted[1] else None,
        grad.new_empty(weight.shape[:1], dtype=torch.float32) if wanted[2] else None,
        images(shapes[1], last, grad, dtype) if wanted[3] else None,
    ]


def backward(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, channels_last: bool, keep: bool,
    wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias and residual as far as they are wanted. With y, a ReLU's result, grad is its."""
    shape, dtype = shape_of_image(grad, weight, g), grad.dtype
    results = _gradients_like(grad, weight, g, channels_last, wanted, torch.float32)
    if not _engine_runs(grad, shape):
        _reference_gradients(grad, x, weight, y, g, results)
    else:
        numbers = _numbers(shape, weight, g, channels_last, back=True)
        spectrum = spectra.of(weight, numbers[-2], True, keep) if wanted[0] else None
        read = [None if each is None else _prepared(each, channels_last) for each in (x, grad, y)]
        addresses = map(lif_op._address, (*read, spectrum, *results))
        backends.extension().conv_backward(*numbers, *addresses, torch.get_num_threads())
    of_x, of_weight, of_bias, of_residual = results
    of_x, of_residual = (None if each is None else _narrowed(each, dtype) for each in (of_x, of_residual))
    return [of_x, of_weight, of_bias, of_residual]


def _reference_gradients(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, results: Sequence[Tensor | None]
) -> None:
    found = differentiable_gradients(grad, x, weight, y, g, [result is not None for result in results])
    for result, gradient in zip(results, found, strict=True):
        if result is not None and gradient is not None:
            result.copy_(gradient)


def differentiable_gradients(
    grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, g: Geometry, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """`backward` made of torch's operations."""
    x = grad.new_zeros(shape_of_image(grad, weight, g)) if x is None else x
    before = grad.float() if y is None else reference.before_activation(grad.float(), y)
    of_x, *parameters = reference.gradients(before, x.float(), weight, g, wanted[:3])
    return [of_x if of_x is None else of_x.to(grad.dtype), *parameters, before.to(grad.dtype) if wanted[3] else None]


def _or_nothing(grad: Tensor, results: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """What a schema takes for results that are not wanted."""
    return tuple(grad.new_empty(0) if result is None else result for result in results)


def _run(x, weight, bias, residual, padding, padding_mode, dilation, relu, keep):
    return forward(x, weight, bias, residual, Geometry(padding, padding_mode, dilation), relu, keep)


def _run_backward(grad, x, weight, y, padding, padding_mode, dilation, channels_last, keep, wanted):
    geometry = Geometry(padding, padding_mode, dilation)
    return _or_nothing(grad, backward(grad, x, weight, y, geometry, channels_last, keep, wanted))


library.impl("conv2d", _run, "CompositeExplicitAutograd")
library.impl("conv2d_backward", _run_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("deal_kernels::conv2d", lib=library)
def _(x, weight, bias, residual, padding, padding_mode, dilation, relu, keep):
    shape = shape_of_result(x, weight, Geometry(padding, padding_mode, dilation))
    return images(shape, is_channels_last(x), x, x.dtype)


@torch.library.register_fake("deal_kernels::conv2d_backward", lib=library)
def _(grad, x, weight, y, padding, padding_mode, dilation, channels_last, keep, wanted):
    geometry = Geometry(padding, padding_mode, dilation)
    return _or_nothing(grad, _gradients_like(grad, weight, geometry, channels_last, wanted, grad.dtype))


_ops = torch.ops.deal_kernels


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool, keep: bool
) -> Tensor:
    run = forward if lif_op.unobserved(x) else _forward_op
    return run(x, weight, bias, residual, g, relu, keep)


def _forward_op(x, weight, bias, residual, g, relu, keep):
    return _ops.conv2d(x, weight, bias, residual, *g, relu, keep)


class ConvolutionFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, g, relu):
        of_weight = ctx.needs_input_grad[1]
        ctx.keep = not of_weight
        y = _conv2d(x, weight, bias, residual, g, relu, ctx.keep)
        ctx.save_for_backward(x if of_weight else None, weight, y if relu else None)
        ctx.arguments = g, is_channels_last(x)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, y = ctx.saved_tensors
        *wanted, of_residual = ctx.needs_input_grad[:4]
        wanted.append(of_residual and y is not None)
        of_x, *parameters, last = _gradients(ctx, grad, x, weight, y, wanted)
        parameters = [None if p is None else p.to(d) for p, d in zip(parameters, ctx.dtypes, strict=True)]
        return of_x, *parameters, grad if of_residual and y is None else last, None, None


def _gradients(
    ctx: Any, grad: Tensor, x: Tensor | None, weight: Tensor, y: Tensor | None, wanted: Sequence[bool]
) -> Sequence[Tensor | None]:
    g, channels_last = ctx.arguments
    if not any(wanted):
        return [None] * 4
    if not lif_op.unobserved(grad):
        found = _ops.conv2d_backward(grad, x, weight, y, *g, channels_last, ctx.keep, wanted)
        return [each if wish else None for each, wish in zip(found, wanted, strict=True)]
    if torch.is_grad_enabled():  # a graph of the gradients is asked for: torch's own operations have theirs
        return differentiable_gradients(grad, x, weight, y, g, wanted)
    return backward(grad, x, weight, y, g, channels_last, ctx.keep, wanted)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool) -> Tensor:
    """The engine's convolution, through autograd where a gradient is needed."""
    if lif_op.needs_gradient(x, weight, bias, residual):
        residual = x.view_as(x) if residual is x else residual  # torch.compile takes no tensor twice
        return ConvolutionFunction.apply(x, weight, bias, residual, g, relu)
    return _conv2d(x, weight, bias, residual, g, relu, True)
