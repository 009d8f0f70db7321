"""The operations `deal_kernels::lif` and `lif_backward`: launchers, schemas, fake results, autograd.

With a norm the same launchers serve `deal_kernels.tdbn`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels._common import neuron as neurons
from deal_kernels._common.derivatives import differentiable_gradients, differentiates_gradients
from deal_kernels._common.dispatch import Op, address, needs_gradient, wanted_only
from deal_kernels._common.layout import (
    arranged,
    dense,
    dense_or_grouped,
    empty,
    group_of,
    inner_of,
    is_dense,
    strides_like,
)
from deal_kernels._common.neuron import Neuron
from deal_kernels._common.parameters import by_neuron, period, reduced
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.lif import reference
from deal_kernels.lif.reference import Inputs
from deal_kernels.surrogate import StraightThrough

SMALL = 1 << 16  # elements of a result that torch may as well allocate

Gradients = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def result_layout(i: Inputs, output: str) -> tuple[tuple[int, ...], tuple[int, ...], torch.dtype]:
    """Shape, strides and dtype of the result for dense inputs."""
    dtype = i.x.dtype if output in ("spikes", "mean") else STATE[i.x.dtype]
    if i.steps is None and output not in ("packed", "mean"):
        return tuple(i.x.shape), strides_like(i.x), dtype
    row = i.step()
    if output == "packed":
        width = (row.numel() + 7) // 8
        return (i.length(), width), (width, 1), torch.uint8
    if output == "mean":
        return tuple(row.shape), row.stride(), dtype
    return (i.length(), *row.shape), (row.numel(), *row.stride()), dtype


def spikes_like(i: Inputs, output: str) -> Tensor:
    """An empty result for dense inputs."""
    # The size of another type of tensor may be symbolic, and is not to be compared.
    if output == "spikes" and i.steps is None and type(i.x) is Tensor and i.x.is_contiguous() and i.x.numel() < SMALL:
        return torch.empty_like(i.x)
    shape, strides, dtype = result_layout(i, output)
    return empty(shape, strides, i.x, dtype)


def gradient_like(i: Inputs) -> Tensor:
    """An empty gradient of x for dense inputs."""
    return spikes_like(i, "spikes" if i.steps is None else "mean")


def state_like(i: Inputs) -> Tensor:
    step = i.step()
    return empty(step.shape, step.stride(), i.x, STATE[i.x.dtype])


def chosen_backend(i: Inputs, named: str | None) -> str:
    """The backend of a call. A surrogate that is the caller's function is compiled together with the reference."""
    if not i.neuron.has_kernels() and torch.compiler.is_compiling():
        return "torch"
    return dispatch.chosen_backend(named, i.x)


def with_dense_input(i: Inputs, output: str) -> Inputs:
    """Inputs whose x a kernel can walk."""
    if i.steps is not None:
        return i._replace(x=dense(i.x, time=False))
    return i._replace(x=dense_or_grouped(i.x, multiple=8 if output == "packed" else 1))


def _prepared(i: Inputs, output: str) -> Inputs:
    """Inputs a kernel can walk: dense, the state and the shortcut in the layout of x."""
    if i.v0 is None and i.norm is None and i.decay is None and i.threshold is None and i.x.is_contiguous():
        return i
    i = with_dense_input(i, output)
    if i.v0 is i.norm is i.decay is i.threshold is None:
        return i
    step = i.step()
    i = i._replace(decay=by_neuron(i.decay, step), threshold=by_neuron(i.threshold, step))
    norm = i.norm
    if norm is not None and norm.shortcut is not None:
        if i.steps is None and i.x.stride(0) == 0:
            i = i._replace(x=i.x.contiguous())  # a time stride of 0 would say that the shortcut has one step, too
        strides = result_layout(i, "spikes" if i.steps is None else "mean")[1]
        i = i._replace(norm=norm._replace(shortcut=arranged(norm.shortcut, strides)))
    return i._replace(v0=None if i.v0 is None else arranged(i.v0, step.stride()))


