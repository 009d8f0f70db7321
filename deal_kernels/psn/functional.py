"""`psn` and `sliding_psn`: check, dispatch, return."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from deal_kernels import surrogate as surrogates
from deal_kernels._common.axes import Axes
from deal_kernels._common.checks import check_companion, check_integer, check_strided, check_tensor
from deal_kernels._common.forked import one_thread_if_forked
from deal_kernels._common.types import STATE
from deal_kernels.psn import op
from deal_kernels.psn.reference import Inputs
from deal_kernels.surrogate import SurrogateLike


def psn(
    x: Tensor, weight: Tensor, bias: Tensor, *, band: int | None = None, surrogate: SurrogateLike = "atan",
    backend: str | None = None, time_axis: int = 0,
) -> Tensor:  # fmt: skip
    """Runs a layer of parallel spiking neurons: each step sees all steps, by learnt weights.

    h = weight @ x + bias over time, and a neuron fires, s = 1, where h is at least 0: -bias is its threshold. There is
    no state and no reset. In training only x is kept.

    Args:
        x: input current [T, B, C, ...] (at least [T]): float32, float16, bfloat16 or float64. Half types are computed
            in float32. Dense layouts, channels-last among them, are read without a copy. Where time is not outermost in
            memory, at least 32 neurons have to lie side by side.
        weight: [T, T]; row t has the weights of step t.
        bias: [T], or [T, 1].
        band: k, if step t has weights of the steps from t - k + 1 to t alone. The others are taken as 0 and get the
            gradient 0. None is all steps.
        surrogate: replaces the derivative of the step function, as in `deal_kernels.lif.lif`; a function of u gets
            u = h.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        time_axis: the axis of x and of the spikes that is time. 1 is for [B, T, C, ...], which is read without a copy,
            but for the gradient of the weight on a GPU. The channels may be on any axis: nothing here depends on them.

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x.

    >>> x = torch.randn(4, 2, 8, 5, 5, requires_grad=True)  # [T, B, C, H, W]
    >>> psn(x, torch.rand(4, 4), torch.full((4,), -1.0)).shape
    torch.Size([4, 2, 8, 5, 5])
    """
    if time_axis != 0:
        check_strided("x", x)
        axes = Axes(x, time_axis)
        return axes.restored(psn(axes.usual(x), weight, bias, band=band, surrogate=surrogate, backend=backend))
    _check_input(x)
    steps = x.shape[0]
    if band is not None:
        check_integer("band", band, 1)
    _check_shape("weight", weight, x, ((steps, steps),))
    _check_shape("bias", bias, x, ((steps,), (steps, 1)))
    inputs = Inputs(x, _computed_in(weight, x), _computed_in(bias, x), band, 0)
    return op.psn(inputs, surrogates.checked(surrogate), backend)


@overload
def sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None, *, surrogate: SurrogateLike = "atan",
    return_state: Literal[False] = False, backend: str | None = None, time_axis: int = 0,
) -> Tensor: ...  # fmt: skip
@overload
def sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None, *, surrogate: SurrogateLike = "atan",
    return_state: Literal[True], backend: str | None = None, time_axis: int = 0,
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None, *, surrogate: SurrogateLike = "atan",
    return_state: bool, backend: str | None = None, time_axis: int = 0,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
def sliding_psn(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None, *, surrogate: SurrogateLike = "atan",
    return_state: bool = False, backend: str | None = None, time_axis: int = 0,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Runs a layer of parallel spiking neurons whose steps all have the same k weights, of the last k inputs.

    h[t] = weight[k - 1] x[t] + weight[k - 2] x[t - 1] + ... + bias, and a neuron fires, s = 1, where h is at least 0.
    Before the first step there are zeros, or the inputs of an earlier call: step by step, or in parts, the spikes have
    the same bits as at once.

    Args:
        x: as in `psn`, with any number of steps.
        weight: [k], the last one for the step itself.
        bias: a tensor with one value.
        before: the last k - 1 inputs before x, [k - 1, B, C, ...]. None is zeros.
        surrogate, backend: as in `psn`.
        return_state: returns (spikes, the last k - 1 inputs), which is `before` of the next call.
        time_axis: the axis of x, `before` and the results that is time. As in `psn` 1 is read without a copy, unless
            there is a `before`: then both are copied into one.

    >>> x = torch.randn(6, 2, 8)  # [T, B, C]
    >>> weight, bias = torch.tensor([0.25, 0.5, 1.0]), torch.tensor(-1.0)
    >>> first, state = sliding_psn(x[:4], weight, bias, return_state=True)
    >>> second = sliding_psn(x[4:], weight, bias, state)
    >>> torch.equal(torch.cat([first, second]), sliding_psn(x, weight, bias))
    True
    """
    if time_axis != 0:
        check_strided("x", x)
        axes = Axes(x, time_axis)
        options: dict[str, Any] = {"surrogate": surrogate, "return_state": return_state, "backend": backend}
        found = sliding_psn(axes.usual(x), weight, bias, axes.usual(before), **options)
        return (axes.restored(found[0]), axes.restored(found[1])) if return_state else axes.restored(found)
    _check_input(x)
    check_companion("weight", weight, x)
    if weight.dim() != 1 or weight.numel() == 0:
        raise ValueError(f"weight must have the shape [k], k at least 1; got {tuple(weight.shape)}")
    _check_shape("bias", bias, x, ((), (1,)))
    k = weight.numel()
    if before is not None or return_state:
        one_thread_if_forked()  # for torch's copies
    if before is not None:
        _check_shape("before", before, x, ((k - 1, *x.shape[1:]),))
        x = torch.cat([before.to(x.dtype), x])
    inputs = Inputs(x, _computed_in(weight, x), _computed_in(bias, x), k, 0 if before is None else k - 1)
    spikes = op.psn(inputs, surrogates.checked(surrogate), backend)
    return (spikes, _last_inputs(x, k - 1)) if return_state else spikes


def _check_input(x: Tensor) -> None:
    check_tensor("x", x)
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")


def _check_shape(name: str, tensor: Tensor, x: Tensor, accepted: tuple[tuple[int, ...], ...]) -> None:
    check_companion(name, tensor, x)
    if tuple(tensor.shape) not in accepted:
        shapes = " or ".join(str(list(shape)) for shape in accepted)
        raise ValueError(f"{name} must have the shape {shapes}; got {list(tensor.shape)}")


def _computed_in(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.to(STATE[x.dtype])


def _last_inputs(x: Tensor, count: int) -> Tensor:
    """A copy, so that x itself need not be kept."""
    if len(x) >= count:
        return x[len(x) - count :].clone()
    return torch.cat([x.new_zeros(count - len(x), *x.shape[1:]), x])
