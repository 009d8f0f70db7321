"""Derivatives beyond the first: those of a function in plain torch that stands for the kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from deal_kernels._common.dispatch import transformed, wanted_only

Tensors = Sequence[Tensor | None]
Plain = Callable[..., Tensors]


def differentiates_gradients(grads: Tensors) -> bool:
    """Whether a backward pass of these gradients is differentiated itself (create_graph=True), or transformed."""
    return not torch.compiler.is_compiling() and (torch.is_grad_enabled() or _transformed(grads))


def _transformed(grads: Tensors) -> bool:
    """By torch.func, or by `is_grads_batched=True` of torch.autograd.grad."""
    return transformed() or any(grad is not None and is_legacy_batchedtensor(grad) for grad in grads)


def gradients(plain: Plain, inputs: Tensors, grads: Tensors) -> list[Tensor | None]:
    """The gradients of the inputs of `plain`, from those of its results. None in either is a tensor that is absent."""
    present = [each is not None for each in inputs]

    def of_tensors(*tensors: Tensor) -> tuple[Tensor | None, ...]:
        given = iter(tensors)
        results = plain(*(next(given) if each else None for each in present))
        return tuple(result for result, grad in zip(results, grads, strict=True) if grad is not None)

    pull = torch.func.vjp(of_tensors, *(each for each in inputs if each is not None))[1]
    found = iter(pull(tuple(grad for grad in grads if grad is not None)))
    return [next(found) if each else None for each in present]


def differentiable_gradients(
    plain: Plain, inputs: Tensors, grads: Tensors, wanted: Sequence[bool], by_kernels: Callable[[], Tensors]
) -> list[Tensor | None]:
    """The gradients of the inputs as far as they are wanted, with derivatives of their own.

    Args:
        plain: the operation as a function of the inputs, in plain torch operations that have all derivatives.
        inputs, grads: of that function, and of its results. None is a tensor that is absent.
        wanted: for each input.
        by_kernels: computes the wanted gradients, with the bits that they have elsewhere.
    """
    if _transformed(grads):
        return wanted_only(gradients(plain, inputs, grads), wanted)
    with torch.no_grad():
        values = by_kernels()
    found = iter(_Gradients.apply(plain, wanted, values, *inputs, *grads))
    return [next(found) if each else None for each in wanted]


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass whose gradients raise where they are differentiated.

    Those of torch's `once_differentiable` raise only if the gradient that comes in depends on something: of a loss,
    they would count as constants.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return found  # type: ignore[no-any-return]
        return tuple(
            None if each is None else _Undifferentiable.apply(each.detach().requires_grad_()) for each in found
        )

    return checked


class _Undifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise NotImplementedError(
            "this operation has no second derivatives: detach the gradient, or compute it without create_graph=True"
        )


class _Gradients(torch.autograd.Function):
    """Gradients that are known, as a function of the inputs of `plain` and of the gradients of its results."""

    @staticmethod
    def forward(
        ctx: Any, plain: Plain, wanted: Sequence[bool], values: Tensors, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.plain, ctx.wanted = plain, wanted
        ctx.set_materialize_grads(False)
        return tuple(value.detach() for value, each in zip(values, wanted, strict=True) if each and value is not None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plain, wanted = ctx.plain, ctx.wanted

        def first(*tensors: Tensor | None) -> list[Tensor | None]:
            found = gradients(plain, tensors[: len(wanted)], tensors[len(wanted) :])
            return [gradient for gradient, each in zip(found, wanted, strict=True) if each]

        return None, None, None, *gradients(first, ctx.saved_tensors, grads)
