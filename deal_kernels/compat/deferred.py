"""The result of a batch norm that is computed when something reads it, and `lif`, which reads it without that.

A view of such a result is one, too, as long as its channels stay on one axis.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.autograd import Function

from deal_kernels._common.derivatives import differentiable_once
from deal_kernels._common.neuron import NeuronSettings
from deal_kernels.lif import lif as plain_lif
from deal_kernels.tdbn.split import Normalisation

# What a tensor says of itself without its values.
DESCRIBES = {
    Tensor.dim, Tensor.size, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.is_floating_point,
    Tensor.is_complex, Tensor.is_inference, Tensor.element_size, Tensor.get_device, torch.numel,
    torch.is_floating_point, torch.is_complex, torch.is_inference,
    *(getattr(Tensor, name).__get__ for name in (
        "shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "is_cpu", "is_meta", "is_sparse",
        "is_quantized", "is_mkldnn", "is_nested", "layout", "itemsize", "nbytes",
    )),
}  # fmt: skip
# Views of the same elements in the same order, or copies of them.
SAME_ORDER = {
    Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.unflatten, torch.unflatten,
    Tensor.contiguous, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
}  # fmt: skip
# Views with their axes in another order.
MOVES = {
    Tensor.transpose, torch.transpose, Tensor.swapaxes, torch.swapaxes, Tensor.permute, torch.permute,
    Tensor.movedim, torch.movedim, Tensor.moveaxis, torch.moveaxis,
}  # fmt: skip
NEURON = NeuronSettings.__annotations__.keys()  # the settings with which a neuron reads a result that is not computed
OF_GRADIENTS = {Tensor.register_hook, Tensor.retain_grad}


class Uses:
    """How the results of a norm were read: calls in which a fused neuron read one, and in which one was computed."""

    def __init__(self) -> None:
        self.fused = self.computed = 0

    def __str__(self) -> str:
        return f"fused in {self.fused} calls" + (f", computed in {self.computed}" if self.computed else "")


class NormCall:
    """One call of a norm.

    Args:
        x: its input.
        axis: of the channels in x.
        normalisation: of x.
        result: computes the result.
        parameters: weight and bias.
        running: the running statistics, if the result depends on them.
        uses: where it is counted how the result is read.
    """

    def __init__(
        self, x: Tensor, axis: int, normalisation: Normalisation, result: Callable[[Tensor, Normalisation], Tensor],
        parameters: tuple[Tensor | None, Tensor | None], running: tuple[Tensor | None, ...], uses: Uses,
    ) -> None:  # fmt: skip
        self.x, self.axis, self.normalisation, self.parameters = x, axis, normalisation, parameters
        self.compute_result, self.uses = result, uses
        self.gradient = torch.is_grad_enabled()
        self.depends_on = [each for each in (x, *parameters, *running) if each is not None]
        self.versions = [each._version for each in self.depends_on]
        self.parts: list[weakref.ref[Part]] = []
        self.fused = self.computed = False

    def deferred(self) -> DeferredNorm:
        sizes = [1] * self.x.dim()
        sizes[self.axis] = self.x.shape[self.axis]
        channels = torch.empty(sizes, dtype=torch.bool, device="cpu")
        return Part(self, self.x, channels.expand(self.x.shape)).deferred()

    def check_unchanged(self) -> None:
        if self.versions != [each._version for each in self.depends_on]:
            raise RuntimeError(
                "the input or a parameter of a batch norm was changed in place before its result was read; "
                "swap this network with norms=False"
            )

    def result(self) -> Tensor:
        self.check_unchanged()
        return self.compute_result(self.x, self.normalisation)

    def compute(self) -> None:
        """Computes all parts, so that a change of one in place is seen in those that share its memory."""
        self.uses.computed += not self.computed
        self.computed = True
        with torch.set_grad_enabled(self.gradient):
            for reference in self.parts:
                part = reference()
                if part is not None:
                    part.value = part.fresh()

    def read_by_neuron(self) -> Normalisation:
        self.check_unchanged()
        self.uses.fused += not self.fused
        self.fused = True
        return self.normalisation


class Part:
    """The result of a norm, or a view of it.

    Args:
        call: of the norm.
        x: the same elements of its input.
        channels: a tensor like x of which only the axis of the channels has a stride.
        parent, how: what this is a view of, and the function and its arguments that make it.
    """

    def __init__(
        self, call: NormCall, x: Tensor, channels: Tensor, parent: Part | None = None,
        how: tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        self.call, self.x, self.channels, self.parent, self.how = call, x, channels, parent, how
        self.value: Tensor | None = None
        call.parts.append(weakref.ref(self))

    def deferred(self) -> DeferredNorm:
        if not self.call.gradient:
            return _wrapper(self, False)
        return _Deferring.apply(self.call.x, *self.call.parameters, self)  # type: ignore[no-any-return]

    def fresh(self) -> Tensor:
        """The values, computed from those of the parent, if there is one."""
        if self.value is not None:
            return self.value
        if self.parent is None or self.how is None:
            return self.call.result()
        function, args, kwargs = self.how
        return function(self.parent.fresh(), *args, **kwargs)

    def compute(self) -> Tensor:
        if self.value is None:
            self.call.compute()
        assert self.value is not None
        return self.value

    def view(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DeferredNorm | None:
        """The view as a deferred result; None where it is to be one of the values."""
        if self.value is not None or (self.call.gradient and not torch.is_grad_enabled()):
            return None
        try:
            if function in MOVES:
                x, channels = function(self.x, *args, **kwargs), function(self.channels, *args, **kwargs)
            elif function is Tensor.contiguous:
                x, channels = self.x, self.channels
            else:
                x = (Tensor.reshape if function is Tensor.view else function)(self.x, *args, **kwargs)
                channels = self.channels.view(x.shape)
        except (RuntimeError, TypeError):
            return None
        return Part(self.call, x, channels, self, (function, args, kwargs)).deferred()

    def axis(self) -> int | None:
        """That of the channels; None if they are on several, or on the first, which is that of the time."""
        strides = zip(self.channels.shape, self.channels.stride(), strict=True)
        axes = [axis for axis, (size, stride) in enumerate(strides) if size > 1 and stride]
        return axes[0] if len(axes) == 1 and axes[0] > 0 else None


class DeferredNorm(Tensor):
    """The result of a norm, or a view of it, without memory of its own. What reads it otherwise gets the values.

    Its gradient reaches the input of the norm where it is used by what does not ask `__torch_function__`, such as an
    autograd function.
    """

    part: Part

    @property
    def _version(self) -> int:  # type: ignore[override]
        """The count of changes in place."""
        value = self.part.value
        return self.part.x._version + (0 if value is None else value._version)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DESCRIBES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in SAME_ORDER or func in MOVES:
            view = args[0].part.view(func, args[1:], kwargs) if args and isinstance(args[0], cls) else None
            if view is not None:
                return view
        if func in OF_GRADIENTS and args[0].part.call.fused:
            raise RuntimeError(
                f"{func.__name__} of a batch norm's result, which a fused neuron has read already, would miss the "
                "gradient of that neuron; call it before the neuron, or swap with norms=False"
            )
        return func(*pytree.tree_map_only(cls, _computed, args), **pytree.tree_map_only(cls, _computed, kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        # Reached from C++ beneath autograd, so that nothing computed here has a gradient or may be kept.
        if func._schema.is_mutable:
            raise RuntimeError(
                f"{func} would change the result of a batch norm that was not read; swap with norms=False"
            )
        args, kwargs = pytree.tree_map_only(cls, _passing, (args, kwargs or {}))
        return func(*args, **kwargs)


def _computed(x: DeferredNorm) -> Tensor:
    return x.part.compute()


def _passing(x: DeferredNorm) -> Tensor:
    return x.part.fresh().detach()


def _wrapper(part: Part, requires_grad: bool) -> DeferredNorm:
    x = part.x
    made: DeferredNorm = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
        DeferredNorm, x.shape, dtype=x.dtype, device=x.device, requires_grad=requires_grad
    )
    made.part = part
    return made


class _Deferring(Function):
    """The step from the input of a norm to its deferred result, for gradients that come by the deferred result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, part: Part) -> DeferredNorm:
        ctx.part = part
        return _wrapper(part, False)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> Any:
        given = [ctx.part.call.x, *ctx.part.call.parameters]
        wanted = [each for each, needed in zip(given, ctx.needs_input_grad, strict=False) if needed]
        found = iter(torch.autograd.grad(ctx.part.compute(), wanted, grad, retain_graph=True, allow_unused=True))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None


def lif(
    x: Tensor, v0: Tensor | None = None, *, output: Any = "spikes", return_state: bool = False, **settings: Any
) -> Any:  # fmt: skip
    """`deal_kernels.lif.lif`. It normalises the deferred result of a norm while it reads it."""
    if not isinstance(x, DeferredNorm):
        return plain_lif(x, v0, output=output, return_state=return_state, **settings)
    part, call = x.part, x.part.call
    axis = part.axis() if part.value is None else None
    single = all(each.numel() == 1 for each in settings.values() if isinstance(each, Tensor))
    if axis is None or not single or not settings.keys() <= NEURON:
        return plain_lif(part.compute(), v0, output=output, return_state=return_state, **settings)
    norm, row = call.read_by_neuron(), part.x
    if torch.is_grad_enabled() and not call.gradient:
        norm, row = norm.without_gradient(), row.detach()
    return norm.lif(row, axis, v0, settings, output, return_state)  # type: ignore[arg-type]


def like(x: Tensor) -> Tensor:
    """A tensor of the shape, dtype and device of x, whose values mean nothing if x is deferred."""
    return x.part.x if isinstance(x, DeferredNorm) else x
