"""The operations `deal_kernels::lif` and `lif_backward`: schemas, fake kernels, autograd, launchers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.layout import arranged, dense, empty, in_memory_order
from deal_kernels.lif import reference
from deal_kernels.lif.reference import STATE, Inputs, Neuron, Norm

SMALL = 1 << 16  # elements of a result that torch may as well allocate
# The numbers of csrc/lif.h.
OUTPUTS = {"spikes": 0, "mean": 1, "packed": 2}
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}

NEURON = (
    "str charge, float decay, float v_threshold, str reset, float rest, bool detach_reset, "
    "str surrogate, float alpha, str fire, int levels"
)
_FIELDS = len(Neuron._fields)

library = torch.library.Library("deal_kernels", "FRAGMENT")
library.define(
    f"lif(Tensor x, Tensor? v0, Tensor? decay_tensor, Tensor? threshold_tensor, {NEURON}, "
    "str output, SymInt? steps, bool state, str? backend) -> (Tensor, Tensor)"
)
library.define(
    f"lif_backward(Tensor grad, Tensor? grad_v, Tensor x, Tensor? v0, Tensor? decay_tensor, "
    f"Tensor? threshold_tensor, {NEURON}, str output, SymInt? steps, bool[3] wanted, str? backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def result_layout(i: Inputs, output: str) -> tuple[tuple[int, ...], tuple[int, ...], torch.dtype]:
    """Shape, strides and dtype of the result for dense inputs."""
    row = i.row
    if output == "packed":
        width = (row.numel() + 7) // 8
        return (i.length, width), (width, 1), torch.uint8
    if output == "mean":
        return tuple(row.shape), row.stride(), i.x.dtype
    return (i.length, *row.shape), (row.numel(), *row.stride()), i.x.dtype


def spikes_like(i: Inputs, output: str) -> Tensor:
    """An empty result for dense inputs."""
    if output == "spikes" and i.steps is None and i.x.is_contiguous() and i.x.numel() < SMALL:
        return torch.empty_like(i.x)
    shape, strides, dtype = result_layout(i, output)
    return empty(shape, strides, i.x, dtype)


def state_like(i: Inputs) -> Tensor:
    return empty(i.row.shape, i.row.stride(), i.x, STATE[i.x.dtype])


def nothing(i: Inputs) -> Tensor:
    """Stands for a result that is not wanted where the schema needs a tensor."""
    return i.x.new_empty(0, dtype=STATE[i.x.dtype])


def compiled(n: Neuron) -> Any:
    """The neuron as the compiled kernels take it, made once for each Neuron object."""
    try:
        return n.compiled  # type: ignore[attr-defined]
    except AttributeError:
        fire = 2 if n.levels > 1 else reference.FIRES.index(n.fire)
        n.compiled = backends.extension().Neuron(  # type: ignore[attr-defined]
            reference.CHARGES.index(n.charge), fire, reference.RESETS.index(n.reset),
            reference.SURROGATES.index(n.surrogate), n.detach_reset, n.multiplies, n.decay, n.threshold, n.rest,
            n.alpha, n.levels,
        )  # fmt: skip
        return n.compiled  # type: ignore[attr-defined]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _arguments(i: Inputs, output: str) -> tuple[Any, ...]:
    """What every compiled kernel takes first; csrc/bindings/lif.h names it."""
    n, x, v0, decay, threshold, steps, _ = i
    if steps is None:
        steps = x.shape[0]
        neurons = x.numel() // steps
        stride = neurons if x.is_contiguous() else x.stride(0)
    else:
        neurons, stride = x.numel(), 0
    parameters = (0, 1, 0, 1, 1) if decay is None and threshold is None else _parameters(i)
    v0_address = 0 if v0 is None else v0.data_ptr()
    kind = compiled(n), DTYPES[x.dtype], OUTPUTS[output]
    norm = None if i.norm is None else _norm(i.norm, i.row)
    return *kind, steps, neurons, stride, x.data_ptr(), v0_address, *parameters, norm


def _parameters(i: Inputs) -> tuple[int, ...]:
    decays = 1 if i.decay is None else i.decay.numel()
    thresholds = 1 if i.threshold is None else i.threshold.numel()
    inner = inner_of(i.row) if decays > 1 or thresholds > 1 else 1
    return _address(i.decay), decays, _address(i.threshold), thresholds, inner


def inner_of(row: Tensor) -> int:
    """Neurons of a dense row [B, C, ...] that lie side by side in one channel."""
    return row.stride(1) if row.shape[1] > 1 else row.numel()


def _norm(norm: Norm, row: Tensor) -> Any:
    mean, scale, shift, shortcut = norm
    addresses = mean.data_ptr(), scale.data_ptr(), shift.data_ptr()
    return backends.extension().Norm(*addresses, mean.numel(), inner_of(row), _address(shortcut))


def place(x: Tensor, backend: str) -> tuple[int, ...]:
    """What a compiled kernel takes last: the threads, or the device and stream, to run on."""
    if backend == "cpp":
        return (torch.get_num_threads(),)
    return x.device.index, torch.cuda.current_stream(x.device).cuda_stream


def _prepared(i: Inputs) -> Inputs:
    """Inputs a kernel can walk: dense, the state in the layout of a step."""
    if i.v0 is None and i.norm is None and i.x.is_contiguous():
        return i
    i = i._replace(x=dense(i.x, time=i.steps is None))
    norm = i.norm
    if norm is not None and norm.shortcut is not None:
        if i.steps is None and i.x.stride(0) == 0:
            i = i._replace(x=i.x.contiguous())  # to a kernel a stride of 0 says that the shortcut has one step too
        strides = result_layout(i, "spikes" if i.steps is None else "mean")[1]
        i = i._replace(norm=norm._replace(shortcut=arranged(norm.shortcut, strides)))
    return i._replace(v0=None if i.v0 is None else arranged(i.v0, i.row.stride()))


def chosen(backend: str | None, x: Tensor) -> str:
    return backends.choose(backend, "cpu" if x.is_cpu else x.device.type, x.dtype)


def forward(
    i: Inputs, output: str, state: bool, backend: str | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The result, and the final state if wanted."""
    i = _prepared(i)
    backend = chosen(backend, i.x)
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
        kernels = backends.extension()
        run = kernels.lif_forward if backend == "cpp" else kernels.cuda_lif_forward
        run(*_arguments(i, output), spikes.data_ptr(), 0 if v is None else v.data_ptr(), *place(i.x, backend))
    return spikes, v


