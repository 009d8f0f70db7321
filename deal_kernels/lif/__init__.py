"""The leaky integrate-and-fire neuron, forward and backward each in one pass over memory.

>>> import torch
>>> from deal_kernels.lif import lif
>>> x = torch.tensor([[0.5], [2.0], [2.0]])  # [T, N]
>>> lif(x, tau=2.0, v_threshold=1.0)[:, 0].tolist()
[0.0, 1.0, 1.0]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deal_kernels.layout import dense, in_memory_order, same_layout
from deal_kernels.lif import op, reference
from deal_kernels.lif.arguments import (
    Number,
    check_input,
    neuron_of,
    numbers_and_tensors,
    output_of,
    refuse_gradient,
    state_and_parameters,
)
from deal_kernels.lif.reference import Inputs

__all__ = ["LIF", "lif", "unpack"]

Surrogate = Literal["sigmoid", "atan", "triangle", "rectangle"]


def lif(
    x: Tensor,
    v0: Tensor | None = None,
    *,
    tau: Number | None = 2.0,
    leak: Number | None = None,
    decay_input: bool = True,
    v_threshold: Number = 1.0,
    v_reset: float | None = 0.0,
    reset: Literal["hard", "soft", "none"] | None = None,
    detach_reset: bool = False,
    surrogate: Surrogate = "sigmoid",
    alpha: float | None = None,
    fire: Literal["ge", "gt"] = "ge",
    levels: int = 1,
    steps: int | None = None,
    reduce: Literal["mean"] | None = None,
    pack: bool = False,
    return_state: bool = False,
    backend: str | None = None,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Runs a layer of spiking neurons over time.

    Per neuron, with state v, at every step:

    ==============================  ==================================
    charge                          h
    ==============================  ==================================
    ``tau``, ``decay_input=True``   v + (x - (v - v_rest)) / tau
    ``tau``, ``decay_input=False``  (v - (v - v_rest) / tau) + x
    ``leak``                        leak * v + x
    ``tau=None``                    v + x  (no leak)
    ==============================  ==================================

    s = 1 where h reaches ``v_threshold``, else 0; then the reset: hard, v = v_reset where it fired, else h; soft,
    v = h - s v_threshold; none, v = h. v_rest is v_reset for a hard reset and 0 otherwise.

    Args:
        x: input current [T, B, C, ...] (at least [T]), or [B, C, ...] with ``steps``. float32, float16,
            bfloat16 or float64; half types are computed with float32 state. Any dense layout is read as it
            lies (channels-last too); other layouts are copied once.
        v0: state before the first step, the shape of one step. None starts at rest.
        tau: time constant, at least 1. A number, or a tensor with one value or one per channel, which gets
            a gradient. None removes the leak.
        leak: factor on the state instead of ``tau``; number or tensor alike.
        v_threshold: number or tensor alike.
        v_reset: value of the hard reset; None is the soft reset.
        reset: names the reset instead: "hard", "soft" or "none".
        detach_reset: lets no gradient through the spike of the reset.
        surrogate: derivative that stands in for that of the step, ``alpha`` its sharpness (None: sigmoid 4,
            atan 2, triangle 1, rectangle 1).
        fire: "ge" fires at h >= v_threshold, "gt" at h > v_threshold.
        levels: D > 1 fires whole numbers, s = round(clamp(h / v_threshold, 0, D)), with the derivative 1 of
            the ratio inside that range as surrogate. Made for the soft reset; the hard one is then
            v = s v_reset + (1 - s) h.
        steps: T, when x is one current held for all steps.
        reduce: "mean" returns the mean over time [B, C, ...].
        pack: returns bits, [T, ceil(N / 8)] bytes of the neurons in memory order; see `unpack`. No gradient.
        return_state: returns (spikes, v) with the state after the last step, float32 for half types.
        backend: "cpp", "cuda", "triton" or "torch" runs that one or raises. None or "auto" chooses.
        out: receives the result; may be x itself for plain spikes. No gradient.

    Returns:
        Spikes [T, B, C, ...] in the dtype and layout of x, or what ``reduce``, ``pack`` and
        ``return_state`` ask for.

    >>> x = torch.randn(4, 2, 8, 5, 5, requires_grad=True)  # [T, B, C, H, W]
    >>> spikes, v = lif(x, tau=2.0, v_reset=None, surrogate="atan", return_state=True)
    >>> spikes.shape, v.shape
    (torch.Size([4, 2, 8, 5, 5]), torch.Size([2, 8, 5, 5]))
    """
    decay = threshold = None
    if type(tau) is not float or type(v_threshold) is not float or leak is not None:
        tau, leak, v_threshold, decay, threshold = numbers_and_tensors(tau, leak, v_threshold)
    settings = (tau, leak, decay_input, v_threshold, v_reset, reset, detach_reset, surrogate, alpha, fire, levels)
    neuron = neuron_of(*settings)
    if v0 is steps is out is decay is threshold is reduce is None and not (return_state or pack):
        quick = None if torch.compiler.is_dynamo_compiling() else op.spikes_at_once(neuron, x, backend)
        if quick is not None:
            return quick
    check_input(x, steps)
    output = output_of(reduce, pack, levels)
    if v0 is not None or decay is not None or threshold is not None:
        v0, decay, threshold = state_and_parameters(x, steps, v0, decay, threshold)
    inputs = Inputs(neuron, x, v0, decay, threshold, steps)
    if out is not None:
        _check_out(inputs, output, out)
        spikes, v = op.forward(inputs, output, return_state, backend, out)
    else:
        if pack:
            refuse_gradient("pack=True", x, v0, decay, threshold)
        spikes, v = op.lif(inputs, output, return_state, backend)
    return (spikes, v) if return_state else spikes  # type: ignore[return-value]


