"""The operations `deal_kernels::degradation_mixture` and `..._backward`: schemas, fake kernels, autograd, launchers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.degradation import reference
from deal_kernels.degradation.names import KINDS, RANDOM, known
from deal_kernels.degradation.reference import Operation
from deal_kernels.layout import empty
from deal_kernels.lif import op as lif_op


class Settings(NamedTuple):
    operations: Sequence[str]
    straight_through: bool = False
    backend: str | None = None


_TENSORS = "Tensor x, Tensor weights, Tensor[] values"
_SETTINGS = "str[] operations, bool straight_through, str? backend"

library = torch.library.Library("deal_kernels", "FRAGMENT")
library.define(f"degradation_mixture({_TENSORS}, {_SETTINGS}, bool keep) -> (Tensor, Tensor)")
library.define(
    f"degradation_mixture_backward(Tensor grad, Tensor inputs, {_TENSORS}, {_SETTINGS}, bool[2] wanted) "
    "-> (Tensor, Tensor)"
)


def chosen(s: Settings, x: Tensor) -> str:
    """The backend. Without a Triton version, a GPU has cuda and torch; what has no kernel, torch alone."""
    named = s.backend or backends.FORCED
    if named == "triton":
        raise RuntimeError("backend 'triton' cannot run: it has no degradation mixture; 'cpp', 'cuda' and 'torch' have")
    found = lif_op.chosen(s.backend, x)
    lacking = [name for name in s.operations if known(name).kind not in KINDS]
    if lacking and named in ("cpp", "cuda"):
        raise RuntimeError(f"backend {named!r} cannot run: it has no {lacking[0]}; 'torch' has")
    return "torch" if lacking or found == "triton" else found


def inputs_like(x: Tensor, stages: int) -> Tensor:
    """What the stages after the first read, [S - 1, B, C, H, W]."""
    return empty((stages - 1, *x.shape), (x.numel(), *x.stride()), x, x.dtype)


def like(x: Tensor) -> Tensor:
    return empty(x.shape, x.stride(), x, x.dtype)


def _operations(values: Sequence[Tensor], s: Settings) -> list[Operation]:
    of_each = iter(values)
    return [
        Operation(*known(name), s.straight_through, next(of_each) if name in RANDOM else None) for name in s.operations
    ]


def _with_deviations(o: Operation, weights: Tensor) -> Operation:
    """To a kernel a deviation is a value of each sample and stage, also where the name gives it."""
    if o.kind == "gaussian_blur" and o.values is None:
        return o._replace(values=weights.new_full(weights.shape[:2], o.strength))
    return o


def _described(o: Operation) -> tuple[Any, ...]:
    return KINDS.index(o.kind), o.strength, o.straight_through, lif_op._address(o.values)


def _run(
    x: Tensor, weights: Tensor, operations: Sequence[Operation], backend: str, direction: str, *tensors: Tensor | None
) -> None:
    """The compiled kernel of a direction; what lies between weights and the place is its own."""
    kernels, operations = backends.extension(), [_with_deviations(o, weights) for o in operations]
    sizes = lif_op.DTYPES[x.dtype], *x.shape, weights.shape[1], list(map(_described, operations))
    addresses = x.data_ptr(), weights.data_ptr(), *map(lif_op._address, tensors)
    place = lif_op.place(x, backend)
    if backend == "cpp":
        getattr(kernels, f"mixture_{direction}")(*sizes, *addresses, *place)
        return
    room = x.new_empty(kernels.cuda_mixture_workspace(*sizes, direction == "backward"), dtype=torch.uint8)
    getattr(kernels, f"cuda_mixture_{direction}")(*sizes, *addresses, room.data_ptr(), *place)


def forward(
    x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """The result, and with `keep` what each stage after the first read."""
    x, weights, backend = x.contiguous(), weights.contiguous(), chosen(s, x)
    result, inputs = like(x), inputs_like(x, weights.shape[1]) if keep else None
    if x.numel() == 0:
        return result, inputs
    operations = _operations(values, s)
    if backend == "torch":
        found, (_, *read) = reference.mixture(x, weights, operations)
        for one, other in zip(read, () if inputs is None else inputs, strict=False):
            other.copy_(one)
        return result.copy_(found), inputs
    _run(x, weights, operations, backend, "forward", result, inputs)
    return result, inputs


def backward(
    grad: Tensor, inputs: Tensor, x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings,
    wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x and of weights as far as they are wanted."""
    x, weights, grad, backend = x.contiguous(), weights.contiguous(), grad.contiguous(), chosen(s, x)
    grads = [like(x) if wanted[0] else None, torch.zeros_like(weights) if wanted[1] else None]
    if x.numel() == 0:
        return grads
    operations = _operations(values, s)
    if backend == "torch":
        found = reference.gradients(grad, [x, *inputs], weights, operations)
        for result, each in zip(grads, found, strict=True):
            if result is not None:
                result.copy_(each)
    else:
        _run(x, weights, operations, backend, "backward", inputs, grad, *grads)
    return grads


