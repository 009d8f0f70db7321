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
from deal_kernels._common.derivatives import differentiable_gradients, differentiates_gradients
from deal_kernels._common.dispatch import (
    Op,
    as_they_are,
    chosen_backend,
    needs_gradient,
    run_compiled,
    transformed,
    wanted_only,
)
from deal_kernels._common.layout import ChannelLayout, arranged, dense, dense_or_grouped, empty, strides_like
from deal_kernels._common.neuron import Neuron
from deal_kernels._common.types import STATE, compiled_dtype
from deal_kernels.lif import op as lif_op
from deal_kernels.lif import reference as neuron_reference
from deal_kernels.lif.reference import Inputs, Norm
from deal_kernels.tdbn import processes, reference
from deal_kernels.tdbn.channels import FACTORS
from deal_kernels.tdbn.processes import Group

Factors = tuple[Tensor, Tensor, Tensor]
Tensors = Sequence[Any]  # x, weight, bias, shortcut, v0, decay, threshold; those that may be absent are None


class Settings(NamedTuple):
    """How a tensor is normalised."""

    axis: int  # of the channels
    values: int | None  # of a channel in all processes, where the statistics are those of the batch itself
    group: Group
    backend: str | None
    eps: float  # that the variance of the batch was increased by


class Statistics(NamedTuple):
    """Of every channel, [C] each, without gradient."""

    mean: Tensor
    inverse: Tensor  # one over the deviation
    scale: Tensor  # the weight times `inverse`


def _prepared(x: Tensor, axis: int) -> Tensor:
    return dense_or_grouped(x) if axis == 2 else dense(x, time=False)


def _strides_like(x: Tensor, axis: int) -> tuple[int, ...]:
    return strides_like(x) if axis == 2 else x.stride()


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


def plain_moments(x: Tensor, axis: int, backend: str | None) -> tuple[Tensor, Tensor]:
    return reference.moments(x, axis)


def launch_normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    x, backend = _prepared(x, axis), chosen_backend(backend, x)
    out = _like(x, axis)
    if backend == "torch" or x.numel() == 0:
        return out.copy_(reference.normalise(x, mean, scale, shift, axis))
    _run("normalise", backend, x, axis, mean=mean, scale=scale, shift=shift, out=out)
    return out


def fake_normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    return _like(_prepared(x, axis), axis)


def plain_normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    return reference.normalise(x, mean, scale, shift, axis)


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
    launch=launch_moments, fake=fake_moments, flat=as_they_are, structured=as_they_are, plain=plain_moments,
)  # fmt: skip
NORMALISE = Op(
    "tdbn_normalise(Tensor x, Tensor mean, Tensor scale, Tensor shift, int axis, str? backend) -> Tensor",
    launch=launch_normalise, fake=fake_normalise, flat=as_they_are, structured=as_they_are, plain=plain_normalise,
)  # fmt: skip
GRADIENT_SUMS = Op(
    "tdbn_gradient_sums(Tensor grad, Tensor x, Tensor mean, int axis, str? backend) -> Tensor",
    launch=launch_gradient_sums, fake=fake_gradient_sums, flat=as_they_are, structured=as_they_are,
)  # fmt: skip
GRADIENT = Op(
    "tdbn_gradient(Tensor grad, Tensor x, Tensor mean, Tensor direct, Tensor by_variance, Tensor by_mean, int axis, "
    "str? backend) -> Tensor",
    launch=launch_gradient, fake=fake_gradient, flat=_flat_gradient, structured=_structured_gradient,
)  # fmt: skip
LIF_FORWARD = Op(
    f"tdbn_lif({_LIF_INPUTS}, str output, SymInt? steps, bool state, str? backend) -> (Tensor, Tensor)",
    launch=lif_op.launch_forward, fake=lif_op.fake_forward, flat=_flat_lif, structured=_structured_lif,
    plain=lif_op.plain_forward,
)  # fmt: skip
LIF_BACKWARD = Op(
    f"tdbn_lif_backward(Tensor grad, Tensor? grad_v, {_LIF_INPUTS}, str output, SymInt? steps, bool[3] wanted, "
    "str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    launch=lif_op.launch_backward, fake=fake_lif_backward, flat=_flat_lif_backward,
    structured=_structured_lif_backward,
)  # fmt: skip