def unpack(packed: Tensor, like: Tensor | Sequence[int]) -> Tensor:
    """Spikes [T, ...] from the bits of ``lif(..., pack=True)``.

    Args:
        packed: [T, ceil(N / 8)] bytes.
        like: one step of the input, for its shape, dtype and layout, or just its shape (float32, contiguous).

    >>> x = torch.randn(4, 2, 10)
    >>> torch.equal(unpack(lif(x, pack=True), x[0]), lif(x))
    True
    """
    row = like if isinstance(like, Tensor) else torch.empty(tuple(like), dtype=torch.float32, device="meta")
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.shape[1] != (row.numel() + 7) // 8:
        raise ValueError(
            f"packed must be uint8 [T, {(row.numel() + 7) // 8}] for a step of shape {tuple(row.shape)}; "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    strides = (row.numel(), *row.stride())
    spikes = torch.empty_strided((len(packed), *row.shape), strides, dtype=row.dtype, device=packed.device)
    in_memory_order(spikes, row.stride()).copy_(reference.unpack(packed, row.numel()))
    return spikes


def _check_out(inputs: Inputs, output: str, out: Tensor) -> None:
    refuse_gradient("out=", inputs.x, inputs.v0, inputs.decay, inputs.threshold)
    shape, strides, dtype = op.result_layout(inputs._replace(x=dense(inputs.x, inputs.steps is None)), output)
    if tuple(out.shape) != shape or out.dtype != dtype or out.device != inputs.x.device:
        raise ValueError(
            f"out must be {dtype} {shape} on {inputs.x.device}; got {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    if out.numel() and not same_layout(out.shape, out.stride(), strides):
        raise ValueError(f"out must have the strides {strides}; got {out.stride()}")


class LIF(nn.Module):
    """`lif` as a layer. The keywords are those of `lif`; a tau, leak or v_threshold that is a Parameter is learnt.

    Args:
        stateful: starts each call from the state the last one left, until `reset`. The state is no part of the
            state_dict, and a copy of the module starts at rest.
        detach_state: cuts the gradient between calls.

    >>> layer = LIF(tau=nn.Parameter(torch.tensor(2.0)), stateful=True)
    >>> first = layer(torch.randn(4, 2, 8))  # [T, B, C]
    >>> layer.v.shape
    torch.Size([2, 8])
    >>> layer.reset()
    """

    v: Tensor | None

    def __init__(
        self, *, tau: Number | None = 2.0, leak: Number | None = None, v_threshold: Number = 1.0,
        stateful: bool = False, detach_state: bool = False, return_state: bool = False, **neuron: object,
    ) -> None:  # fmt: skip
        super().__init__()
        unknown = set(neuron) - (set(inspect.signature(lif).parameters) - {"x", "v0", "out"})
        if unknown:
            raise TypeError(f"LIF has no argument {', '.join(sorted(unknown))}")
        for name, value in (("tau", tau), ("leak", leak), ("v_threshold", v_threshold)):
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self.neuron = neuron
        self.stateful = stateful
        self.detach_state = detach_state
        self.return_state = return_state
        self.v = None

    def forward(self, x: Tensor, v0: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Spikes of x [T, B, C, ...], with the final state if ``return_state``."""
        return self.with_state(lif, x, v0)

    def with_state(self, run: Callable[..., Any], x: Tensor, v0: Tensor | None) -> Any:
        """What `run`, a function with the arguments of `lif`, gives for this neuron, whose state it moves on."""
        if v0 is None and self.stateful:
            v0 = self.v.detach() if self.detach_state and self.v is not None else self.v
        parameters = {"tau": self.tau, "leak": self.leak, "v_threshold": self.v_threshold}
        wanted = self.return_state or self.stateful
        result = run(x, v0, **parameters, **self.neuron, return_state=wanted)
        if self.stateful:
            self.v = result[1]
        return result[0] if wanted and not self.return_state else result

    def reset(self) -> None:
        """Forgets the state: the next call starts at rest."""
        self.v = None

    def detach_(self) -> None:
        """Keeps the state but cuts its gradient."""
        self.v = None if self.v is None else self.v.detach()

    def extra_repr(self) -> str:
        shown = {name: getattr(self, name) for name in ("tau", "leak", "v_threshold")} | self.neuron
        return ", ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, Tensor))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        if self.v is not None:
            self.v = fn(self.v)
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"v": None}