def call_inputs(i: Inputs, output: str) -> dict[str, Any]:
    """The fields that LifForward and LifBackward share."""
    x, steps = i.x, i.steps
    if steps is None:
        steps = x.shape[0]
        count = group = x.numel() // steps
        stride = count
        if not x.is_contiguous():
            stride, group = x.stride(0), group_of(x)
    else:
        count = group = x.numel()
        stride = 0
    fields = {
        "neuron": neurons.compiled(i.neuron, learnt_decay=i.decay is not None), "dtype": compiled_dtype(x.dtype),
        "output": _compiled_output(output), "steps": steps, "neurons": count, "group": group, "time_stride": stride,
        "x": x.data_ptr(), "v0": address(i.v0),
    }  # fmt: skip
    for name, p in (("decay", i.decay), ("threshold", i.threshold)):
        if p is not None:
            channels, inner = period(p, i.step())
            fields |= {name: p.data_ptr(), f"{name}_channels": channels, f"{name}_inner": inner}
    if i.norm is not None:
        mean, scale, shift, shortcut = i.norm
        fields["norm"] = backends.extension().Norm(
            mean=mean.data_ptr(), scale=scale.data_ptr(), shift=shift.data_ptr(), channels=mean.numel(),
            inner=inner_of(i.step()), shortcut=address(shortcut),
        )  # fmt: skip
    return fields


@functools.cache
def _compiled_output(output: str) -> Any:
    return getattr(backends.extension().Output, output)


