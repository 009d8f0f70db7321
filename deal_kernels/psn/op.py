"""The operations `deal_kernels::psn` and `psn_backward`: launchers, schemas, fake results, autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels import surrogate as surrogates
from deal_kernels._common.derivatives import differentiable_once
from deal_kernels._common.dispatch import Op, address, chosen_backend, needs_gradient, run_compiled, wanted_only
from deal_kernels._common.layout import arranged, dense, dense_or_grouped, empty, group_of, strides_like
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.psn import reference
from deal_kernels.psn.reference import Inputs
from deal_kernels.surrogate import Surrogate

Wanted = tuple[bool, bool, bool]  # the gradients of x, weight and bias
Gradients = list[Tensor | None]


def _like(i: Inputs, steps: int, dtype: torch.dtype) -> Tensor:
    """An empty tensor of so many steps in the layout of a dense x."""
    return empty((steps, *i.x.shape[1:]), strides_like(i.x), i.x, dtype)


def _prepared(i: Inputs) -> Inputs:
    if i.x.is_contiguous() and i.weight.is_contiguous() and i.bias.is_contiguous():
        return i
    return _with_dense_input(i)._replace(weight=i.weight.contiguous(), bias=i.bias.contiguous())


def _with_dense_input(i: Inputs) -> Inputs:
    """Inputs whose x a kernel can walk. Steps without an output are not in groups."""
    return i._replace(x=dense(i.x, time=True) if i.skipped else dense_or_grouped(i.x))


def call_inputs(i: Inputs) -> dict[str, Any]:
    """The fields that PsnForward and PsnBackward share."""
    x = i.x
    steps = x.shape[0]
    return {
        "dtype": compiled_dtype(x.dtype), "steps": steps, "neurons": x.numel() // steps, "group": group_of(x),
        "time_stride": x.stride(0), "skipped": i.skipped, "band": i.band or 0, "sliding": i.sliding, "x": x.data_ptr(),
        "weight": i.weight.data_ptr(), "bias": i.bias.data_ptr(),
    }  # fmt: skip


def launch_forward(i: Inputs, membranes: bool, backend: str | None) -> Tensor:
    """The spikes, or h in the type that is computed in."""
    i = _prepared(i)
    backend = chosen_backend(backend, i.x)
    out = _result_like(i, membranes)
    if out.numel() == 0:
        return out
    if backend == "torch":
        h = reference.membranes(i)
        return out.copy_((h if membranes else h >= 0).view(out.shape))
    if backend == "triton":
        from deal_kernels.psn import triton

        triton.forward(i, membranes, out)
    else:
        call = backends.extension().PsnForward(**call_inputs(i), membranes=membranes, out=out.data_ptr())
        run_compiled("psn_forward", call, i.x, backend)
    return out


def launch_backward(i: Inputs, grad: Tensor, surrogate: Surrogate, wanted: Wanted, backend: str | None) -> Gradients:
    """The gradients of x, weight and bias, as far as they are wanted."""
    i = _prepared(i)
    backend = chosen_backend(backend, i.x)
    if i.x.numel() == 0:
        return wanted_only([torch.zeros_like(tensor) for tensor in i[:3]], wanted)
    if backend == "torch":
        return backward_in_torch(i, grad, surrogate, reference.membranes(i), wanted)
    grad = arranged(grad, strides_like(i.x))
    grad_x = _like(i, i.x.shape[0], i.x.dtype) if wanted[0] else None
    if backend == "cpp":
        grad_weight = torch.empty_like(i.weight) if wanted[1] else None
        grad_bias = torch.empty_like(i.bias) if wanted[2] else None
        _run_backward(i, grad, surrogate, backend, grad_x, grad_weight=grad_weight, grad_bias=grad_bias)
        return [grad_x, grad_weight, grad_bias]
    grad_h = _like(i, i.outputs, STATE[i.x.dtype])
    if backend == "triton":
        from deal_kernels.psn import triton

        triton.backward(i, grad, surrogate, grad_h, grad_x)
    else:
        _run_backward(i, grad, surrogate, backend, grad_x, grad_h=grad_h)
    if not any(wanted[1:]):
        return [grad_x, None, None]
    _, grad_weight, grad_bias = reference.gradients(i, grad_h.reshape(i.outputs, -1), (False, wanted[1]))
    return [grad_x, grad_weight, grad_bias if wanted[2] else None]


def _run_backward(
    i: Inputs, grad: Tensor, surrogate: Surrogate, backend: str, grad_x: Tensor | None, **results: Tensor | None
) -> None:
    c, (alpha, height, outside) = backends.extension(), surrogate.numbers
    call = c.PsnBackward(
        **call_inputs(i), surrogate=getattr(c.Surrogate, surrogate.kind), alpha=alpha, height=height, outside=outside,
        grad=grad.data_ptr(), grad_x=address(grad_x), **{name: address(each) for name, each in results.items()},
    )  # fmt: skip
    run_compiled("psn_backward", call, i.x, backend)


def backward_in_torch(
    i: Inputs, grad: Tensor, surrogate: Callable[[Tensor], Tensor], h: Tensor, wanted: Wanted
) -> Gradients:
    """The same in torch, from h."""
    grad_x, *others = reference.backward(i, grad, surrogate, h, wanted[:2])
    if grad_x is not None:
        grad_x = _like(i, i.x.shape[0], i.x.dtype).copy_(grad_x.view(i.x.shape))
    return wanted_only([grad_x, *others], wanted)


def fake_forward(i: Inputs, membranes: bool, backend: str | None) -> Tensor:
    return _result_like(_with_dense_input(i), membranes)


def _result_like(i: Inputs, membranes: bool) -> Tensor:
    """The result for a dense x."""
    return _like(i, i.outputs, STATE[i.x.dtype] if membranes else i.x.dtype)


def fake_backward(i: Inputs, grad: Tensor, surrogate: Surrogate, wanted: Wanted, backend: str | None) -> Gradients:
    i = _with_dense_input(i)
    parameters = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in i[1:3]]
    return wanted_only([_like(i, i.x.shape[0], i.x.dtype), *parameters], wanted)


def _flat_backward(
    i: Inputs, grad: Tensor, surrogate: Surrogate, wanted: Wanted, backend: str | None
) -> tuple[Any, ...]:  # fmt: skip
    return grad, *i, surrogate.kind, *surrogate.numbers, wanted, backend


def _structured_backward(grad, x, weight, bias, band, skipped, kind, alpha, height, outside, wanted, backend):
    surrogate = surrogates.of_numbers(kind, (alpha, height, outside))
    return Inputs(x, weight, bias, band, skipped), grad, surrogate, wanted, backend


_INPUTS = "Tensor x, Tensor weight, Tensor bias, SymInt? band, SymInt skipped"

FORWARD = Op(
    f"psn({_INPUTS}, bool membranes, str? backend) -> Tensor", launch=launch_forward, fake=fake_forward,
    flat=lambda i, membranes, backend: (*i, membranes, backend),
    structured=lambda *given: (Inputs(*given[:5]), *given[5:]),
)  # fmt: skip
BACKWARD = Op(
    f"psn_backward(Tensor grad, {_INPUTS}, str surrogate, float alpha, float height, float outside, bool[3] wanted, "
    "str? backend) -> (Tensor, Tensor, Tensor)",
    launch=launch_backward, fake=fake_backward, flat=_flat_backward, structured=_structured_backward,
)  # fmt: skip


class PSNFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, band, skipped, surrogate, backend):
        ctx.save_for_backward(x, weight, bias)
        ctx.arguments = band, skipped, surrogate, backend
        return FORWARD(x, Inputs(x, weight, bias, band, skipped), False, backend)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad):
        band, skipped, surrogate, backend = ctx.arguments
        i, wanted = Inputs(*ctx.saved_tensors, band, skipped), ctx.needs_input_grad[:3]
        if isinstance(surrogate, Surrogate):
            grads = BACKWARD(i.x, i, grad, surrogate, wanted, backend)
        elif i.x.numel() == 0:
            grads = [torch.zeros_like(tensor) for tensor in i[:3]]
        else:
            i = _with_dense_input(i)
            grads = backward_in_torch(i, grad, surrogate, FORWARD(i.x, i, True, backend), wanted)
        return *wanted_only(grads, wanted), None, None, None, None


def psn(i: Inputs, surrogate: Surrogate | Callable[[Tensor], Tensor], backend: str | None) -> Tensor:
    """The operation, through autograd where a gradient is needed."""
    if needs_gradient(*i[:3]):
        return PSNFunction.apply(*i, surrogate, backend)  # type: ignore[no-any-return]
    return FORWARD(i.x, i, False, backend)  # type: ignore[no-any-return]