def _reference_forward(i: Inputs, output: str, out: Tensor, v_out: Tensor | None) -> None:
    spikes, v = reference.forward(i)
    if v_out is not None:
        v_out.copy_(v)
    if output == "mean":
        out.copy_(reference.mean(spikes))
    elif output == "packed":
        out.copy_(reference.pack(in_memory_order(spikes, i.row.stride())))
    else:
        out.copy_(spikes)


Gradients = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> Gradients:
    """Gradients of x, and of v0, decay and threshold as far as they are wanted.

    With a norm the first is that of the normalised x, and its sums by channel come last, [2, C].
    """
    i = _prepared(i)
    backend = chosen(backend, i.x)
    grad_x = spikes_like(i, "mean" if i.steps is not None else "spikes")
    grad_v0, grad_decay, grad_threshold = (state_like(i) if each else None for each in wanted)
    sums = None if i.norm is None else _sums_like(i, backend)
    results = grad_x, grad_v0, grad_decay, grad_threshold, sums
    grad = arranged(grad, result_layout(i, output)[1])
    grad_v = None if grad_v is None else arranged(grad_v, i.row.stride())
    if i.x.numel() == 0:
        sums = None if sums is None else sums.zero_()
    elif backend == "torch":
        _reference_backward(i, grad, grad_v, output, results)
    elif backend == "triton":
        from deal_kernels.lif import triton

        triton.backward(i, grad, grad_v, output, *results)
    else:
        arguments = (
            *_arguments(i, output),
            i.steps is not None,
            grad.data_ptr(),
            _address(grad_v),
            *map(_address, results),
        )
        kernels = backends.extension()
        if backend == "cpp":
            kernels.lif_backward(*arguments, *place(i.x, backend))
        else:
            starts = _segment_starts(i, kernels.lif_segment)
            kernels.cuda_lif_backward(*arguments, _address(starts), *place(i.x, backend))
    if sums is not None and sums.dim() > 2:
        sums = sums.sum([axis for axis in range(sums.dim()) if axis not in (0, 2)])
    return grad_x, grad_v0, _reduced(grad_decay, i.decay), _reduced(grad_threshold, i.threshold), sums


