"""The operations `deal_kernels::ssim_map`, `ssim_loss` and `ssim_backward`: schemas, fake kernels, autograd, launchers.

A loss whose gradient will be asked for finds it in the same pass over the images, as all of it but a factor is known
by then. In half types that factor has to come first, lest small gradients vanish: they are found in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.layout import empty
from deal_kernels.lif import op as lif_op
from deal_kernels.lif.reference import STATE
from deal_kernels.ssim import reference
from deal_kernels.ssim.reference import REACH


class Settings(NamedTuple):
    """Of a map, and of loss = offset + structure * mean(map) + pixel * mean(|a - b|)."""

    data_range: float = 1.0
    valid: bool = False  # the map has only the windows that lie within the image
    offset: float = 0.0
    structure: float = 1.0
    pixel: float = 0.0
    backend: str | None = None

    @property
    def margin(self) -> int:
        return REACH if self.valid else 0

    @property
    def constants(self) -> tuple[float, float]:
        return (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2


_SETTINGS = "float data_range, bool valid, float offset, float structure, float pixel, str? backend"

library = torch.library.Library("deal_kernels", "FRAGMENT")
library.define(f"ssim_map(Tensor a, Tensor b, {_SETTINGS}) -> Tensor")
library.define(f"ssim_loss(Tensor a, Tensor b, {_SETTINGS}, bool[2] wanted) -> (Tensor, Tensor, Tensor)")
library.define(f"ssim_backward(Tensor grad, Tensor a, Tensor b, {_SETTINGS}, bool[2] wanted) -> (Tensor, Tensor)")


def map_shape(a: Tensor, s: Settings) -> tuple[int, ...]:
    *planes, height, width = a.shape
    return *planes, height - 2 * s.margin, width - 2 * s.margin


def like(a: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """An empty result, contiguous."""
    shape = tuple(a.shape if shape is None else shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return empty(shape, strides, a, a.dtype)


def loss_like(a: Tensor) -> Tensor:
    return a.new_empty((), dtype=STATE[a.dtype])


def _wanted_like(a: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    return [like(a) if each else None for each in wanted]


def _run(
    a: Tensor, b: Tensor, s: Settings, backend: str, *, similarity: Tensor | None = None, loss: Tensor | None = None,
    grad: Tensor | None = None, grads: Sequence[Tensor | None] = (None, None),
) -> None:  # fmt: skip
    """The kernel: finds what there is a tensor for. Sums over the images become means by their factors.

    Without a gradient of the map, `grad` is one factor and the gradients are those of the loss.
    """
    *_, height, width = a.shape
    of_map = grad is not None and grad.dim() > 0
    structure = 1.0 if of_map else s.structure / math.prod(map_shape(a, s))
    pixel = 0.0 if of_map else s.pixel / a.numel()
    if backend == "triton":
        from deal_kernels.ssim import triton

        return triton.run(a, b, s, structure, pixel, similarity, loss, grad, grads)
    kernels = backends.extension()
    images = lif_op.DTYPES[a.dtype], a.numel() // (height * width), height, width, s.margin, *s.constants
    addresses = a.data_ptr(), b.data_ptr(), lif_op._address(similarity)
    gradients = lif_op._address(grad), of_map, *map(lif_op._address, grads)
    factors = s.offset, structure, pixel
    place = lif_op.place(a, backend)
    if backend == "cpp":
        kernels.ssim(*images, *addresses, *factors, lif_op._address(loss), *gradients, *place)
        return
    blocks = kernels.cuda_ssim_blocks(*images[1:4], any(g is not None for g in grads))
    parts = None if loss is None else a.new_empty(blocks, dtype=torch.float64)
    kernels.cuda_ssim(*images, *addresses, *factors, lif_op._address(parts), *gradients, *place)
    if loss is not None and parts is not None:
        loss.copy_(parts.sum() + s.offset)


def _planes(images: Tensor) -> Tensor:
    return images.reshape(-1, *images.shape[-2:])


def similarity_map(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    a, b, backend = a.contiguous(), b.contiguous(), lif_op.chosen(s.backend, a)
    result = like(a, map_shape(a, s))
    if result.numel() == 0:
        return result
    if backend == "torch":
        found = reference.similarity(_planes(a), _planes(b), *s.constants, REACH - s.margin)
        return result.copy_(found.reshape(result.shape))
    _run(a, b, s, backend, similarity=result)
    return result


def loss(a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and its gradients as far as they are wanted."""
    a, b, backend = a.contiguous(), b.contiguous(), lif_op.chosen(s.backend, a)
    result, grads = loss_like(a), _wanted_like(a, wanted)
    if a.numel() == 0:  # the mean of nothing
        return result.fill_(math.nan), grads[0], grads[1]
    if backend == "torch":
        dtype = STATE[a.dtype]
        similarity = reference.similarity(_planes(a), _planes(b), *s.constants, REACH - s.margin)
        distance = (a.to(dtype) - b.to(dtype)).abs()
        result.copy_(s.offset + s.structure * similarity.mean() + s.pixel * distance.mean())
        if any(wanted):
            _reference_gradients(torch.ones_like(result), a, b, s, grads)
    else:
        _run(a, b, s, backend, loss=result, grads=grads)
    return result, grads[0], grads[1]


