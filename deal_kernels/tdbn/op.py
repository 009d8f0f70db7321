"""The operations behind `deal_kernels.tdbn`: schemas, fake kernels, autograd, launchers.

Batch norm is cut where several processes have to meet: moments, then normalise (alone, or as the neuron's input);
and backward the sums of the gradient, then the gradient of x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.layout import arranged, dense, empty
from deal_kernels.lif import op as lif_op
from deal_kernels.lif.reference import STATE, Inputs, Neuron, Norm
from deal_kernels.tdbn import processes, reference

REDUCTIONS = ("moments", "gradient_sums")

library = torch.library.Library("deal_kernels", "FRAGMENT")
library.define("channel_moments(Tensor x, int axis, str? backend) -> (Tensor, Tensor)")
library.define("channel_normalise(Tensor x, Tensor mean, Tensor scale, Tensor shift, int axis, str? backend) -> Tensor")
library.define("channel_gradient_sums(Tensor grad, Tensor x, Tensor mean, int axis, str? backend) -> Tensor")
library.define(
    "channel_gradient(Tensor grad, Tensor x, Tensor mean, Tensor direct, Tensor by_variance, Tensor by_mean, int axis, "
    "str? backend) -> Tensor"
)
_NORM = "Tensor mean, Tensor scale, Tensor shift, Tensor? shortcut"
_INPUTS = f"Tensor x, {_NORM}, Tensor? v0, Tensor? decay_tensor, Tensor? threshold_tensor, {lif_op.NEURON}"
library.define(f"tdbn_lif({_INPUTS}, str output, SymInt? steps, bool state, str? backend) -> (Tensor, Tensor)")
library.define(
    f"tdbn_lif_backward(Tensor grad, Tensor? grad_v, {_INPUTS}, str output, SymInt? steps, bool[3] wanted, "
    "str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _prepared(x: Tensor, axis: int) -> Tensor:
    return dense(x, time=axis == 2)


def strides_like(x: Tensor, axis: int) -> tuple[int, ...]:
    """Of a result for a dense x, the steps side by side."""
    return x.stride() if axis != 2 else (x.numel() // x.shape[0], *x.stride()[1:])


def like(x: Tensor, axis: int) -> Tensor:
    return empty(x.shape, strides_like(x, axis), x, x.dtype)


def by_channel(x: Tensor, axis: int, *rows: int) -> Tensor:
    """Empty results [*rows, C]."""
    return x.new_empty((*rows, x.shape[axis]), dtype=STATE[x.dtype])


def _tensor(x: Tensor, axis: int) -> tuple[int, ...]:
    """What every compiled kernel takes first; csrc/tdbn.h names it."""
    steps, row = (x.shape[0], x[0]) if axis == 2 else (1, x)
    stride = x.stride(0) if axis == 2 else x.numel()
    return lif_op.DTYPES[x.dtype], steps, row.numel(), stride, x.shape[axis], lif_op.inner_of(row), x.data_ptr()


def _run(name: str, backend: str, x: Tensor, axis: int, *tensors: Tensor) -> None:
    """The compiled kernel, or Triton's, of a name."""
    if backend == "triton":
        from deal_kernels.tdbn import triton

        return getattr(triton, name)(x, axis, *tensors)
    kernels, numbers = backends.extension(), _tensor(x, axis)
    kernel = getattr(kernels, f"channel_{name}" if backend == "cpp" else f"cuda_channel_{name}")
    if backend == "cuda" and name in REDUCTIONS:
        _, steps, neurons, _, channels, inner, _ = numbers
        room = kernels.cuda_channel_workspace(steps, neurons, channels, inner)
        tensors += (x.new_empty(room, dtype=torch.float32),)
    kernel(*numbers, *(tensor.data_ptr() for tensor in tensors), *lif_op.place(x, backend))


