"""The operations behind `deal_kernels.tdbn`: launchers, schemas, fake results, autograd.

Batch norm is split where several processes have to meet: moments, then normalise (alone, or as the neuron's input);
in the backward pass the sums of the gradient, then the gradient of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import neuron as neurons
from deal_kernels._common.dispatch import Op, chosen_backend, needs_gradient, run_compiled, wanted_only
from deal_kernels._common.layout import ChannelLayout, arranged, dense, empty
from deal_kernels._common.neuron import Neuron
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.lif import op as lif_op
from deal_kernels.lif.reference import Inputs, Norm
from deal_kernels.tdbn import processes, reference
from deal_kernels.tdbn.processes import Group

Factors = tuple[Tensor, Tensor, Tensor]


class Settings(NamedTuple):
    """How a tensor is normalised."""

    axis: int  # of the channels
    values: int | None  # of a channel in all processes, where the statistics are those of the batch itself
    group: Group
    backend: str | None


def _prepared(x: Tensor, axis: int) -> Tensor:
    return dense(x, time=axis == 2)


def _strides_like(x: Tensor, axis: int) -> tuple[int, ...]:
    """Strides of a result for a dense x, its steps side by side."""
    return x.stride() if axis != 2 else (x.numel() // x.shape[0], *x.stride()[1:])


def _like(x: Tensor, axis: int) -> Tensor:
    return empty(x.shape, _strides_like(x, axis), x, x.dtype)


def _by_channel(x: Tensor, axis: int, *rows: int) -> Tensor:
    """Empty results [*rows, C]."""
    return x.new_empty((*rows, x.shape[axis]), dtype=STATE[x.dtype])


def _run(name: str, backend: str, x: Tensor, axis: int, **tensors: Tensor) -> None:
    """Runs Triton's or the extension's kernel `name`, whose arguments have the names of the tensors."""
    shape = ChannelLayout.of(x, axis)
    if backend == "triton":
        from deal_kernels.tdbn import triton

        return getattr(triton, name)(x, shape, **tensors)
    make = getattr(backends.extension(), "Tdbn" + name.title().replace("_", ""))
    addresses = {field: tensor.data_ptr() for field, tensor in tensors.items()}
    call = make(dtype=compiled_dtype(x.dtype), **shape._asdict(), x=x.data_ptr(), **addresses)
    run_compiled(f"tdbn_{name}", call, x, backend)


def launch_moments(x: Tensor, axis: int, backend: str | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel; zeros where there is no value."""
    x, backend = _prepared(x, axis), chosen_backend(backend, x)
    mean, variance = fake_moments(x, axis, backend)
    if x.numel() == 0:
        return mean.zero_(), variance.zero_()
    if backend == "torch":
        return reference.moments(x, axis)
    _run("moments", backend, x, axis, mean=mean, variance=variance)
    return mean, variance


def fake_moments(x: Tensor, axis: int, backend: str | None) -> tuple[Tensor, Tensor]:
    return _by_channel(x, axis), _by_channel(x, axis)


def launch_normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    x, backend = _prepared(x, axis), chosen_backend(backend, x)
    out = _like(x, axis)
    if backend == "torch" or x.numel() == 0:
        return out.copy_(reference.normalise(x, mean, scale, shift, axis))
    _run("normalise", backend, x, axis, mean=mean, scale=scale, shift=shift, out=out)
    return out


def fake_normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    return _like(_prepared(x, axis), axis)


def launch_gradient_sums(grad: Tensor, x: Tensor, mean: Tensor, axis: int, backend: str | None) -> Tensor:
    """Of each channel, the sums of grad and of grad * (x - mean), [2, C]."""
    x, backend = _prepared(x, axis), chosen_backend(backend, x)
    if backend == "torch" or x.numel() == 0:
        return reference.gradient_sums(grad, x, mean, axis)
    sums = _by_channel(x, axis, 2)
    _run("gradient_sums", backend, x, axis, grad=arranged(grad, _strides_like(x, axis)), mean=mean, sums=sums)
    return sums


def fake_gradient_sums(grad: Tensor, x: Tensor, mean: Tensor, axis: int, backend: str | None) -> Tensor:
    return _by_channel(x, axis, 2)


def launch_gradient(
    grad: Tensor, x: Tensor, mean: Tensor, factors: Factors, axis: int, backend: str | None, reuse: bool = False
) -> Tensor:
    """The gradient of x; with `reuse` in the memory of grad."""
    x, backend = _prepared(x, axis), chosen_backend(backend, x)
    out = grad if reuse else _like(x, axis)
    if backend == "torch" or x.numel() == 0:
        return out.copy_(reference.gradient(grad, x, mean, *factors, axis))
    direct, by_variance, by_mean = factors
    _run(
        "gradient", backend, x, axis, grad=arranged(grad, out.stride()), mean=mean, direct=direct,
        by_variance=by_variance, by_mean=by_mean, out=out,
    )  # fmt: skip
    return out