def _run_forward(x, weights, values, operations, straight_through, backend, keep):
    result, inputs = forward(x, weights, values, Settings(operations, straight_through, backend), keep)
    return result, x.new_empty(0) if inputs is None else inputs


def _run_backward(grad, inputs, x, weights, values, operations, straight_through, backend, wanted):
    s = Settings(operations, straight_through, backend)
    grads = backward(grad, inputs, x, weights, values, s, wanted)
    return tuple(x.new_empty(0) if each is None else each for each in grads)


library.impl("degradation_mixture", _run_forward, "CompositeExplicitAutograd")
library.impl("degradation_mixture_backward", _run_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("deal_kernels::degradation_mixture", lib=library)
def _(x, weights, values, operations, straight_through, backend, keep):
    x = x.contiguous()
    return like(x), inputs_like(x, weights.shape[1]) if keep else x.new_empty(0)


@torch.library.register_fake("deal_kernels::degradation_mixture_backward", lib=library)
def _(grad, inputs, x, weights, values, operations, straight_through, backend, wanted):
    x, weights = x.contiguous(), weights.contiguous()
    return like(x) if wanted[0] else x.new_empty(0), torch.empty_like(weights) if wanted[1] else x.new_empty(0)


_ops = torch.ops.deal_kernels


def _forward(
    x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, keep: bool
) -> tuple[Tensor, Tensor | None]:
    run = forward if lif_op.unobserved(x) else _through_dispatcher
    return run(x, weights, values, s, keep)


def _through_dispatcher(x, weights, values, s, keep):
    return _ops.degradation_mixture(x, weights, values, *s, keep)


class MixtureFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights, s, checkpoint, *values):
        result, inputs = _forward(x, weights, values, s, not checkpoint)
        ctx.save_for_backward(x, weights, *values, *(() if checkpoint else (inputs,)))
        ctx.arguments = s, checkpoint
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        s, checkpoint = ctx.arguments
        x, weights, *values = ctx.saved_tensors
        inputs = _forward(x, weights, values, s, True)[1] if checkpoint else values.pop()
        wanted = ctx.needs_input_grad[:2]
        if lif_op.unobserved(x):
            grads = backward(grad, inputs, x, weights, values, s, wanted)
        else:
            found = _ops.degradation_mixture_backward(grad, inputs, x, weights, values, *s, wanted)
            grads = [g if each else None for g, each in zip(found, wanted, strict=True)]
        return *grads, None, None, *[None] * len(values)


def mixture(x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, checkpoint: bool) -> Tensor:
    """The result, through autograd where a gradient is needed."""
    if lif_op.needs_gradient(x, weights):
        return MixtureFunction.apply(x, weights, s, checkpoint, *values)
    return _forward(x, weights, values, s, False)[0]