def backward(grad: Tensor, a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of the images as far as they are wanted, from that of the map or, without an axis, of the loss."""
    a, b, grad, backend = a.contiguous(), b.contiguous(), grad.contiguous(), lif_op.chosen(s.backend, a)
    grads = _wanted_like(a, wanted)
    if a.numel() == 0 or not any(wanted):
        return grads
    if backend == "torch":
        _reference_gradients(grad, a, b, s, grads)
    else:
        _run(a, b, s, backend, grad=grad, grads=grads)
    return grads


def _reference_gradients(grad: Tensor, a: Tensor, b: Tensor, s: Settings, results: Sequence[Tensor | None]) -> None:
    shape = map_shape(a, s)
    pixel: float | Tensor = 0.0
    if grad.dim() == 0:
        pixel, grad = grad * (s.pixel / a.numel()), (grad * (s.structure / math.prod(shape))).expand(shape)
    found = reference.gradients(_planes(grad), _planes(a), _planes(b), *s.constants, REACH - s.margin, pixel)
    for result, gradient in zip(results, found, strict=True):
        if result is not None:
            result.copy_(gradient.reshape(a.shape))


def _or_nothing(a: Tensor, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """What a schema takes for results that are not wanted."""
    return tuple(a.new_empty(0) if tensor is None else tensor for tensor in tensors)


def _run_map(a, b, *settings):
    return similarity_map(a, b, Settings(*settings))


def _run_loss(a, b, *arguments):
    *settings, wanted = arguments
    value, *grads = loss(a, b, Settings(*settings), wanted)
    return value, *_or_nothing(a, grads)


def _run_backward(grad, a, b, *arguments):
    *settings, wanted = arguments
    return _or_nothing(a, backward(grad, a, b, Settings(*settings), wanted))


library.impl("ssim_map", _run_map, "CompositeExplicitAutograd")
library.impl("ssim_loss", _run_loss, "CompositeExplicitAutograd")
library.impl("ssim_backward", _run_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("deal_kernels::ssim_map", lib=library)
def _(a, b, *settings):
    return like(a, map_shape(a, Settings(*settings)))


@torch.library.register_fake("deal_kernels::ssim_loss", lib=library)
def _(a, b, *arguments):
    return loss_like(a), *_or_nothing(a, _wanted_like(a, arguments[-1]))


@torch.library.register_fake("deal_kernels::ssim_backward", lib=library)
def _(grad, a, b, *arguments):
    return _or_nothing(a, _wanted_like(a, arguments[-1]))


_ops = torch.ops.deal_kernels


def _map(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    return similarity_map(a, b, s) if lif_op.unobserved(a) else _ops.ssim_map(a, b, *s)


def _loss(a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return loss(a, b, s, wanted) if lif_op.unobserved(a) else _ops.ssim_loss(a, b, *s, wanted)


def _backward(grad: Tensor, a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> list[Tensor | None]:
    if lif_op.unobserved(a):
        return backward(grad, a, b, s, wanted)
    found = _ops.ssim_backward(grad, a, b, *s, wanted)
    return [g if each else None for g, each in zip(found, wanted, strict=True)]


class MapFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, s):
        ctx.save_for_backward(a, b)
        ctx.settings = s
        return _map(a, b, s)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return *_backward(grad, *ctx.saved_tensors, ctx.settings, ctx.needs_input_grad[:2]), None


class LossFunction(torch.autograd.Function):
    """With the gradients found in the forward pass."""

    @staticmethod
    def forward(ctx, a, b, s, wanted):
        value, *grads = _loss(a, b, s, wanted)
        ctx.save_for_backward(*(g for g, each in zip(grads, wanted, strict=True) if each))
        ctx.wanted = wanted
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        found = iter(ctx.saved_tensors)
        return *(_scaled(next(found), grad) if each else None for each in ctx.wanted), None, None


def _scaled(kept: Tensor, grad: Tensor) -> Tensor:
    return torch.mul(kept, grad, out=like(kept)) if lif_op.unobserved(kept) else kept * grad


class HalfLossFunction(torch.autograd.Function):
    """With the gradients found in the backward pass."""

    @staticmethod
    def forward(ctx, a, b, s):
        ctx.save_for_backward(a, b)
        ctx.settings = s
        return _loss(a, b, s, (False, False))[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return *_backward(grad, *ctx.saved_tensors, ctx.settings, ctx.needs_input_grad[:2]), None


def ssim_map(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    """The map, through autograd where a gradient is needed."""
    if lif_op.needs_gradient(a, b):
        return MapFunction.apply(a, b, s)
    return _map(a, b, s)


def ssim_loss(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    """The loss, through autograd where a gradient is needed."""
    wanted = lif_op.needs_gradient(a), lif_op.needs_gradient(b)
    if not any(wanted):
        return _loss(a, b, s, wanted)[0]
    if STATE[a.dtype] != a.dtype:
        return HalfLossFunction.apply(a, b, s)
    return LossFunction.apply(a, b, s, wanted)
