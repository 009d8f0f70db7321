"""The parallel spiking neuron in plain torch: the specification of every other implementation.

Time is the first axis. Half types are computed in float32. h is a sum in the order of the steps in which every product
is added with one rounding, as by a fused multiply-add: that is what processors and the products of matrices do fastest,
and it gives every backend the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels._common.types import STATE, no_autocast

SEGMENT = 64  # steps of a sliding window whose products with all inputs of the window are computed at once


class Inputs(NamedTuple):
    """The tensors of a call, weight and bias in the type that is computed in."""

    x: Tensor  # [T, ...]
    weight: Tensor  # [T, T], or the same [k] weights for all steps
    bias: Tensor  # [T] or [T, 1], or one value for all steps
    band: int | None  # how many steps, the last its own, a step sees; None: all
    skipped: int  # steps of x, from the first, that have no output

    @property
    def sliding(self) -> bool:
        return self.weight.dim() == 1

    @property
    def outputs(self) -> int:
        """The number of steps with an output."""
        return self.x.shape[0] - self.skipped


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c, in float32 with one rounding.

    In float64 the product is exact. The sum is rounded to odd: where it is not exact, its last bit is set. Then it
    rounds to the float32 that the exact sum rounds to.
    """
    if c.dtype == torch.float64:
        return a * b + c
    product, c = a.double() * b.double(), c.double()
    total = product + c
    added = total - product
    lost = (product - (total - added)) + (c - added)
    bits = total.view(torch.int64)
    outward = torch.where((lost > 0) == (total > 0), 1, -1)
    odd = torch.where((lost.abs() > 0) & (bits % 2 == 0), bits + outward, bits)
    return odd.view(torch.float64).float()


def membranes(i: Inputs) -> Tensor:
    """h of every step with an output, [T - skipped, N], in the type that is computed in."""
    x = _flat(i.x)
    h = x.new_zeros(i.outputs, x.shape[1])
    if i.sliding:
        for weight, ours, theirs in _taps(i):
            h[ours] = fused(weight, x[theirs], h[ours])
    else:
        for s, inputs in enumerate(x):
            seeing = slice(None) if i.band is None else slice(s, s + i.band)
            h[seeing] = fused(i.weight[seeing, s, None], inputs, h[seeing])
    return h + i.bias.reshape(-1, 1)


def gradients(i: Inputs, grad_h: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The gradients of x, [T, N], and weight, as far as they are wanted, and of bias, from that of h."""
    x = _flat(i.x)
    grad_x = grad_weight = None
    with no_autocast(x.device.type):
        if wanted[0]:
            grad_x = _sliding_input_gradient(i, x, grad_h) if i.sliding else _kept(i.weight, i.band).T @ grad_h
        if wanted[1]:
            grad_weight = _sliding_weight_gradient(i, x, grad_h) if i.sliding else _kept(grad_h @ x.T, i.band)
    grad_bias = grad_h.sum() if i.sliding else grad_h.sum(1)
    return grad_x, grad_weight, grad_bias.reshape(i.bias.shape)


def backward(
    i: Inputs, grad: Tensor, surrogate: Callable[[Tensor], Tensor], h: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The same from the gradient of the spikes, [T - skipped, ...], and h."""
    slopes = surrogate(h.reshape(grad.shape))
    return gradients(i, _flat(grad) * _flat(slopes), wanted)


def _flat(x: Tensor) -> Tensor:
    """[T, ...] as [T, N] in the type that is computed in."""
    return x.reshape(x.shape[0], -1).to(STATE[x.dtype])


def _kept(weight: Tensor, band: int | None) -> Tensor:
    """A matrix with zeros outside of the band."""
    return weight if band is None else weight.tril().triu(1 - band)


def _taps(i: Inputs) -> Iterator[tuple[Tensor, slice, slice]]:
    """Each weight of a sliding window, from the earliest step on: it, the outputs that have it, and their inputs."""
    k, steps = i.weight.numel(), i.x.shape[0]
    for tap, weight in enumerate(i.weight):
        first = max(i.skipped, k - 1 - tap)
        if first < steps:
            yield weight, slice(first - i.skipped, None), slice(first - (k - 1 - tap), steps - (k - 1 - tap))


def _sliding_input_gradient(i: Inputs, x: Tensor, grad_h: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for weight, ours, theirs in _taps(i):
        total[theirs] += weight * grad_h[ours]
    return total


def _sliding_weight_gradient(i: Inputs, x: Tensor, grad_h: Tensor) -> Tensor:
    """The sums of grad_h[t] * x[s] by their distance t - s, a segment of steps at a time."""
    k = i.weight.numel()
    total = x.new_zeros(k)
    for start in range(i.skipped, i.x.shape[0], SEGMENT):
        some = grad_h[start - i.skipped :][:SEGMENT]
        first = max(start - k + 1, 0)
        products = some @ x[first : start + len(some)].T
        for tap in range(k):
            total[tap] += products.diagonal(start - first - (k - 1 - tap)).sum()
    return total
