"""The operations `deal_kernels::multistate` and `multistate_backward`: launchers, schemas, fake results, autograd."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels._common.derivatives import differentiable_once
from deal_kernels._common.dispatch import Op, address, needs_gradient, wanted_only
from deal_kernels._common.layout import arranged, dense_or_grouped, empty, group_of, strides_like
from deal_kernels._common.parameters import by_neuron, period, reduced
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.multistate import neuron as neurons
from deal_kernels.multistate import reference
from deal_kernels.multistate.neuron import MOST_PARAMETERS, MOST_STATES, STATES
from deal_kernels.multistate.reference import Inputs

Optional = Tensor | None
WANTED = MOST_STATES + MOST_PARAMETERS


def result_like(i: Inputs, output: str) -> Tensor:
    """An empty result for a dense x: spikes, or the states v."""
    dtype = i.x.dtype if output == "spikes" else STATE[i.x.dtype]
    return empty(i.x.shape, strides_like(i.x), i.x, dtype)


def state_like(i: Inputs) -> Tensor:
    step = i.step()
    return empty(step.shape, step.stride(), i.x, STATE[i.x.dtype])


def padded(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    return *values, *[None] * (count - len(values))


def _prepared(i: Inputs) -> Inputs:
    """Inputs a kernel can walk: dense, states and parameters in the layout of x."""
    i = _with_dense_input(i)
    step = i.step()
    return i._replace(
        states=tuple(None if state is None else arranged(state, step.stride()) for state in i.states),
        parameters=tuple(by_neuron(p, step) for p in i.parameters),
    )


def _with_dense_input(i: Inputs) -> Inputs:
    """Inputs whose x a kernel can walk."""
    return i._replace(x=dense_or_grouped(i.x))


def call_inputs(i: Inputs, output: str) -> dict[str, Any]:
    """The fields that MultistateForward and MultistateBackward share."""
    step = i.step()
    fields = neurons.compiled(i.neuron, learnt_decay=i.parameters[1] is not None) | {
        "dtype": compiled_dtype(i.x.dtype), "output": _compiled_output(output), "steps": i.x.shape[0],
        "neurons": step.numel(), "group": group_of(i.x), "time_stride": i.x.stride(0), "x": i.x.data_ptr(),
    }  # fmt: skip
    for k, state in enumerate(i.states):
        fields[f"start_{k}"] = address(state)
    for k, p in enumerate(i.parameters):
        if p is not None:
            channels, inner = period(p, step)
            fields |= {f"parameter_{k}": p.data_ptr(), f"channels_{k}": channels, f"inner_{k}": inner}
    return fields


@functools.cache
def _compiled_output(output: str) -> Any:
    return getattr(backends.extension().Output, output)


def launch_forward(i: Inputs, output: str, state: bool, backend: str | None) -> list[Optional]:
    """The result, and the final states if wanted."""
    i = _prepared(i)
    backend = dispatch.chosen_backend(backend, i.x)
    out = result_like(i, output)
    last = [state_like(i) if state else None for _ in i.states]
    if i.x.numel() == 0:
        pass
    elif backend == "torch":
        moments = reference.run(i).moments
        out.copy_(torch.stack([now.s if output == "spikes" else now.left[0] for now in moments]))
        for result, left in zip(last, moments[-1].left, strict=True):
            if result is not None:
                result.copy_(left)
    elif backend == "triton":
        from deal_kernels.multistate import triton

        triton.forward(i, output, out, last)
    else:
        states = {f"state_{k}": address(result) for k, result in enumerate(last)}
        call = backends.extension().MultistateForward(**call_inputs(i, output), out=out.data_ptr(), **states)
        dispatch.run_compiled("multistate_forward", call, i.x, backend)
    return [out, *padded(last, MOST_STATES)]


def launch_backward(
    i: Inputs, grad: Tensor, grad_states: Sequence[Optional], output: str, wanted: Sequence[bool], backend: str | None
) -> list[Optional]:
    """Gradients of x, and of the initial states and the parameters as far as they are wanted."""
    given, i = i.parameters, _prepared(i)
    step = i.step()
    backend = dispatch.chosen_backend(backend, i.x) if i.neuron.cell.has_kernels() else "torch"
    grad_x = result_like(i, "spikes")
    results = [state_like(i) if each else None for each in wanted]
    starts, shares = results[: len(i.states)], results[MOST_STATES : MOST_STATES + len(given)]
    grad = arranged(grad, strides_like(i.x))
    grad_states = [None if each is None else arranged(each, step.stride()) for each in grad_states[: len(i.states)]]
    if i.x.numel() == 0:
        pass
    elif backend == "torch":
        found_x, found_starts, found_shares = reference.backward(i, grad, grad_states, output)
        grad_x.copy_(found_x)
        for result, value in zip([*starts, *shares], [*found_starts, *found_shares], strict=True):
            if result is not None:
                result.copy_(value)
    elif backend == "triton":
        from deal_kernels.multistate import triton

        triton.backward(i, grad, grad_states, output, grad_x, starts, shares)
    else:
        fields = {f"grad_state_{k}": address(each) for k, each in enumerate(grad_states)}
        fields |= {f"grad_start_{k}": address(each) for k, each in enumerate(starts)}
        fields |= {f"grad_parameter_{k}": address(each) for k, each in enumerate(shares)}
        call = backends.extension().MultistateBackward(
            **call_inputs(i, output), grad=grad.data_ptr(), grad_x=grad_x.data_ptr(), **fields
        )
        dispatch.run_compiled("multistate_backward", call, i.x, backend)
    sums = [reduced(share, p) for share, p in zip(shares, given, strict=True)]
    return [grad_x, *padded(starts, MOST_STATES), *padded(sums, MOST_PARAMETERS)]


def fake_forward(i: Inputs, output: str, state: bool, backend: str | None) -> list[Optional]:
    i = _with_dense_input(i)
    return [result_like(i, output), *padded([state_like(i) if state else None for _ in i.states], MOST_STATES)]


def fake_backward(
    i: Inputs, grad: Tensor, grad_states: Sequence[Optional], output: str, wanted: Sequence[bool], backend: str | None
) -> list[Optional]:
    i = _with_dense_input(i)
    starts = [state_like(i) for _ in range(MOST_STATES)]
    grads = [None if p is None else torch.empty_like(p) for p in padded(i.parameters, MOST_PARAMETERS)]
    return [result_like(i, "spikes"), *wanted_only([*starts, *grads], wanted)]


def _tensors(i: Inputs) -> tuple[Optional, ...]:
    return *padded(i.states, MOST_STATES), *padded(i.parameters, MOST_PARAMETERS)


def _inputs(neuron: neurons.Multistate, x: Tensor, *tensors: Optional) -> Inputs:
    states, parameters = len(STATES[neuron.model]), 2 + len(neuron.numbers)
    return Inputs(neuron, x, tensors[:states], tensors[MOST_STATES : MOST_STATES + parameters])


def _flat_forward(i: Inputs, *options: Any) -> tuple[Any, ...]:
    return i.x, *_tensors(i), *neurons.flat(i.neuron), *options


def _structured_forward(x: Tensor, *rest: Any) -> tuple[Any, ...]:
    tensors, rest = rest[:WANTED], rest[WANTED:]
    return _inputs(neurons.structured(rest[: neurons.WIDTH]), x, *tensors), *rest[neurons.WIDTH :]


def _flat_backward(i: Inputs, grad: Tensor, grad_states: Sequence[Optional], *options: Any) -> tuple[Any, ...]:
    return grad, *padded(grad_states, MOST_STATES), *_flat_forward(i, *options)


def _structured_backward(grad: Tensor, *rest: Any) -> tuple[Any, ...]:
    i, *options = _structured_forward(*rest[MOST_STATES:])
    return i, grad, rest[:MOST_STATES], *options


def _schema(name: str, count: int) -> str:
    return ", ".join(f"Tensor? {name}_{k}" for k in range(count))


_INPUTS = f"Tensor x, {_schema('start', MOST_STATES)}, {_schema('parameter', MOST_PARAMETERS)}, {neurons.SCHEMA}"

FORWARD = Op(
    f"multistate({_INPUTS}, str output, bool state, str? backend) -> (Tensor, Tensor, Tensor, Tensor)",
    launch=launch_forward, fake=fake_forward, flat=_flat_forward, structured=_structured_forward,
)  # fmt: skip
BACKWARD = Op(
    f"multistate_backward(Tensor grad, {_schema('grad_state', MOST_STATES)}, {_INPUTS}, str output, "
    f"bool[{WANTED}] wanted, str? backend) -> ({', '.join(['Tensor'] * (1 + WANTED))})",
    launch=launch_backward, fake=fake_backward, flat=_flat_backward, structured=_structured_backward,
)  # fmt: skip


class MultistateFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, neuron, output, state, backend, x, *tensors):
        ctx.save_for_backward(x, *tensors)
        ctx.arguments = neuron, output, state, backend
        ctx.set_materialize_grads(False)
        return tuple(run_forward(_inputs(neuron, x, *tensors), output, state, backend))

    @staticmethod
    @differentiable_once
    def backward(ctx, grad, *grad_states):
        x, *tensors = ctx.saved_tensors
        neuron, output, state, backend = ctx.arguments
        i = _inputs(neuron, x, *tensors)
        if grad is None:
            grad = torch.zeros_like(result_like(_with_dense_input(i), output))
        wanted = ctx.needs_input_grad[5:]
        grad_states = padded(grad_states[: len(i.states)] if state else (), MOST_STATES)
        arguments = i, grad, grad_states, output, wanted, backend
        grad_x, *grads = BACKWARD(x, *arguments) if neuron.cell.has_kernels() else launch_backward(*arguments)
        return *[None] * 4, grad_x, *wanted_only(grads, wanted)


def run_forward(i: Inputs, output: str, state: bool, backend: str | None) -> Sequence[Optional]:
    """The operation without autograd."""
    if i.neuron.cell.has_kernels():
        found: Sequence[Optional] = FORWARD(i.x, i, output, state, backend)
        return found
    # A surrogate that is a function fits no schema: no dispatcher, and a tensor in every place for torch.compile.
    named = "torch" if torch.compiler.is_compiling() else backend
    return [i.x.new_empty(0) if each is None else each for each in launch_forward(i, output, state, named)]


def multistate(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The operation, through autograd where a gradient is needed: the result and the final states."""
    tensors = _tensors(i)
    if needs_gradient(i.x, *tensors):
        result, *last = MultistateFunction.apply(i.neuron, output, state, backend, i.x, *tensors)
    else:
        result, *last = run_forward(i, output, state, backend)
    return result, tuple(last[: len(i.states)])
