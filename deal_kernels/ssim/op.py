"""The operations `deal_kernels::ssim_map`, `ssim_loss` and `ssim_backward`: launchers, schemas, fake results, autograd.

In float32 and float64 the loss computes its gradients in the same pass over the images, as only a factor is missing
then. In half types that factor has to come first, or small gradients would vanish: the backward pass computes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common.derivatives import differentiable_once
from deal_kernels._common.dispatch import (
    Op,
    address,
    chosen_backend,
    needs_gradient,
    run_compiled,
    unobserved,
    wanted_only,
)
from deal_kernels._common.layout import empty
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.ssim import reference
from deal_kernels.ssim.reference import REACH, Settings

Gradients = list[Tensor | None]


def _map_shape(a: Tensor, s: Settings) -> tuple[int, ...]:
    *planes, height, width = a.shape
    return *planes, height - 2 * s.margin, width - 2 * s.margin


def _like(a: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """An empty result, contiguous."""
    shape = tuple(a.shape if shape is None else shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return empty(shape, strides, a, a.dtype)


def _run(
    a: Tensor, b: Tensor, s: Settings, backend: str, *, similarity: Tensor | None = None, loss: Tensor | None = None,
    grad: Tensor | None = None, grads: Sequence[Tensor | None] = (None, None),
) -> None:  # fmt: skip
    """Runs the kernel, which computes what there is a tensor for. Its factors turn sums over the images into means.

    grad is that of the map, or of the loss, a scalar; None is 1.
    """
    *_, height, width = a.shape
    of_map = grad is not None and grad.dim() > 0
    structure = 1.0 if of_map else s.structure / math.prod(_map_shape(a, s))
    pixel = 0.0 if of_map else s.pixel / a.numel()
    if backend == "triton":
        from deal_kernels.ssim import triton

        return triton.run(a, b, s, structure, pixel, similarity, loss, grad, grads)
    compiled, (c1, c2) = backends.extension(), s.constants
    fields = {
        "dtype": compiled_dtype(a.dtype), "planes": a.numel() // (height * width), "height": height, "width": width,
        "margin": s.margin, "c1": c1, "c2": c2, "a": a.data_ptr(), "b": b.data_ptr(), "map": address(similarity),
        "offset": s.offset, "structure": structure, "pixel": pixel, "grad": address(grad), "grad_of_map": of_map,
        "grad_a": address(grads[0]), "grad_b": address(grads[1]),
    }  # fmt: skip
    if backend == "cpp" or loss is None:
        run_compiled("ssim", compiled.Ssim(**fields, loss=address(loss)), a, backend)
        return
    count = compiled.cuda.ssim_parts(compiled.Ssim(**fields))
    parts = a.new_empty(count, dtype=torch.float64)
    run_compiled("ssim", compiled.Ssim(**fields, loss=parts.data_ptr()), a, backend)
    loss.copy_(parts.sum() + s.offset)


def _planes(images: Tensor) -> Tensor:
    return images.reshape(-1, *images.shape[-2:])


def launch_map(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    a, b, backend = a.contiguous(), b.contiguous(), chosen_backend(s.backend, a)
    result = fake_map(a, b, s)
    if result.numel() == 0:
        return result
    if backend == "torch":
        found = reference.similarity(_planes(a), _planes(b), *s.constants, REACH - s.margin)
        return result.copy_(found.reshape(result.shape))
    _run(a, b, s, backend, similarity=result)
    return result


def fake_map(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    return _like(a, _map_shape(a, s))


def launch_loss(a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> list[Tensor | None]:
    """The loss, and its gradients as far as they are wanted."""
    a, b, backend = a.contiguous(), b.contiguous(), chosen_backend(s.backend, a)
    result, *grads = fake_loss(a, b, s, wanted)
    assert result is not None
    if a.numel() == 0:  # the mean of nothing
        return [result.fill_(math.nan), *grads]
    if backend == "torch":
        dtype = STATE[a.dtype]
        similarity = reference.similarity(_planes(a), _planes(b), *s.constants, REACH - s.margin)
        distance = (a.to(dtype) - b.to(dtype)).abs()
        result.copy_(s.offset + s.structure * similarity.mean() + s.pixel * distance.mean())
        if any(wanted):
            _reference_gradients(torch.ones_like(result), a, b, s, grads)
    else:
        _run(a, b, s, backend, loss=result, grads=grads)
    return [result, *grads]


def fake_loss(a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> list[Tensor | None]:
    return [a.new_empty((), dtype=STATE[a.dtype]), *(_like(a) if each else None for each in wanted)]


def launch_backward(grad: Tensor, a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> Gradients:
    """Gradients of the images as far as they are wanted, from that of the map or, a scalar, of the loss."""
    a, b, grad, backend = a.contiguous(), b.contiguous(), grad.contiguous(), chosen_backend(s.backend, a)
    grads = fake_backward(grad, a, b, s, wanted)
    if a.numel() == 0 or not any(wanted):
        return grads
    if backend == "torch":
        _reference_gradients(grad, a, b, s, grads)
    else:
        _run(a, b, s, backend, grad=grad, grads=grads)
    return grads


def fake_backward(grad: Tensor, a: Tensor, b: Tensor, s: Settings, wanted: Sequence[bool]) -> Gradients:
    return [_like(a) if each else None for each in wanted]


def _reference_gradients(grad: Tensor, a: Tensor, b: Tensor, s: Settings, results: Sequence[Tensor | None]) -> None:
    shape = _map_shape(a, s)
    pixel: float | Tensor = 0.0
    if grad.dim() == 0:
        pixel, grad = grad * (s.pixel / a.numel()), (grad * (s.structure / math.prod(shape))).expand(shape)
    found = reference.gradients(_planes(grad), _planes(a), _planes(b), *s.constants, REACH - s.margin, pixel)
    for result, gradient in zip(results, found, strict=True):
        if result is not None:
            result.copy_(gradient.reshape(a.shape))


_SETTINGS = "float data_range, bool valid, float offset, float structure, float pixel, str? backend"
_COUNT = len(Settings._fields)

MAP = Op(
    f"ssim_map(Tensor a, Tensor b, {_SETTINGS}) -> Tensor",
    launch=launch_map, fake=fake_map, flat=lambda a, b, s: (a, b, *s),
    structured=lambda a, b, *settings: (a, b, Settings(*settings)),
)  # fmt: skip
LOSS = Op(
    f"ssim_loss(Tensor a, Tensor b, {_SETTINGS}, bool[2] wanted) -> (Tensor, Tensor, Tensor)",
    launch=launch_loss, fake=fake_loss, flat=lambda a, b, s, wanted: (a, b, *s, wanted),
    structured=lambda a, b, *rest: (a, b, Settings(*rest[:_COUNT]), *rest[_COUNT:]),
)  # fmt: skip
BACKWARD = Op(
    f"ssim_backward(Tensor grad, Tensor a, Tensor b, {_SETTINGS}, bool[2] wanted) -> (Tensor, Tensor)",
    launch=launch_backward, fake=fake_backward, flat=lambda grad, a, b, s, wanted: (grad, a, b, *s, wanted),
    structured=lambda grad, a, b, *rest: (grad, a, b, Settings(*rest[:_COUNT]), *rest[_COUNT:]),
)  # fmt: skip


class _FromImages(torch.autograd.Function):
    """Keeps the images, and computes the gradients in the backward pass."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, b, ctx.settings = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        (a, b), wanted = ctx.saved_tensors, ctx.needs_input_grad[:2]
        return *wanted_only(BACKWARD(a, grad, a, b, ctx.settings, wanted), wanted), None