def shift_of(bias: Tensor | None, scale: Tensor) -> Tensor:
    """The shift of each channel."""
    return torch.zeros_like(scale) if bias is None else bias


def _gradients(
    s: Settings, wanted: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor,
    own: Tensor, reuse: bool,
) -> list[Tensor | None]:  # fmt: skip
    """The gradients of x, weight and bias as far as they are wanted, from that of the normalised x and its sums in this
    process."""
    shared = s.values is not None and processes.many(s.group)
    sums = processes.summed(own, s.group) if shared else own  # in every process, as they have to meet
    *factors, of_weight = FACTORS(sums, sums, own, weight, inverse, s.values, s.backend)
    grad_x = GRADIENT(x, grad, x, mean, factors, s.axis, s.backend, reuse) if wanted[0] else None
    return wanted_only([grad_x, of_weight, own[0]], wanted)


class NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inverse, scale, s):
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.settings = s
        return run_norm(x, bias, Statistics(mean, inverse, scale), s)

    @staticmethod
    def backward(ctx, grad):
        *tensors, mean, inverse = ctx.saved_tensors
        s, wanted = ctx.settings, ctx.needs_input_grad[:3]

        def by_kernels():
            x, weight, _ = tensors
            sums = GRADIENT_SUMS(x, grad, x, mean, s.axis, s.backend)
            return _gradients(s, wanted, grad, x, weight, mean, inverse, sums, reuse=False)

        def plain(*tensors):
            return [plain_norm(*tensors, mean, inverse, s)]

        if differentiates_gradients((grad,)):
            return *differentiable_gradients(plain, tensors, (grad,), wanted, by_kernels), *[None] * 4
        return *by_kernels(), *[None] * 4


class NormLIFFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x, weight, bias, shortcut, v0, decay, threshold, mean, inverse, scale, s, neuron, output, steps, state
    ):
        tensors = x, weight, bias, shortcut, v0, decay, threshold
        ctx.save_for_backward(*tensors, mean, inverse, scale)
        ctx.arguments = s, neuron, output, steps, state
        ctx.set_materialize_grads(False)
        return run_lif(_inputs(tensors, mean, scale, neuron, steps), output, state, s.backend)

    @staticmethod
    def backward(ctx, grad, grad_v):
        *tensors, mean, inverse, scale = ctx.saved_tensors
        s, neuron, output, steps, state = ctx.arguments
        wanted, grads = ctx.needs_input_grad[:7], (grad, grad_v if state else None)

        def by_kernels():
            i = _inputs(tensors, mean, scale, neuron, steps)
            return _lif_gradients(i, *grads, output, wanted, s, tensors[1], inverse)

        def plain(*tensors):
            return plain_lif(tensors, mean, inverse, s, neuron, output, steps)

        if differentiates_gradients(grads):
            return *differentiable_gradients(plain, tensors, grads, wanted, by_kernels), *[None] * 8
        return *by_kernels(), *[None] * 8


def _lif_gradients(
    i: Inputs, grad: Tensor | None, grad_v: Tensor | None, output: str, wanted: Sequence[bool], s: Settings,
    weight: Tensor, inverse: Tensor,
) -> list[Tensor | None]:  # fmt: skip
    """Those of x, weight, bias, shortcut, v0, decay and threshold, as far as they are wanted."""
    assert i.norm is not None
    if grad is None:
        grad = torch.zeros_like(lif_op.spikes_like(i, output))
    arguments = i, grad, grad_v, output, wanted[4:], s.backend
    found: Any = LIF_BACKWARD(i.x, *arguments) if i.neuron.has_kernels() else lif_op.launch_backward(*arguments)
    grad_y, *others, sums = found
    of_norm = _gradients(s, wanted[:3], grad_y, i.x, weight, i.norm.mean, inverse, sums, reuse=not wanted[3])
    return [*of_norm, *wanted_only([grad_y, *others], wanted[3:])]