def launch_forward(
    i: Inputs, output: str, state: bool, backend: str | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The result, and the final state if wanted."""
    i = _prepared(i, output)
    backend = chosen_backend(i, backend)
    spikes = spikes_like(i, output) if out is None else out
    v = state_like(i) if state else None
    if i.x.numel() == 0:
        return spikes, v
    if backend == "torch":
        _reference_forward(i, output, spikes, v)
    elif backend == "triton":
        from deal_kernels.lif import triton

        triton.forward(i, output, spikes, v)
    else:
        fields = call_inputs(i, output)
        call = backends.extension().LifForward(**fields, out=spikes.data_ptr(), v=address(v))
        dispatch.run_compiled("lif_forward", call, i.x, backend)
    return spikes, v


def _reference_forward(i: Inputs, output: str, out: Tensor, v_out: Tensor | None) -> None:
    result, v = reference.forward(i, output)
    out.copy_(result)
    if v_out is not None:
        v_out.copy_(v)


def launch_backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> Gradients:
    """Gradients of x, and of v0, decay and threshold as far as they are wanted.

    With a norm the first is that of the normalised x, and its sums by channel come last, [2, C].
    """
    decay, threshold, i = i.decay, i.threshold, _prepared(i, output)
    backend = chosen_backend(i, backend)
    grad_x = gradient_like(i)
    grad_v0, grad_decay, grad_threshold = (state_like(i) if each else None for each in wanted)
    sums = None if i.norm is None else _sums_like(i, backend)
    results = grad_x, grad_v0, grad_decay, grad_threshold, sums
    grad = arranged(grad, result_layout(i, output)[1])
    grad_v = None if grad_v is None else arranged(grad_v, i.step().stride())
    if i.x.numel() == 0:
        sums = None if sums is None else sums.zero_()
    elif backend == "torch":
        _reference_backward(i, grad, grad_v, output, results)
    elif backend == "triton":
        from deal_kernels.lif import triton

        triton.backward(i, grad, grad_v, output, _given_slopes(i, backend), *results)
    else:
        slopes = _given_slopes(i, backend)
        call = backends.extension().LifBackward(
            **call_inputs(i, output), constant=i.steps is not None, grad=grad.data_ptr(), grad_v=address(grad_v),
            slopes=address(slopes), grad_x=grad_x.data_ptr(), grad_v0=address(grad_v0), grad_decay=address(grad_decay),
            grad_threshold=address(grad_threshold), norm_sums=address(sums),
        )  # fmt: skip
        dispatch.run_compiled("lif_backward", call, i.x, backend)
    if sums is not None and sums.dim() > 2:
        sums = sums.sum([axis for axis in range(sums.dim()) if axis not in (0, 2)])
    return grad_x, grad_v0, reduced(grad_decay, decay), reduced(grad_threshold, threshold), sums


def _given_slopes(i: Inputs, backend: str) -> Tensor | None:
    """The derivative of the spikes at all steps, [T, ...], where the caller's function computes it."""
    if i.neuron.has_kernels():
        return None
    membranes, _ = launch_forward(i, "membranes", False, backend)
    slopes = reference.cell_of(i).spike_slope(membranes)
    return arranged(slopes, membranes.stride())


def _sums_like(i: Inputs, backend: str) -> Tensor:
    """Empty sums of the normalised input's gradient: [2, C], or where a GPU needs it each neuron's own share,
    [2, B, C, ...].
    """
    step, dtype = i.step(), STATE[i.x.dtype]
    if backend == "triton" or (backend == "cuda" and not backends.extension().cuda.sums_by_channel(inner_of(step))):
        strides = step.numel(), *step.stride()
        return torch.empty_strided((2, *step.shape), strides, dtype=dtype, device=i.x.device)
    return i.x.new_empty((2, step.shape[1]), dtype=dtype)


def _reference_backward(i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, results: Gradients) -> None:
    grad = grad.to(STATE[i.x.dtype])
    if output == "mean":
        grad = (grad / torch.full_like(grad, i.length())).expand(i.length(), *grad.shape)
    if output in ("spikes", "mean"):
        output, grad = "spikes", grad * i.neuron.scale
    *gradients, sums = results
    for result, value in zip(gradients, reference.backward(i, grad, grad_v, output), strict=True):
        if result is not None:
            result.copy_(value)
    if i.norm is not None and sums is not None:
        sums.copy_(reference.gradient_sums(results[0], i.x, i.norm.mean, axis=1 if i.steps is not None else 2))


def plain_forward(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    if isinstance(i.length(), torch.SymInt):
        raise NotImplementedError(
            "in plain torch, as for ONNX, every time step is written out, so that their number has to be fixed: export "
            "with a static time axis"
        )
    spikes, v = reference.forward(i, output)
    return spikes, v if state else None


def fake_forward(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    i = with_dense_input(i, output)
    return spikes_like(i, output), state_like(i) if state else None


def fake_backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> list[Tensor | None]:
    i = with_dense_input(i, output)
    grads = [state_like(i), *(None if p is None else torch.empty_like(p) for p in (i.decay, i.threshold))]
    return [gradient_like(i), *wanted_only(grads, wanted)]


def _flat_forward(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Any, ...]:
    return i.x, i.v0, i.decay, i.threshold, *neurons.flat(i.neuron), output, i.steps, state, backend


def _structured_forward(x, v0, decay, threshold, *rest):
    output, steps, state, backend = rest[neurons.WIDTH :]
    neuron = neurons.structured(rest[: neurons.WIDTH])
    return Inputs(neuron, x, v0, decay, threshold, steps), output, state, backend


def _flat_backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> tuple[Any, ...]:
    return grad, grad_v, *_flat_forward(i, output, wanted, backend)  # type: ignore[arg-type]


def _structured_backward(grad, grad_v, *inputs):
    i, output, wanted, backend = _structured_forward(*inputs)
    return i, grad, grad_v, output, wanted, backend


_INPUTS = f"Tensor x, Tensor? v0, Tensor? decay_tensor, Tensor? threshold_tensor, {neurons.SCHEMA}"

FORWARD = Op(
    f"lif({_INPUTS}, str output, SymInt? steps, bool state, str? backend) -> (Tensor, Tensor)",
    launch=launch_forward, fake=fake_forward, flat=_flat_forward, structured=_structured_forward, plain=plain_forward,
)  # fmt: skip
BACKWARD = Op(
    f"lif_backward(Tensor grad, Tensor? grad_v, {_INPUTS}, str output, SymInt? steps, bool[3] wanted, str? backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    launch=lambda *arguments: launch_backward(*arguments)[:4], fake=fake_backward, flat=_flat_backward,
    structured=_structured_backward,
)  # fmt: skip


class LIFFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, v0, decay, threshold, neuron, output, steps, state, backend):
        ctx.save_for_backward(x, v0, decay, threshold)
        ctx.arguments = neuron, output, steps, state, backend
        ctx.set_materialize_grads(False)
        return run_forward(Inputs(neuron, x, v0, decay, threshold, steps), output, state, backend)

    @staticmethod
    def backward(ctx, grad, grad_v):
        neuron, output, steps, state, backend = ctx.arguments
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[:4]
        grads = grad, grad_v if state else None

        def by_kernels():
            return _gradients(Inputs(neuron, *tensors, steps), *grads, output, wanted, backend)

        def plain(*tensors):
            return reference.forward(Inputs(neuron, *tensors, steps), output, differentiable=True)

        if differentiates_gradients(grads):
            return *differentiable_gradients(plain, tensors, grads, wanted, by_kernels), *[None] * 5
        return *by_kernels(), *[None] * 5


def _gradients(
    i: Inputs, grad: Tensor | None, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> list[Tensor | None]:
    """Those of x, v0, decay and threshold, as far as they are wanted."""
    if grad is None:
        grad = torch.zeros_like(spikes_like(i, output))
    arguments = i, grad, grad_v, output, wanted[1:], backend
    found = BACKWARD(i.x, *arguments) if i.neuron.has_kernels() else launch_backward(*arguments)[:4]
    return wanted_only(found, wanted)


def of_schema(i: Inputs) -> Inputs | None:
    """Inputs for the forward operation; None where torch is not to see it as an operation.

    A surrogate that is a function fits no schema. The forward pass does not need it, so that another one takes its
    place where something observes the call; but torch.compile takes it as it is, for the backward pass.
    """
    if i.neuron.has_kernels():
        return i
    if torch.compiler.is_dynamo_compiling() or dispatch.unobserved(i.x):
        return None
    return i._replace(neuron=i.neuron._replace(surrogate=StraightThrough()))


def run_forward(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The operation without autograd."""
    known = of_schema(i)
    return FORWARD(i.x, known, output, state, backend) if known else launch_alone(i, output, state, backend)


def launch_alone(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor]:
    """`launch_forward` with a tensor in every place, for torch.compile."""
    spikes, v = launch_forward(i, output, state, backend)
    return spikes, i.x.new_empty(0) if v is None else v


def lif(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The operation, through autograd where a gradient is needed."""
    n, x, v0, decay, threshold, steps, _ = i
    if dispatch.transformed():
        return reference.forward(i, output, differentiable=True)
    if needs_gradient(x, v0, decay, threshold):
        return LIFFunction.apply(x, v0, decay, threshold, n, output, steps, state, backend)
    return run_forward(i, output, state, backend)


@functools.cache
def _cpp_spikes(backend: str | None, dtype: torch.dtype) -> Any:
    """The compiled function for plain spikes on a CPU and its dtype; None where the call needs more than that."""
    if dtype not in STATE or backends.choose(backend, "cpu", dtype) != "cpp":
        return None
    return backends.extension().cpu.lif_spikes, compiled_dtype(dtype)


def spikes_at_once(n: Neuron, x: Tensor, backend: str | None) -> Tensor | None:
    """Plain spikes of a plain CPU tensor without gradient, not compiling; None for any other call, x not yet checked.

    This is the most frequent call, written out: on a small layer `launch_forward` costs more than the kernel.
    """
    if not dispatch.unobserved(x) or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
        return None
    found, shape = _cpp_spikes(backend, x.dtype), x.shape
    elements = shape.numel()
    if found is None or elements == 0 or not shape:
        return None
    steps = shape[0]
    row = group = elements // steps
    if not x.is_contiguous():
        if not is_dense(shape, x.stride()) or dense_or_grouped(x) is not x:
            return None
        group = group_of(x)
    spikes = torch.empty_like(x) if elements < SMALL else empty(shape, x.stride(), x, x.dtype)
    run, dtype = found
    threads = 1 if elements < SMALL else torch.get_num_threads()
    run(neurons.compiled(n), dtype, steps, row, group, x.data_ptr(), spikes.data_ptr(), threads)
    return spikes
