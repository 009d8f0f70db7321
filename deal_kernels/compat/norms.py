"""Batch norms that find the statistics of their input at once, and leave the rest to the neuron behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm, _NormBase
from torch.nn.modules.lazy import LazyModuleMixin

from deal_kernels._common.dispatch import untraced
from deal_kernels._common.types import STATE
from deal_kernels.compat.deferred import NormCall, Uses
from deal_kernels.compat.steps import has_hooks
from deal_kernels.tdbn import TDBatchNorm2d
from deal_kernels.tdbn.split import Normalisation

SMALLEST = 1 << 17  # elements of an input; with fewer, the calls that fuse cost more time than the memory is worth


class Arguments(NamedTuple):
    """Those of `tdbn` behind x, in their order."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float
    alpha: float | None
    v_threshold: float
    group: Any
    backend: str | None


class Deferring(_NormBase):
    """What the norms below have in common."""

    _uses: Uses
    _kind: type[nn.Module]  # the library's class

    def defers(self, x: Any, axis: int) -> bool:
        """Whether this call leaves its result to what reads it. All else, errors included, is as in the library."""
        if not isinstance(x, Tensor) or not untraced(x) or has_hooks(self) or x.numel() < SMALLEST:
            return False
        if self._uses.computed and not self._uses.fused:
            return False
        parameters = [
            each for each in (self.weight, self.bias, self.running_mean, self.running_var) if each is not None
        ]
        return (
            x.dtype in STATE
            and x.dim() > axis
            and x.shape[axis] == self.num_features > 1
            and x.numel() > x.shape[axis]
            and not x.is_inference()  # a change in place could not be seen
            and self.eps >= 0
            and 0 <= (self.momentum or 0) <= 1
            and all(each.is_floating_point() and each.device == x.device for each in parameters)
            and all(type(each) in (Tensor, nn.Parameter) and not each.is_inference() for each in parameters)
        )

    def defer(
        self, x: Tensor, axis: int, given: Arguments, result: Callable[[Tensor, Normalisation], Tensor]
    ) -> Tensor:
        normalisation = Normalisation.of(x, axis, *given)
        running = () if given.training else (given.running_mean, given.running_var)
        return NormCall(x, axis, normalisation, result, (given.weight, given.bias), running, self._uses).deferred()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class was made here, so pickle cannot find it by its name."""
        reduced: Any = super().__reduce_ex__(protocol)
        return _blank, (self._kind,), *reduced[2:]


class DeferringBatchNorm(Deferring, _BatchNorm):
    """Stands behind the library's class and before `_BatchNorm`, whose forward it replaces."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.defers(x, 1):
            return super().forward(x)
        self._check_input_dim(x)
        momentum, tracks = self.momentum, self.training and self.track_running_stats
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1 / float(self.num_batches_tracked)
        known = tracks or not self.training
        mean, var = (self.running_mean, self.running_var) if known else (None, None)
        training = self.training or (self.running_mean is None and self.running_var is None)
        weight, bias, eps = self.weight, self.bias, self.eps
        given = Arguments(weight, bias, mean, var, training, momentum or 0.0, eps, None, 1.0, False, None)

        def result(x: Tensor, normalisation: Normalisation) -> Tensor:
            # In training the running statistics have been updated already. Copies of them make autograd keep as many
            # tensors as in the library's own call, which a checkpoint may repeat in place of this one.
            scratch = [each.clone() if training and each is not None else each for each in (mean, var)]
            return F.batch_norm(x, scratch[0], scratch[1], weight, bias, training, 0.0, eps)

        return self.defer(x, 1, given, result)


class DeferringTDBatchNorm(Deferring, TDBatchNorm2d):
    """Stands behind the classes that derive from `TDBatchNorm2d`."""

    def forward(self, x: Tensor) -> Tensor:
        axis = 1 if isinstance(x, Tensor) and x.dim() == 4 else 2
        if not self.defers(x, axis) or x.dim() > 5:
            return super().forward(x)
        threshold, backend = self.v_threshold, self.backend
        named = self.call_arguments()
        given = Arguments(weight=self.weight, bias=self.bias, v_threshold=threshold, backend=backend, **named)
        return self.defer(x, axis, given, lambda x, normalisation: normalisation.norm(x))


_CLASSES: dict[type[nn.Module], type[Any]] = {}


def _deferring_class(kind: type[nn.Module]) -> type[Any]:
    """The class that a norm gets, with forwards of `kind` and its bases in front of ours."""
    if kind not in _CLASSES:
        bases = (kind, DeferringTDBatchNorm if issubclass(kind, TDBatchNorm2d) else DeferringBatchNorm)
        names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_kind": kind}
        _CLASSES[kind] = type(f"Fused{kind.__name__}", bases[1:] if kind is TDBatchNorm2d else bases, names)
    return _CLASSES[kind]


def _blank(kind: type[nn.Module]) -> Any:
    made: Any = _deferring_class(kind)
    return made.__new__(made)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm that `defer` takes."""
    left = isinstance(module, (SyncBatchNorm, LazyModuleMixin))
    return isinstance(module, (_BatchNorm, TDBatchNorm2d)) and not left


def kind_of(norm: nn.Module) -> str:
    """The name of a norm's class in its library."""
    return (norm._kind if isinstance(norm, Deferring) else type(norm)).__name__


def defer(norm: Any) -> Uses:
    """Makes a norm one that defers its results, if it is not yet, and counts anew how they are read."""
    if not isinstance(norm, Deferring):
        norm.__class__ = _deferring_class(type(norm))
    norm._uses = Uses()
    return norm._uses