class MapFunction(_FromImages):
    @staticmethod
    def forward(a, b, s):
        return MAP(a, a, b, s)


class HalfLossFunction(_FromImages):
    @staticmethod
    def forward(a, b, s):
        return LOSS(a, a, b, s, (False, False))[0]


class LossFunction(torch.autograd.Function):
    """Computes the gradients in the forward pass, and keeps them."""

    @staticmethod
    def forward(ctx, a, b, s, wanted):
        value, *grads = LOSS(a, a, b, s, wanted)
        ctx.save_for_backward(*(g for g, each in zip(grads, wanted, strict=True) if each))
        ctx.wanted = wanted
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        found = iter(ctx.saved_tensors)
        return *(_scaled(next(found), grad) if each else None for each in ctx.wanted), None, None


def _scaled(kept: Tensor, grad: Tensor) -> Tensor:
    return torch.mul(kept, grad, out=_like(kept)) if unobserved(kept) else kept * grad


def similarity(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    """The map, through autograd where a gradient is needed."""
    if needs_gradient(a, b):
        return MapFunction.apply(a, b, s)
    return MAP(a, a, b, s)


def loss(a: Tensor, b: Tensor, s: Settings) -> Tensor:
    """The loss, through autograd where a gradient is needed."""
    wanted = needs_gradient(a), needs_gradient(b)
    if not any(wanted):
        return LOSS(a, a, b, s, wanted)[0]
    if STATE[a.dtype] != a.dtype:
        return HalfLossFunction.apply(a, b, s)
    return LossFunction.apply(a, b, s, wanted)