def _inputs(tensors: Tensors, mean: Tensor, scale: Tensor, neuron: Neuron, steps: int | None) -> Inputs:
    x, _, bias, shortcut, v0, decay, threshold = tensors
    norm = Norm(mean, scale, shift_of(bias, scale), shortcut)
    return Inputs(neuron, x, v0, decay, threshold, steps, norm)


def _differentiable_statistics(x: Tensor, mean: Tensor, inverse: Tensor, s: Settings) -> tuple[Tensor, Tensor]:
    """Mean and inverse as they are, as functions of x where they are those of the batch."""
    if s.values is None:
        return mean, inverse
    if processes.many(s.group):
        raise NotImplementedError(
            "a batch norm over several processes has first derivatives only, by backward() or torch.autograd.grad; "
            "group=False takes the statistics of this process alone"
        )
    of_x, variance = reference.moments(x, s.axis)
    inverse_of_x = torch.rsqrt(variance + s.eps)
    return mean.detach() + (of_x - of_x.detach()), inverse.detach() + (inverse_of_x - inverse_of_x.detach())


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, inverse: Tensor, s: Settings) -> Tensor:
    """The normalised x in plain torch, which has all derivatives."""
    mean, inverse = _differentiable_statistics(x, mean, inverse, s)
    scale = weight * inverse
    return reference.normalise(x, mean, scale, shift_of(bias, scale), s.axis)


def plain_lif(
    tensors: Tensors, mean: Tensor, inverse: Tensor, s: Settings, neuron: Neuron, output: str, steps: int | None
) -> tuple[Tensor, Tensor]:
    """The neuron of a normalised input in plain torch, which has all derivatives."""
    mean, inverse = _differentiable_statistics(tensors[0], mean, inverse, s)
    i = _inputs(tensors, mean, tensors[1] * inverse, neuron, steps)
    return neuron_reference.forward(i, output, differentiable=True)


def run_norm(x: Tensor, bias: Tensor | None, of: Statistics, s: Settings) -> Tensor:
    """The normalised x, without autograd."""
    return NORMALISE(x, x, of.mean, of.scale, shift_of(bias, of.scale), s.axis, s.backend)


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, of: Statistics, s: Settings) -> Tensor:
    """The normalised x, through autograd where a gradient is needed."""
    if transformed():
        return plain_norm(x, weight, bias, of.mean, of.inverse, s)
    if needs_gradient(x, weight, bias):
        return NormFunction.apply(x, weight, bias, *of, s)
    return run_norm(x, bias, of, s)


def run_lif(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The neuron of a normalised input, without autograd."""
    known = lif_op.of_schema(i)
    return LIF_FORWARD(i.x, known, output, state, backend) if known else lif_op.launch_alone(i, output, state, backend)


def lif(
    tensors: Tensors, of: Statistics, s: Settings, neuron: Neuron, output: str, steps: int | None, state: bool
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The neuron of a normalised input, through autograd where a gradient is needed.

    Args:
        tensors: x, weight, bias, shortcut, v0, decay and threshold.
    """
    if transformed():
        return plain_lif(tensors, of.mean, of.inverse, s, neuron, output, steps)
    if needs_gradient(*tensors):
        return NormLIFFunction.apply(*tensors, *of, s, neuron, output, steps, state)
    return run_lif(_inputs(tensors, of.mean, of.scale, neuron, steps), output, state, s.backend)


def moments(x: Tensor, axis: int, group: Group, backend: str | None) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and number of values of each channel in all processes, without gradient."""
    count = x.numel() // max(x.shape[axis], 1)
    mean, variance = MOMENTS(x, x, axis, backend)
    if processes.many(group):
        return processes.merged(mean, variance, count, group)
    return mean, variance, count