def moments(x: Tensor, axis: int, backend: str | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel; zeros where there is no value."""
    x, backend = _prepared(x, axis), lif_op.chosen(backend, x)
    mean, variance = by_channel(x, axis), by_channel(x, axis)
    if x.numel() == 0:
        return mean.zero_(), variance.zero_()
    if backend == "torch":
        return reference.moments(x, axis)
    _run("moments", backend, x, axis, mean, variance)
    return mean, variance


def normalise(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, axis: int, backend: str | None) -> Tensor:
    x, backend = _prepared(x, axis), lif_op.chosen(backend, x)
    out = like(x, axis)
    if backend == "torch" or x.numel() == 0:
        return out.copy_(reference.normalise(x, mean, scale, shift, axis))
    _run("normalise", backend, x, axis, mean, scale, shift, out)
    return out


def gradient_sums(grad: Tensor, x: Tensor, mean: Tensor, axis: int, backend: str | None) -> Tensor:
    """Of each channel, the sums of grad and of grad * (x - mean), [2, C]."""
    x, backend = _prepared(x, axis), lif_op.chosen(backend, x)
    if backend == "torch" or x.numel() == 0:
        return reference.gradient_sums(grad, x, mean, axis)
    sums = by_channel(x, axis, 2)
    _run("gradient_sums", backend, x, axis, arranged(grad, strides_like(x, axis)), mean, sums)
    return sums


Factors = tuple[Tensor, Tensor, Tensor]


def gradient(
    grad: Tensor, x: Tensor, mean: Tensor, factors: Factors, axis: int, backend: str | None, reuse: bool = False
) -> Tensor:
    """The gradient of x; with `reuse` in the memory of grad."""
    x, backend = _prepared(x, axis), lif_op.chosen(backend, x)
    out = grad if reuse else like(x, axis)
    if backend == "torch" or x.numel() == 0:
        return out.copy_(reference.gradient(grad, x, mean, *factors, axis))
    _run("gradient", backend, x, axis, arranged(grad, out.stride()), mean, *factors, out)
    return out


def _unflatten(x, mean, scale, shift, shortcut, v0, decay, threshold, *rest):
    fields = len(Neuron._fields)
    output, steps, *others = rest[fields:]
    norm = Norm(mean, scale, shift, shortcut)
    return Inputs(Neuron(*rest[:fields]), x, v0, decay, threshold, steps, norm), output, *others


def _flat(i: Inputs) -> tuple[Any, ...]:
    assert i.norm is not None
    return i.x, *i.norm, i.v0, i.decay, i.threshold, *i.neuron


def _run_lif(*arguments):
    i, output, state, backend = _unflatten(*arguments)
    spikes, v = lif_op.forward(i, output, state, backend)
    return spikes, lif_op.nothing(i) if v is None else v


def _run_lif_backward(grad, grad_v, *arguments):
    i, output, wanted, backend = _unflatten(*arguments)
    grads = lif_op.backward(i, grad, grad_v, output, wanted, backend)
    return tuple(lif_op.nothing(i) if g is None else g for g in grads)


def _run_gradient(grad, x, mean, direct, by_variance, by_mean, axis, backend):
    return gradient(grad, x, mean, (direct, by_variance, by_mean), axis, backend)


library.impl("channel_moments", moments, "CompositeExplicitAutograd")
library.impl("channel_normalise", normalise, "CompositeExplicitAutograd")
library.impl("channel_gradient_sums", gradient_sums, "CompositeExplicitAutograd")
library.impl("channel_gradient", _run_gradient, "CompositeExplicitAutograd")
library.impl("tdbn_lif", _run_lif, "CompositeExplicitAutograd")
library.impl("tdbn_lif_backward", _run_lif_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("deal_kernels::channel_moments", lib=library)
def _(x, axis, backend):
    return by_channel(x, axis), by_channel(x, axis)


@torch.library.register_fake("deal_kernels::channel_normalise", lib=library)
def _(x, mean, scale, shift, axis, backend):
    return like(_prepared(x, axis), axis)


@torch.library.register_fake("deal_kernels::channel_gradient_sums", lib=library)
def _(grad, x, mean, axis, backend):
    return by_channel(x, axis, 2)


@torch.library.register_fake("deal_kernels::channel_gradient", lib=library)
def _(grad, x, mean, direct, by_variance, by_mean, axis, backend):
    return like(_prepared(x, axis), axis)


@torch.library.register_fake("deal_kernels::tdbn_lif", lib=library)
def _(*arguments):
    i, output, state, _ = _unflatten(*arguments)
    return lif_op.fake_forward(i, output, state)


@torch.library.register_fake("deal_kernels::tdbn_lif_backward", lib=library)
def _(grad, grad_v, *arguments):
    i, _, wanted, _ = _unflatten(*arguments)
    return *lif_op.fake_backward(i, wanted), by_channel(i.x, 1 if i.steps is not None else 2, 2)


_ops = torch.ops.deal_kernels


class Settings(NamedTuple):
    """How a tensor is normalised."""

    axis: int
    values: int | None  # of a channel in all processes, where the statistics are those of the batch itself
    group: processes.Group
    backend: str | None


def scale_and_shift(weight: Tensor, bias: Tensor | None, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel; `inverse` is one over its standard deviation."""
    return weight * inverse, torch.zeros_like(inverse) if bias is None else bias


def _factors(s: Settings, weight: Tensor, inverse: Tensor, sums: Tensor) -> Factors:
    """What `gradient` multiplies with, from the sums of the gradient in this process."""
    direct = weight * inverse
    if s.values is None:
        nothing = torch.zeros_like(direct)
        return direct, nothing, nothing
    if processes.many(s.group):
        sums = processes.summed(sums, s.group)
    by_mean, by_variance = sums * (direct * (-1 / s.values))
    return direct, by_variance * (inverse * inverse), by_mean


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, inverse: Tensor, s: Settings) -> Tensor:
    """The normalised x, without gradient."""
    run = normalise if lif_op.unobserved(x) else _ops.channel_normalise
    return run(x, mean, *scale_and_shift(weight, bias, inverse), s.axis, s.backend)


class NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inverse, s):
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.settings = s
        return norm(x, weight, bias, mean, inverse, s)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, mean, inverse = ctx.saved_tensors
        s = ctx.settings
        sums = (gradient_sums if lif_op.unobserved(x) else _ops.channel_gradient_sums)(grad, x, mean, s.axis, s.backend)
        return *_gradients(ctx, grad, x, weight, mean, inverse, sums, reuse=False), None, None, None


def _gradients(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor, sums: Tensor, reuse: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of x, weight and bias, from that of the normalised x and its sums."""
    s = ctx.settings
    of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
    grad_x = None
    factors = _factors(s, weight, inverse, sums)  # by every process, as they have to meet
    if of_x:
        if lif_op.unobserved(x):
            grad_x = gradient(grad, x, mean, factors, s.axis, s.backend, reuse)
        else:
            grad_x = _ops.channel_gradient(grad, x, mean, *factors, s.axis, s.backend)
    return grad_x, sums[1] * inverse if of_weight else None, sums[0] if of_bias else None


class NormLIFFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, inverse, shortcut, v0, decay, threshold, s, neuron, output, steps, state):
        ctx.save_for_backward(x, weight, bias, mean, inverse, shortcut, v0, decay, threshold)
        ctx.settings = s
        ctx.arguments = neuron, output, steps, state
        ctx.set_materialize_grads(False)
        norm = Norm(mean, *scale_and_shift(weight, bias, inverse), shortcut)
        return lif(Inputs(neuron, x, v0, decay, threshold, steps, norm), output, state, s.backend)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, grad_v):
        x, weight, bias, mean, inverse, shortcut, v0, decay, threshold = ctx.saved_tensors
        neuron, output, steps, state = ctx.arguments
        s = ctx.settings
        norm = Norm(mean, *scale_and_shift(weight, bias, inverse), shortcut)
        i = Inputs(neuron, x, v0, decay, threshold, steps, norm)
        if grad is None:
            grad = torch.zeros_like(lif_op.spikes_like(i, output))
        grad_v = grad_v if state else None
        wanted = ctx.needs_input_grad[6:9]
        if lif_op.unobserved(x):
            grads = lif_op.backward(i, grad, grad_v, output, wanted, s.backend)
        else:
            grads = _ops.tdbn_lif_backward(grad, grad_v, *_flat(i), output, steps, wanted, s.backend)
        grad_y, *others, sums = grads
        by_shortcut = ctx.needs_input_grad[5]
        of_norm = _gradients(ctx, grad_y, x, weight, mean, inverse, sums, reuse=not by_shortcut)
        others = (g if each else None for g, each in zip(others, wanted, strict=True))
        return *of_norm, None, None, grad_y if by_shortcut else None, *others, *[None] * 5


def lif(i: Inputs, output: str, state: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """The neuron of a normalised input, without gradient."""
    if lif_op.unobserved(i.x):
        return lif_op.forward(i, output, state, backend)
    return _ops.tdbn_lif(*_flat(i), output, i.steps, state, backend)


def statistics(x: Tensor, axis: int, group: processes.Group, backend: str | None) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and number of values of each channel in all processes, without gradient."""
    count = x.numel() // max(x.shape[axis], 1)
    mean, variance = (moments if lif_op.unobserved(x) else _ops.channel_moments)(x, axis, backend)
    if processes.many(group):
        return processes.merged(mean, variance, count, group)
    return mean, variance, count
