"""Which of two implementations is faster on a GPU, measured when it first matters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

ROUNDS = 5
MARGIN = 1.05  # a new implementation is taken if it is faster by this factor
NEAR = 0.02  # the distance of two results, relative to one of them; that of half types is below 0.01

Run = Callable[[], Sequence[Tensor]]

_choices: dict[Hashable, bool] = {}


def known(key: Hashable) -> bool | None:
    """What has been measured for a key; None if nothing has."""
    return _choices.get(key)


def is_faster(key: Hashable, new: Run, usual: Run, clock: Callable[[Run], float] | None = None) -> bool:
    """Whether the new implementation is faster than the usual one. Measured once for a key.

    Args:
        key: the device and the kind of call.
        new, usual: run the implementations, and return results that should agree.
        clock: the milliseconds of a run; by default of its work on the current stream.
    """
    if key not in _choices:
        _choices[key] = _measured(new, usual, clock or milliseconds)
    return _choices[key]


def _measured(new: Run, usual: Run, clock: Callable[[Run], float]) -> bool:
    """Compares the fastest of rounds that take turns. What fails or gives other results is not faster."""
    expected = usual()
    try:
        found = new()  # which also compiles its kernels
    except Exception as error:
        warnings.warn(f"torch's own operation is used, as the kernel in its place failed: {error!r}", stacklevel=2)
        return False
    worst = max(map(_distance, found, expected))
    if not worst <= NEAR:
        warnings.warn(
            f"torch's own operation is used, as the result of the kernel in its place is {worst:.2g} from its own",
            stacklevel=2,
        )
        return False
    times = [(clock(new), clock(usual)) for _ in range(ROUNDS)]
    ours, theirs = map(min, zip(*times, strict=True))
    return ours * MARGIN < theirs


def _distance(one: Tensor, other: Tensor) -> float:
    finite = other.isfinite()
    expected = other[finite].double()
    return ((one[finite].double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def milliseconds(run: Callable[[], Any]) -> float:
    """The time of a run on the current stream of the current device."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)
