"""The operations `deal_kernels::degradation` and `degradation_backward`: launchers, schemas, fake results, autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels._common.derivatives import differentiable_once
from deal_kernels._common.dispatch import Op, address, needs_gradient, run_compiled, wanted_only
from deal_kernels._common.layout import empty
from deal_kernels._common.types import compiled_dtype
from deal_kernels.degradation import reference
from deal_kernels.degradation.names import KINDS, PATTERNS, RANDOM, known
from deal_kernels.degradation.patterns import pattern
from deal_kernels.degradation.reference import Operation

MOST_PIXELS = 2**30  # of a channel on triton: their indices have 32 bits


class Settings(NamedTuple):
    operations: Sequence[str]
    straight_through: bool = False
    backend: str | None = None


def chosen_backend(s: Settings, x: Tensor) -> str:
    """The backend of a call. What has no kernel runs in torch."""
    found = dispatch.chosen_backend(s.backend, x)
    lacks = _lacks(found, s.operations, x)
    if lacks and found == (s.backend or backends.FORCED):
        raise RuntimeError(f"backend {found!r} cannot run: {lacks}; 'torch' has")
    return "torch" if lacks else found


def _lacks(backend: str, operations: Sequence[str], x: Tensor) -> str | None:
    """What the kernels of a backend do not have."""
    lacking = [name for name in operations if known(name).kind not in KINDS]
    if lacking and backend != "torch":
        return f"it has no {lacking[0]}"
    height, width = x.shape[2:]
    if backend == "triton" and height * width >= MOST_PIXELS:
        return f"it has no images of {MOST_PIXELS} pixels and more; got {height} x {width}"
    return None


def _inputs_like(x: Tensor, stages: int) -> Tensor:
    """Empty inputs of the stages after the first, [S - 1, B, C, H, W]."""
    return empty((stages - 1, *x.shape), (x.numel(), *x.stride()), x, x.dtype)


def _like(x: Tensor) -> Tensor:
    return empty(x.shape, x.stride(), x, x.dtype)


def _operations(x: Tensor, values: Sequence[Tensor], s: Settings) -> list[Operation]:
    """The operations, with patterns as images [B, S, H, W]."""
    remaining = iter(values)
    found = [
        Operation(*known(name), s.straight_through, next(remaining) if name in RANDOM else None)
        for name in s.operations
    ]
    return [o._replace(values=pattern(o.kind, o.values, *x.shape[2:])) if o.kind in PATTERNS else o for o in found]


def _for_kernels(o: Operation, weights: Tensor) -> Operation:
    """The operation as kernels take it: patterns are one kind, and a blur has a deviation for each sample and stage."""
    if o.kind in PATTERNS:
        return o._replace(kind="pattern")
    if o.kind == "gaussian_blur" and o.values is None:
        return o._replace(values=weights.new_full(weights.shape[:2], o.strength))
    return o


def _run(
    direction: str, x: Tensor, weights: Tensor, operations: Sequence[Operation], backend: str, **tensors: Tensor | None
) -> None:
    """Runs the extension's kernel of a direction, "forward" or "backward"."""
    compiled, operations = backends.extension(), [_for_kernels(o, weights) for o in operations]
    batch, channels, height, width = x.shape
    ops = [
        compiled.DegradationOp(
            kind=getattr(compiled.Degradation, o.kind), strength=o.strength, straight_through=o.straight_through,
            values=address(o.values),
        )
        for o in operations
    ]  # fmt: skip
    call = getattr(compiled, f"Degradation{direction.title()}")(
        dtype=compiled_dtype(x.dtype), batch=batch, channels=channels, height=height, width=width,
        stages=weights.shape[1], ops=ops, x=x.data_ptr(), weights=weights.data_ptr(),
        **{name: address(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    run_compiled(f"degradation_{direction}", call, x, backend)


def launch_forward(
    x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """The result, and with `keep` the inputs of the stages after the first."""
    x, weights, backend = x.contiguous(), weights.contiguous(), chosen_backend(s, x)
    result, inputs = fake_forward(x, weights, values, s, keep)
    if x.numel() == 0:
        return result, inputs
    operations = _operations(x, values, s)
    if backend == "torch":
        found, (_, *read) = reference.mixture(x, weights, operations)
        for one, other in zip(read, () if inputs is None else inputs, strict=False):
            other.copy_(one)
        return result.copy_(found), inputs
    if backend == "triton":
        from deal_kernels.degradation import triton

        triton.forward(x, weights, operations, result, inputs)
        return result, inputs
    _run("forward", x, weights, operations, backend, y=result, inputs=inputs)
    return result, inputs


def fake_forward(
    x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, keep: bool
) -> tuple[Tensor, Tensor | None]:
    x = x.contiguous()
    return _like(x), _inputs_like(x, weights.shape[1]) if keep else None


def launch_backward(
    grad: Tensor, inputs: Tensor, x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings,
    wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x and of weights as far as they are wanted."""
    x, weights, grad, backend = x.contiguous(), weights.contiguous(), grad.contiguous(), chosen_backend(s, x)
    grads = [_like(x) if wanted[0] else None, torch.zeros_like(weights) if wanted[1] else None]
    if x.numel() == 0:
        return grads
    operations = _operations(x, values, s)
    if backend == "torch":
        found = reference.gradients(grad, [x, *inputs], weights, operations)
        for result, each in zip(grads, found, strict=True):
            if result is not None:
                result.copy_(each)
    elif backend == "triton":
        from deal_kernels.degradation import triton

        triton.backward(grad, inputs, x, weights, operations, *grads)
    else:
        _run(
            "backward", x, weights, operations, backend, inputs=inputs, grad=grad, grad_x=grads[0],
            grad_weights=grads[1],
        )  # fmt: skip
    return grads


def fake_backward(
    grad: Tensor, inputs: Tensor, x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings,
    wanted: Sequence[bool],
) -> list[Tensor | None]:  # fmt: skip
    return wanted_only([_like(x.contiguous()), torch.empty_like(weights.contiguous())], wanted)


_INPUTS = "Tensor x, Tensor weights, Tensor[] values, str[] operations, bool straight_through, str? backend"


def _structured_forward(x, weights, values, operations, straight_through, backend, last):
    return x, weights, values, Settings(operations, straight_through, backend), last


FORWARD = Op(
    f"degradation({_INPUTS}, bool keep) -> (Tensor, Tensor)",
    launch=launch_forward, fake=fake_forward,
    flat=lambda x, weights, values, s, keep: (x, weights, values, *s, keep), structured=_structured_forward,
)  # fmt: skip
BACKWARD = Op(
    f"degradation_backward(Tensor grad, Tensor inputs, {_INPUTS}, bool[2] wanted) -> (Tensor, Tensor)",
    launch=launch_backward, fake=fake_backward,
    flat=lambda grad, inputs, x, weights, values, s, wanted: (grad, inputs, x, weights, values, *s, wanted),
    structured=lambda grad, inputs, *rest: (grad, inputs, *_structured_forward(*rest)),
)  # fmt: skip


class MixtureFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights, s, checkpoint, *values):
        result, inputs = FORWARD(x, x, weights, values, s, not checkpoint)
        ctx.save_for_backward(x, weights, *values, *(() if checkpoint else (inputs,)))
        ctx.arguments = s, checkpoint
        return result

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        s, checkpoint = ctx.arguments
        x, weights, *values = ctx.saved_tensors
        if checkpoint:
            inputs = FORWARD(x, x, weights, values, s, True)[1]
        else:
            *values, inputs = values
        wanted = ctx.needs_input_grad[:2]
        grads = BACKWARD(x, grad, inputs, x, weights, values, s, wanted)
        return *wanted_only(grads, wanted), None, None, *[None] * len(values)


def mixture(x: Tensor, weights: Tensor, values: Sequence[Tensor], s: Settings, checkpoint: bool) -> Tensor:
    """The result, through autograd where a gradient is needed."""
    if needs_gradient(x, weights):
        return MixtureFunction.apply(x, weights, s, checkpoint, *values)
    return FORWARD(x, x, weights, values, s, False)[0]
