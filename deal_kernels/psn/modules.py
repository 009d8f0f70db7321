"""`psn` and `sliding_psn` as layers. Their state_dict is that of SpikingJelly's layers of the same names."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deal_kernels._common.axes import Axes
from deal_kernels._common.checks import check_integer, check_steps, check_strided, check_tensor, number
from deal_kernels._common.forked import one_thread_if_forked
from deal_kernels.psn.functional import psn, sliding_psn
from deal_kernels.surrogate import SurrogateLike, checked


class PSN(nn.Module):
    """`psn` as a layer, with a weight for every pair of steps.

    Args:
        steps: T, the number of steps of every input.
        surrogate, backend, time_axis: as in `psn`.

    >>> layer = PSN(4)
    >>> layer(torch.randn(4, 2, 8)).shape  # [T, B, C]
    torch.Size([4, 2, 8])
    """

    def __init__(
        self, steps: int, *, surrogate: SurrogateLike = "atan", backend: str | None = None, time_axis: int = 0
    ) -> None:  # fmt: skip
        super().__init__()
        check_integer("steps", steps, 1)
        checked(surrogate)
        self.steps, self.surrogate, self.backend, self.time_axis = steps, surrogate, backend, time_axis
        self.weight = nn.Parameter(torch.empty(steps, steps))
        self.bias = nn.Parameter(torch.full((steps, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of x [T, B, C, ...]."""
        options: dict[str, Any] = {"surrogate": self.surrogate, "backend": self.backend, "time_axis": self.time_axis}
        return psn(x, self.weight, self.bias, **options)

    def extra_repr(self) -> str:
        axis = f", time_axis={self.time_axis}" if self.time_axis else ""
        return f"steps={self.steps}, surrogate={self.surrogate!r}{axis}"


class _Stateful(nn.Module):
    """A layer that may continue after the last inputs of the call before."""

    before: Tensor | None
    initial: ClassVar[dict[str, Any]] = {"before": None}

    def _set_state(self, stateful: bool, detach_state: bool) -> None:
        self.stateful, self.detach_state = stateful, detach_state
        self.reset()

    def reset(self) -> None:
        """Forgets the inputs: the next call starts after none."""
        vars(self).update(self.initial)

    def detach_(self) -> None:
        """Keeps the inputs but cuts their gradient."""
        self.before = None if self.before is None else self.before.detach()

    def _entering(self) -> Tensor | None:
        return self.before.detach() if self.detach_state and self.before is not None else self.before

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.before is not None:
            self.before = fn(self.before)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | self.initial


