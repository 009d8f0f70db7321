"""x with its axes in another order than [T, B, C, ...], for the tests of all neurons."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from deal_kernels._common.layout import LEAST_GROUP

# The shape of x, its time and channel axes, and the order that brings it to [T, B, C, ...].
ORDERS = {
    "[B, T, C, H, W]": ((3, 5, 4, 6, 7), 1, None, (1, 0, 2, 3, 4)),
    "[B, T, N, C]": ((3, 5, 30, 8), 1, -1, (1, 0, 3, 2)),
    "[T, B, N, C]": ((5, 3, 30, 8), 0, -1, (0, 1, 3, 2)),
    "[B, H, T, C]": ((3, 2, 5, 131), 2, 1, (2, 0, 1, 3)),
    "[B, T, C]": ((3, 5, 67), -2, None, (1, 0, 2)),
    "[B, C, T]": ((3, 70, 5), 2, None, (2, 0, 1)),
    "[C, T]": ((70, 5), 1, None, (1, 0)),
    "[B, T, small]": ((9, 4, LEAST_GROUP - 1), 1, None, (1, 0, 2)),
    "[B, T, odd]": ((3, 18, 1029), 1, None, (1, 0, 2)),
}
orders = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)


def drawn(*shape, device, dtype=torch.float32, seed=0, low=None):
    generator = torch.Generator().manual_seed(seed)
    if low is not None:
        return (torch.rand(shape, generator=generator) + low).to(device)
    return (torch.randn(shape, generator=generator) * 1.5 + 0.3).to(device, dtype)


def inverse(order):
    return [order.index(axis) for axis in range(len(order))]


def without_first(order):
    return [axis - (axis > order[0]) for axis in order[1:]]


def results(function, x, companions, grads=None):
    """What a call returns, and the gradients of its tensors, for fixed gradients of what it returns."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, *companions)]
    returned = function(*leaves)
    if grads is None:
        grads = [drawn(*each.shape, device=each.device, dtype=each.dtype, seed=9) for each in returned]
    return [each.detach() for each in returned], torch.autograd.grad(returned, leaves, grads)


def copies(run):
    """The shapes of what is copied, but for single numbers."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        run()
    events = [event for event in seen.key_averages(group_by_input_shape=True) if event.key == "aten::copy_"]
    return [event.input_shapes[0] for event in events if event.input_shapes[0]]
