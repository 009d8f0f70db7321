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


def in_usual_order(
    function: Callable[..., Any], x: Tensor, time_axis: int, channel_axis: int | None, *, steps: int | None,
    reduce: str | None, pack: bool, return_state: bool, **arguments: Any,
) -> Any:  # fmt: skip
    """The result of `lif` or `tdbn_lif` for x in another order of axes, without a copy of x.

    Args:
        function: what is called with x and its companions in the usual order.
        steps, reduce, pack, return_state, arguments: its arguments.
    """
    order = usual_order(x, steps, time_axis, channel_axis)
    step = order if steps is not None else _without_first(order)
    spikes = [0, *(axis + 1 for axis in order)] if steps is not None else order
    result = [] if pack else spikes if reduce is None else step
    orders = {"v0": step, "shortcut": order, "out": result}
    of_sample = _without_first(step)

    def moved(name: str, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        if name in orders:
            return _permuted(value, orders[name])
        return _permuted(_permuted(value, of_sample), step)

    found = function(
        x.permute(order), steps=steps, reduce=reduce, pack=pack, return_state=return_state,
        **{name: moved(name, value) for name, value in arguments.items()},
    )  # fmt: skip
    if not return_state:
        return _permuted(found, _inverse(result))
    return _permuted(found[0], _inverse(result)), _permuted(found[1], _inverse(step))


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