def fake_gradient(
    grad: Tensor, x: Tensor, mean: Tensor, factors: Factors, axis: int, backend: str | None, reuse: bool = False
) -> Tensor:
    return _like(_prepared(x, axis), axis)


def fake_lif_backward(
    i: Inputs, grad: Tensor, grad_v: Tensor | None, output: str, wanted: Sequence[bool], backend: str | None
) -> list[Tensor | None]:
    sums = _by_channel(i.x, 1 if i.steps is not None else 2, 2)
    return [*lif_op.fake_backward(i, grad, grad_v, output, wanted, backend), sums]


def _as_they_are(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def _flat_gradient(grad, x, mean, factors, axis, backend, reuse=False):
    return grad, x, mean, *factors, axis, backend


def _structured_gradient(grad, x, mean, direct, by_variance, by_mean, axis, backend):
    return grad, x, mean, (direct, by_variance, by_mean), axis, backend


def _flat_lif(i: Inputs, output: str, state: Any, backend: str | None) -> tuple[Any, ...]:
    assert i.norm is not None
    tensors = i.x, *i.norm, i.v0, i.decay, i.threshold
    return *tensors, *neurons.flat(i.neuron), output, i.steps, state, backend


def _structured_lif(x, mean, scale, shift, shortcut, v0, decay, threshold, *rest):
    output, steps, state, backend = rest[neurons.WIDTH :]
    neuron, norm = neurons.structured(rest[: neurons.WIDTH]), Norm(mean, scale, shift, shortcut)
    return Inputs(neuron, x, v0, decay, threshold, steps, norm), output, state, backend


def _flat_lif_backward(i, grad, grad_v, output, wanted, backend):
    return grad, grad_v, *_flat_lif(i, output, wanted, backend)


def _structured_lif_backward(grad, grad_v, *inputs):
    i, output, wanted, backend = _structured_lif(*inputs)
    return i, grad, grad_v, output, wanted, backend


_LIF_INPUTS = (
    "Tensor x, Tensor mean, Tensor scale, Tensor shift, Tensor? shortcut, Tensor? v0, Tensor? decay_tensor, "
    f"Tensor? threshold_tensor, {neurons.SCHEMA}"
)

MOMENTS = Op(
    "tdbn_moments(Tensor x, int axis, str? backend) -> (Tensor, Tensor)",
    launch=launch_moments, fake=fake_moments, flat=_as_they_are, structured=_as_they_are,
)  # fmt: skip
NORMALISE = Op(
    "tdbn_normalise(Tensor x, Tensor mean, Tensor scale, Tensor shift, int axis, str? backend) -> Tensor",
    launch=launch_normalise, fake=fake_normalise, flat=_as_they_are, structured=_as_they_are,
)  # fmt: skip
GRADIENT_SUMS = Op(
    "tdbn_gradient_sums(Tensor grad, Tensor x, Tensor mean, int axis, str? backend) -> Tensor",
    launch=launch_gradient_sums, fake=fake_gradient_sums, flat=_as_they_are, structured=_as_they_are,
)  # fmt: skip
GRADIENT = Op(
    "tdbn_gradient(Tensor grad, Tensor x, Tensor mean, Tensor direct, Tensor by_variance, Tensor by_mean, int axis, "
    "str? backend) -> Tensor",
    launch=launch_gradient, fake=fake_gradient, flat=_flat_gradient, structured=_structured_gradient,
)  # fmt: skip
LIF_FORWARD = Op(
    f"tdbn_lif({_LIF_INPUTS}, str output, SymInt? steps, bool state, str? backend) -> (Tensor, Tensor)",
    launch=lif_op.launch_forward, fake=lif_op.fake_forward, flat=_flat_lif, structured=_structured_lif,
)  # fmt: skip
LIF_BACKWARD = Op(
    f"tdbn_lif_backward(Tensor grad, Tensor? grad_v, {_LIF_INPUTS}, str output, SymInt? steps, bool[3] wanted, "
    "str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    launch=lif_op.launch_backward, fake=fake_lif_backward, flat=_flat_lif_backward,
    structured=_structured_lif_backward,
)  # fmt: skip


def scale_and_shift(weight: Tensor, bias: Tensor | None, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel; `inverse` is one over its standard deviation."""
    return weight * inverse, torch.zeros_like(inverse) if bias is None else bias


def _factors(s: Settings, weight: Tensor, inverse: Tensor, sums: Tensor) -> Factors:
    """The factors of `launch_gradient`, from the sums of the gradient in this process."""
    direct = weight * inverse
    if s.values is None:
        nothing = torch.zeros_like(direct)
        return direct, nothing, nothing
    if processes.many(s.group):
        sums = processes.summed(sums, s.group)
    by_mean, by_variance = sums * (direct * (-1 / s.values))
    return direct, by_variance * (inverse * inverse), by_mean


def _gradients(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, sums: Tensor, reuse: bool
) -> list[Tensor | None]:
    """The gradients of x, weight and bias, from that of the normalised x and its sums."""
    s, wanted = ctx.settings, ctx.needs_input_grad[:3]
    factors = _factors(s, weight, inverse, sums)  # in every process, as they have to meet
    grad_x = GRADIENT(x, grad, x, mean, factors, s.axis, s.backend, reuse) if wanted[0] else None
    return wanted_only([grad_x, sums[1] * inverse, sums[0]], wanted)


class NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inverse, s):
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.settings = s
        return run_norm(x, weight, bias, mean, inverse, s)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, mean, inverse = ctx.saved_tensors
        s = ctx.settings
        sums = GRADIENT_SUMS(x, grad, x, mean, s.axis, s.backend)
        return *_gradients(ctx, grad, x, weight, mean, inverse, sums, reuse=False), None, None, None


class NormLIFFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inverse, shortcut, v0, decay, threshold, s, neuron, output, steps, state):
        ctx.save_for_backward(x, weight, bias, mean, inverse, shortcut, v0, decay, threshold)
        ctx.settings = s
        ctx.arguments = neuron, output, steps, state
        ctx.set_materialize_grads(False)
        norm = Norm(mean, *scale_and_shift(weight, bias, inverse), shortcut)
        return run_lif(Inputs(neuron, x, v0, decay, threshold, steps, norm), output, state, s.backend)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, grad_v):
        x, weight, bias, mean, inverse, shortcut, v0, decay, threshold = ctx.saved_tensors
        neuron, output, steps, state = ctx.arguments
        norm = Norm(mean, *scale_and_shift(weight, bias, inverse), shortcut)
        i = Inputs(neuron, x, v0, decay, threshold, steps, norm)
        if grad is None:
            grad = torch.zeros_like(lif_op.spikes_like(i, output))
        wanted = ctx.needs_input_grad[6:9]
        arguments = i, grad, grad_v if state else None, output, wanted, ctx.settings.backend
        grad_y, *others, sums = (
            LIF_BACKWARD(x, *arguments) if neuron.has_kernels else lif_op.launch_backward(*arguments)
        )
        by_shortcut = ctx.needs_input_grad[5]
        of_norm = _gradients(ctx, grad_y, x, weight, mean, inverse, sums, reuse=not by_shortcut)
        of_neuron = wanted_only(others, wanted)
        return *of_norm, None, None, grad_y if by_shortcut else None, *of_neuron, *[None] * 5


def run_norm(x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, inverse: Tensor, s: Settings) -> Tensor:
    """The normalised x, without autograd."""
    return NORMALISE(x, x, mean, *scale_and_shift(weight, bias, inverse), s.axis, s.backend)


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, inverse: Tensor, s: Settings) -> Tensor:
    """The normalised x, through autograd where a gradient is needed."""
    if needs_gradient(x, weight, bias):
        return NormFunction.apply(x, weight, bias, mean, inverse, s)
    return run_norm(x, weight, bias, mean, inverse, s)


def run_lif(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The neuron of a normalised input, without autograd."""
    if i.neuron.has_kernels:
        return LIF_FORWARD(i.x, i, output, state, backend)
    return lif_op.run_forward(i, output, state, backend)


def lif(
    x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, inverse: Tensor, shortcut: Tensor | None,
    v0: Tensor | None, decay: Tensor | None, threshold: Tensor | None, s: Settings, neuron: Neuron, output: str,
    steps: int | None, state: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The neuron of a normalised input, through autograd where a gradient is needed."""
    if needs_gradient(x, weight, bias, shortcut, v0, decay, threshold):
        tensors = x, weight, bias, mean, inverse, shortcut, v0, decay, threshold
        return NormLIFFunction.apply(*tensors, s, neuron, output, steps, state)
    norm = Norm(mean, *scale_and_shift(weight, bias, inverse), shortcut)
    return run_lif(Inputs(neuron, x, v0, decay, threshold, steps, norm), output, state, s.backend)


def statistics(x: Tensor, axis: int, group: Group, backend: str | None) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and number of values of each channel in all processes, without gradient."""
    count = x.numel() // max(x.shape[axis], 1)
    mean, variance = MOMENTS(x, x, axis, backend)
    if processes.many(group):
        return processes.merged(mean, variance, count, group)
    return mean, variance, count