def _sums_like(i: Inputs, backend: str) -> Tensor:
    """Room for the sums of the normalised input's gradient: a GPU leaves each neuron's own share, [2, B, C, ...]."""
    row = i.row
    if backend in ("cuda", "triton"):
        strides = row.numel(), *row.stride()
        return torch.empty_strided((2, *row.shape), strides, dtype=STATE[row.dtype], device=row.device)
    return row.new_empty((2, row.shape[1]), dtype=STATE[row.dtype])


def _segment_starts(i: Inputs, segment: int) -> Tensor | None:
    """Room for the state at the start of every segment, where the steps are more than one segment."""
    if i.length <= segment:
        return None
    return i.x.new_empty((i.length + segment - 1) // segment, i.row.numel(), dtype=torch.float32)


def _reference_backward(i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, results: Gradients) -> None:
    if output == "mean":
        share = grad.to(STATE[grad.dtype])
        grad = (share / torch.full_like(share, i.length)).expand(i.length, *grad.shape)
    *gradients, sums = results
    for result, value in zip(gradients, reference.backward(i, grad, grad_v), strict=True):
        if result is not None:
            result.copy_(value)
    if i.norm is not None and sums is not None:
        sums.copy_(reference.gradient_sums(results[0], i.x, i.norm.mean, axis=1 if i.steps is not None else 2))


def _reduced(shares: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    """The sum of the neurons' shares [B, C, ...] of a parameter's gradient, in its shape."""
    if shares is None or parameter is None:
        return None
    if parameter.numel() == 1:
        return shares.sum().reshape(parameter.shape)
    return shares.sum([axis for axis in range(shares.dim()) if axis != 1])


def fake_forward(i: Inputs, output: str, state: bool) -> tuple[Tensor, Tensor]:
    i = i._replace(x=dense(i.x, time=i.steps is None))
    return spikes_like(i, output), state_like(i) if state else nothing(i)


def fake_backward(i: Inputs, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    i = i._replace(x=dense(i.x, time=i.steps is None))
    grad_x = spikes_like(i, "mean" if i.steps is not None else "spikes")
    grad_v0 = state_like(i) if wanted[0] else nothing(i)
    parameters = zip((i.decay, i.threshold), wanted[1:], strict=True)
    return grad_x, grad_v0, *(torch.empty_like(p) if p is not None and each else nothing(i) for p, each in parameters)


def _unflatten(x, v0, decay, threshold, *rest):
    """The schema's arguments as Inputs, and what follows the neuron."""
    fields = len(Neuron._fields)
    output, steps, *others = rest[fields:]
    return Inputs(Neuron(*rest[:fields]), x, v0, decay, threshold, steps), output, *others


def _run_forward(*arguments):
    i, output, state, backend = _unflatten(*arguments)
    spikes, v = forward(i, output, state, backend)
    return spikes, nothing(i) if v is None else v


def _run_backward(grad, grad_v, *arguments):
    i, output, wanted, backend = _unflatten(*arguments)
    grads = backward(i, grad, grad_v, output, wanted, backend)
    return tuple(nothing(i) if g is None else g for g in grads[:4])


library.impl("lif", _run_forward, "CompositeExplicitAutograd")
library.impl("lif_backward", _run_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("deal_kernels::lif", lib=library)
def _(*arguments):
    i, output, state, _ = _unflatten(*arguments)
    return fake_forward(i, output, state)


@torch.library.register_fake("deal_kernels::lif_backward", lib=library)
def _(grad, grad_v, *arguments):
    i, _, wanted, _ = _unflatten(*arguments)
    return fake_backward(i, wanted)


_lif = torch.ops.deal_kernels.lif.default
_lif_backward = torch.ops.deal_kernels.lif_backward.default
# Where this private counter is missing every call takes the dispatcher, which is slower and as right.
_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)


def unobserved(x: Tensor) -> bool:
    """Whether nothing traces, fakes or intercepts: the dispatcher would only cost time."""
    return type(x) is Tensor and not torch.compiler.is_compiling() and not _modes()


def _forward(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    if unobserved(i.x):
        return forward(i, output, state, backend)
    return _lif(i.x, i.v0, i.decay, i.threshold, *i.neuron, output, i.steps, state, backend)


@functools.cache
def _cpp_spikes(backend: str | None, dtype: torch.dtype) -> Any:
    """The compiled function for plain spikes on a CPU and its number for the dtype; None where it does not serve."""
    if dtype not in DTYPES or backends.choose(backend, "cpu", dtype) != "cpp":
        return None
    return backends.extension().lif_spikes, DTYPES[dtype]


def spikes_at_once(n: Neuron, x: Tensor, backend: str | None) -> Tensor | None:
    """Plain spikes of a plain CPU tensor without gradient, not compiling; None for any other call, x not yet checked.

    The commonest call, written out: on a small layer what `forward` does in general costs more than the kernel.
    """
    if type(x) is not Tensor or _modes() or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
        return None
    found, shape = _cpp_spikes(backend, x.dtype), x.shape
    elements = shape.numel()
    if found is None or elements == 0 or not shape or not x.is_contiguous():
        return None
    spikes = torch.empty_like(x) if elements < SMALL else empty(shape, x.stride(), x, x.dtype)
    run, dtype = found
    steps = shape[0]
    threads = 1 if elements < SMALL else torch.get_num_threads()
    run(compiled(n), dtype, steps, elements // steps, x.data_ptr(), spikes.data_ptr(), threads)
    return spikes


class LIFFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, v0, decay, threshold, neuron, output, steps, state, backend):
        ctx.save_for_backward(x, v0, decay, threshold)
        ctx.arguments = neuron, output, steps, state, backend
        ctx.set_materialize_grads(False)
        return _forward(Inputs(neuron, x, v0, decay, threshold, steps), output, state, backend)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, grad_v):
        x, v0, decay, threshold = ctx.saved_tensors
        neuron, output, steps, state, backend = ctx.arguments
        i = Inputs(neuron, x, v0, decay, threshold, steps)
        if grad is None:
            grad = torch.zeros_like(spikes_like(i, output))
        grad_v = grad_v if state else None
        wanted = ctx.needs_input_grad[1:4]
        if unobserved(x):
            grads = backward(i, grad, grad_v, output, wanted, backend)[:4]
        else:
            grads = _lif_backward(grad, grad_v, x, v0, decay, threshold, *neuron, output, steps, wanted, backend)
            grads = (grads[0], *(g if each else None for g, each in zip(grads[1:], wanted, strict=True)))
        return *grads, *[None] * 5


def needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def lif(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The operation, through autograd where a gradient is needed."""
    n, x, v0, decay, threshold, steps, _ = i
    if needs_gradient(x, v0, decay, threshold):
        return LIFFunction.apply(x, v0, decay, threshold, n, output, steps, state, backend)
    return _forward(i, output, state, backend)
