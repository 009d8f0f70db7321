"""x with its axes in another order than [T, B, C, ...]: views in that order, and results moved back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from deal_kernels._common.checks import is_integer

Order = Sequence[int]


def checked_axis(name: str, axis: object, x: Tensor) -> int:
    """An axis of x, from 0 on."""
    if not is_integer(axis) or not -x.dim() <= axis < x.dim():  # type: ignore[operator]
        raise ValueError(f"{name} must be an axis of x, whose shape is {tuple(x.shape)}; got {axis!r}")
    return axis % x.dim()  # type: ignore[operator, no-any-return]


def step_shape(x: Tensor, time_axis: int) -> tuple[int, ...]:
    time = checked_axis("time_axis", time_axis, x)
    return (*x.shape[:time], *x.shape[time + 1 :])


def usual_order(x: Tensor, steps: int | None, time_axis: int, channel_axis: int | None) -> list[int]:
    """The axes of x in the order [T, B, C, ...], or [B, C, ...] with steps."""
    order = list(range(x.dim()))
    if steps is None:
        order.insert(0, order.pop(checked_axis("time_axis", time_axis, x)))
    elif time_axis != 0:
        raise ValueError(f"x has no time axis with steps, so that time_axis must be left out; got {time_axis!r}")
    if channel_axis is None:
        return order
    channel, timed = checked_axis("channel_axis", channel_axis, x), steps is None
    if timed and channel == order[0]:
        raise ValueError(f"channel_axis must differ from time_axis; got {channel_axis} and {time_axis}")
    order.remove(channel)
    order.insert(min(1 + timed, len(order)), channel)
    return order


class Axes:
    """The axes of x in another order than [T, B, C, ...], or [B, C, ...] with steps. Nothing is copied.

    >>> axes = Axes(torch.zeros(2, 5, 8, 3), time_axis=1)
    >>> axes.usual(torch.zeros(2, 5, 8, 3)).shape, axes.restored_step(torch.zeros(2, 8, 3)).shape
    (torch.Size([5, 2, 8, 3]), torch.Size([2, 8, 3]))
    """

    def __init__(self, x: Tensor, time_axis: int, channel_axis: int | None = None, steps: int | None = None) -> None:
        self.order = usual_order(x, steps, time_axis, channel_axis)
        self.of_step = self.order if steps is not None else _without_first(self.order)

    def usual(self, x: Any) -> Any:
        """x, or another tensor that has steps, in the usual order. What is no tensor stays as it is."""
        return _permuted(x, self.order) if isinstance(x, Tensor) else x

    def usual_step(self, state: Any) -> Any:
        return _permuted(state, self.of_step) if isinstance(state, Tensor) else state

    def usual_parameter(self, value: Any) -> Any:
        """A parameter that may have values per neuron."""
        return self.usual_step(_permuted(value, _without_first(self.of_step))) if isinstance(value, Tensor) else value

    def restored(self, result: Tensor) -> Tensor:
        """A result for all steps, with its axes in the order of x."""
        return _permuted(result, _inverse(self.order))

    def restored_step(self, result: Tensor) -> Tensor:
        return _permuted(result, _inverse(self.of_step))


def in_usual_order(
    function: Callable[..., Any], x: Tensor, time_axis: int, channel_axis: int | None, *, steps: int | None,
    reduce: str | None, pack: bool, return_state: bool, **arguments: Any,
) -> Any:  # fmt: skip
    """The result of `lif` or `tdbn_lif` for x in another order of axes, without a copy of x.

    Args:
        function: what is called with x and its companions in the usual order.
        steps, reduce, pack, return_state, arguments: its arguments.
    """
    axes = Axes(x, time_axis, channel_axis, steps)
    spikes = [0, *(axis + 1 for axis in axes.order)] if steps is not None else axes.order
    result = [] if pack else spikes if reduce is None else axes.of_step
    orders = {"v0": axes.of_step, "shortcut": axes.order, "out": result}

    def moved(name: str, value: Any) -> Any:
        known = isinstance(value, Tensor) and name in orders
        return _permuted(value, orders[name]) if known else axes.usual_parameter(value)

    found = function(
        axes.usual(x), steps=steps, reduce=reduce, pack=pack, return_state=return_state,
        **{name: moved(name, value) for name, value in arguments.items()},
    )  # fmt: skip
    if not return_state:
        return _permuted(found, _inverse(result))
    return _permuted(found[0], _inverse(result)), axes.restored_step(found[1])


def _without_first(order: Order) -> list[int]:
    """The order of the axes that are left without the first of it."""
    return [axis - (axis > order[0]) for axis in order[1:]]


def _inverse(order: Order) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]


def _permuted(tensor: Tensor, order: Order) -> Tensor:
    """The tensor with its axes in an order, or as it is if it has another number of axes."""
    return tensor.permute(*order) if order and tensor.dim() == len(order) else tensor


def unflattened(name: str, x: Tensor, steps: int, time_axis: int) -> Tensor:
    """[T * B, ...] as [T, B, ...], or [B * T, ...] as [B, T, ...] for time_axis 1."""
    if x.dim() == 0 or x.shape[0] % steps:
        raise ValueError(
            f"the first axis of {name} must be a multiple of flattened_steps={steps}; got the shape {tuple(x.shape)}"
        )
    return x.unflatten(0, (steps, -1) if time_axis == 0 else (-1, steps))