class MaskedPSN(_Stateful, PSN):
    """A `PSN` whose steps come to see no more than the last k steps, as training moves `lambda_` from 0 to 1.

    Weights outside of the last k steps are multiplied by 1 - lambda_. At 1 a step sees nothing that is later than it:
    then the steps may come one by one, or in parts, with `stateful=True`.

    Args:
        k: the order: how many steps, the last its own, a step sees at lambda_ = 1.
        steps: T, the number of steps of every input, or with `stateful` of all inputs from one `reset` to the next.
        lambda_init: the first value of lambda_.
        surrogate, backend, time_axis: as in `psn`.
        stateful, detach_state: as in `SlidingPSN`. With `time_axis` 1 the input is then copied.

    >>> layer = MaskedPSN(2, 4)
    >>> layer.lambda_ = 1.0
    >>> layer(torch.randn(4, 2, 8)).shape  # [T, B, C]
    torch.Size([4, 2, 8])
    """

    _lambda_: Tensor
    mask0: Tensor
    mask1: Tensor
    done: int  # steps since the last reset, if stateful
    initial: ClassVar[dict[str, Any]] = {"before": None, "done": 0}

    def __init__(
        self, k: int, steps: int, *, lambda_init: float = 0.0, surrogate: SurrogateLike = "atan",
        backend: str | None = None, stateful: bool = False, detach_state: bool = False, time_axis: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(steps, surrogate=surrogate, backend=backend, time_axis=time_axis)
        check_integer("k", k, 1)
        self._set_state(stateful, detach_state)
        self.k = k
        self.register_buffer("_lambda_", torch.tensor(number("lambda_init", lambda_init)))
        self.register_buffer("mask0", torch.ones(steps, steps).tril().triu(1 - k))
        self.register_buffer("mask1", torch.ones(steps, steps))
        self._banded = lambda_init >= 1

    @property
    def lambda_(self) -> Tensor:
        return self._lambda_

    @lambda_.setter
    def lambda_(self, value: float) -> None:
        self._lambda_.fill_(number("lambda_", value))
        self._banded = value >= 1

    def masked_weight(self) -> Tensor:
        """The weights that the neurons have, [T, T]."""
        share = self._lambda_.clamp(max=1)
        return (share * self.mask0 + (1 - share) * self.mask1) * self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of x [T, B, C, ...]; with `stateful`, of the next steps."""
        if self.time_axis != 0:
            check_strided("x", x)
            axes = Axes(x, self.time_axis)
            return axes.restored(self._spikes(axes.usual(x)))
        return self._spikes(x)

    def _spikes(self, x: Tensor) -> Tensor:
        options: dict[str, Any] = {"surrogate": self.surrogate, "backend": self.backend}
        if not self.stateful:
            return psn(x, self.masked_weight(), self.bias, band=self.k if self._banded else None, **options)
        before = self._checked_before(x)
        kept = 0 if before is None else len(before)
        if before is not None:
            x = torch.cat([before.to(x.dtype), x])
        now = slice(self.done - kept, self.done - kept + len(x))
        spikes = psn(x, self.masked_weight()[now, now], self.bias[now], band=self.k, **options)
        self.done = now.stop
        self.before = x[max(len(x) - self.k + 1, 0) :].clone() if self.k > 1 else None
        return spikes[kept:]

    def _checked_before(self, x: Tensor) -> Tensor | None:
        """The last inputs before x, of which there are k - 1 or, after the first steps, fewer."""
        check_tensor("x", x)
        check_steps(x)
        if not self._banded:
            raise ValueError(f"a stateful MaskedPSN needs lambda_ >= 1; at {self.lambda_:g} a step sees later ones")
        if self.done + len(x) > self.steps:
            raise ValueError(
                f"x has {len(x)} steps, and {self.steps - self.done} of {self.steps} are left: call reset()"
            )
        before = self._entering()
        if before is not None and before.shape[1:] != x.shape[1:]:
            expected, got = tuple(before.shape[1:]), tuple(x.shape[1:])
            raise ValueError(f"a step must have the shape {expected} of those before it; got {got}: call reset()")
        one_thread_if_forked()  # for torch's copies
        return before

    def _load_from_state_dict(self, state_dict, prefix, *arguments):  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._banded = bool(self._lambda_ >= 1)

    def extra_repr(self) -> str:
        return f"k={self.k}, {super().extra_repr()}"


class SlidingPSN(_Stateful):
    """`sliding_psn` as a layer.

    Args:
        k: the order: how many steps, the last its own, a step sees.
        exp_init: starts from the weights ..., 1/4, 1/2, 1; False: from random ones.
        surrogate, backend, time_axis: as in `sliding_psn`.
        stateful: continues after the inputs of the last call, until `reset`. They are not part of the state_dict, and a
            copy of the module has none.
        detach_state: cuts the gradient between calls.

    >>> layer = SlidingPSN(3, stateful=True)
    >>> spikes = [layer(torch.randn(1, 2, 8)) for _ in range(4)]  # step by step
    >>> layer.before.shape
    torch.Size([2, 2, 8])
    >>> layer.reset()
    """

    def __init__(
        self, k: int, *, exp_init: bool = True, surrogate: SurrogateLike = "atan", backend: str | None = None,
        stateful: bool = False, detach_state: bool = False, time_axis: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_integer("k", k, 1)
        checked(surrogate)
        self.surrogate, self.backend, self.time_axis = surrogate, backend, time_axis
        self._set_state(stateful, detach_state)
        bound = 1 / math.sqrt(k)
        weight = 2.0 ** torch.arange(1 - k, 1) if exp_init else torch.empty(k).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-1.0))

    @property
    def k(self) -> int:
        return self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of x [T, B, C, ...]."""
        options: dict[str, Any] = {"surrogate": self.surrogate, "backend": self.backend, "time_axis": self.time_axis}
        if not self.stateful:
            return sliding_psn(x, self.weight, self.bias, **options)
        before = self._entering()
        spikes, self.before = sliding_psn(x, self.weight, self.bias, before, return_state=True, **options)
        return spikes

    def extra_repr(self) -> str:
        axis = f", time_axis={self.time_axis}" if self.time_axis else ""
        return f"k={self.k}, surrogate={self.surrogate!r}{axis}"
