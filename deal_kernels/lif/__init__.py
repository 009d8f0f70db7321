"""The leaky integrate-and-fire neuron, forward and backward each in one pass over memory.

>>> import torch
>>> from deal_kernels.lif import lif
>>> x = torch.tensor([[0.5], [2.0], [2.0]])  # [T, N]
>>> lif(x, tau=2.0, v_threshold=1.0)[:, 0].tolist()
[0.0, 1.0, 1.0]
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

import torch
from torch import Tensor, nn

from deal_kernels.layout import dense, in_memory_order, same_layout
from deal_kernels.lif import op, reference
from deal_kernels.lif.reference import STATE, Inputs, Neuron

__all__ = ["LIF", "lif", "unpack"]

Surrogate = Literal["sigmoid", "atan", "triangle", "rectangle"]
Number = float | Tensor

ALPHA = {"sigmoid": 4.0, "atan": 2.0, "triangle": 1.0, "rectangle": 1.0}
MOST_LEVELS = 1 << 22  # beyond this float32 no longer rounds to whole numbers by addition


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
        tau, leak, v_threshold, decay, threshold = _numbers_and_tensors(tau, leak, v_threshold)
    settings = (tau, leak, decay_input, v_threshold, v_reset, reset, detach_reset, surrogate, alpha, fire, levels)
    compiling = torch.compiler.is_dynamo_compiling()
    try:
        neuron = _checked(*settings) if compiling else _neuron(*settings)
    except TypeError:
        neuron = _checked(*settings)  # what cannot be hashed is named by the check, not by the cache
    if not compiling and v0 is steps is out is decay is threshold is reduce is None and not (return_state or pack):
        quick = op.spikes_at_once(neuron, x, backend)
        if quick is not None:
            return quick
    _check_input(x, steps)
    output = _output(reduce, pack, levels)
    if v0 is not None or decay is not None or threshold is not None:
        v0, decay, threshold = _tensors(x, steps, v0, decay, threshold)
    inputs = Inputs(neuron, x, v0, decay, threshold, steps)
    if out is not None:
        _check_out(inputs, output, out)
        spikes, v = op.forward(inputs, output, return_state, backend, out)
    else:
        if pack:
            _refuse_gradient(inputs, "pack=True")
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


def _numbers_and_tensors(
    tau: Number | None, leak: Number | None, v_threshold: Number
) -> tuple[float | None, float | None, float, Tensor | None, Tensor | None]:
    """tau, leak and v_threshold as numbers, then decay and threshold as tensors where they were given so."""
    decay = threshold = None
    if isinstance(v_threshold, Tensor):
        threshold, v_threshold = v_threshold, 1.0
    if isinstance(leak, Tensor):
        decay, leak = leak, 1.0
    elif isinstance(tau, Tensor) and leak is None:
        decay, tau = tau, 2.0
    return tau, leak, v_threshold, decay, threshold  # type: ignore[return-value]


def _checked(
    tau: float | None, leak: float | None, decay_input: bool, v_threshold: float, v_reset: float | None,
    reset: str | None, detach_reset: bool, surrogate: str, alpha: float | None, fire: str, levels: int,
) -> Neuron:  # fmt: skip
    """The neuron of these settings."""
    if leak is not None:
        charge, decay = "leak", _number("leak", leak)
    elif tau is None:
        charge, decay = "leak", 1.0
    else:
        charge, decay = "decay_input" if decay_input else "decay", _number("tau", tau)
        if decay < 1:
            raise ValueError(f"tau must be at least 1; got {tau}")
    _one_of("reset", reset, (None, *reference.RESETS))
    _one_of("surrogate", surrogate, reference.SURROGATES)
    _one_of("fire", fire, reference.FIRES)
    if reset == "hard" and v_reset is None:
        raise ValueError("reset='hard' needs a number as v_reset; got None")
    reset = reset or ("soft" if v_reset is None else "hard")
    rest = _number("v_reset", v_reset) if reset == "hard" else 0.0
    threshold = _number("v_threshold", v_threshold)
    alpha = ALPHA[surrogate] if alpha is None else _number("alpha", alpha)
    if alpha <= 0:
        raise ValueError(f"alpha must be positive; got {alpha}")
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"levels must be a whole number from 1 to {MOST_LEVELS}; got {levels!r}")
    if levels > 1 and threshold <= 0:
        raise ValueError(f"v_threshold must be positive with levels > 1; got {threshold}")
    return Neuron(charge, decay, threshold, reset, rest, bool(detach_reset), surrogate, alpha, fire, levels)


_neuron = functools.lru_cache(maxsize=1024)(_checked)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    value = float(value)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite; got {value}")
    return value


def _one_of(name: str, value: object, accepted: Sequence[object]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def _output(reduce: str | None, pack: bool, levels: int) -> str:
    if reduce is None and not pack:
        return "spikes"
    _one_of("reduce", reduce, (None, "mean"))
    if pack and reduce:
        raise ValueError("pack=True and reduce='mean' exclude each other")
    if pack and levels > 1:
        raise ValueError(f"pack=True keeps one bit a spike and needs levels=1; got levels={levels}")
    return "packed" if pack else "mean"


def _check_input(x: Tensor, steps: int | None) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor; got {type(x).__name__}")
    if x.dtype not in STATE:
        raise TypeError(f"x must be float32, float16, bfloat16 or float64; got {x.dtype}")
    if x.layout is not torch.strided:
        raise TypeError(f"x must be a dense tensor; got the layout {x.layout}")
    if steps is None:
        if x.dim() == 0 or x.shape[0] == 0:
            raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")
    elif isinstance(steps, bool) or not isinstance(steps, (int, torch.SymInt)) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1; got {steps!r}")


def _tensors(
    x: Tensor, steps: int | None, v0: Tensor | None, decay: Tensor | None, threshold: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """State and parameters, checked and in the state's dtype."""
    row = x.shape if steps is not None else x.shape[1:]
    dtype = STATE[x.dtype]
    if v0 is not None:
        _check_companion("v0", v0, x)
        if v0.shape != row:
            raise ValueError(f"v0 must have the shape of one step, {tuple(row)}; got {tuple(v0.shape)}")
        v0 = v0.to(dtype)
    for name, parameter in (("tau or leak", decay), ("v_threshold", threshold)):
        if parameter is None:
            continue
        _check_companion(name, parameter, x)
        channels = row[1] if len(row) > 1 else 1
        if parameter.numel() != 1 and (parameter.dim() != 1 or parameter.numel() != channels):
            raise ValueError(
                f"{name} must have one value or one per channel, {channels} for a step of shape {tuple(row)}; "
                f"got the shape {tuple(parameter.shape)}"
            )
    decay = None if decay is None else decay.to(dtype).contiguous()
    threshold = None if threshold is None else threshold.to(dtype).contiguous()
    return v0, decay, threshold


def _check_companion(name: str, tensor: Tensor, x: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}")
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense floating-point tensor; got {tensor.dtype}, {tensor.layout}")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def _check_out(inputs: Inputs, output: str, out: Tensor) -> None:
    _refuse_gradient(inputs, "out=")
    shape, strides, dtype = op.result_layout(inputs._replace(x=dense(inputs.x, inputs.steps is None)), output)
    if tuple(out.shape) != shape or out.dtype != dtype or out.device != inputs.x.device:
        raise ValueError(
            f"out must be {dtype} {shape} on {inputs.x.device}; got {out.dtype} {tuple(out.shape)} on {out.device}"
        )
    if out.numel() and not same_layout(out.shape, out.stride(), strides):
        raise ValueError(f"out must have the strides {strides}; got {out.stride()}")


def _refuse_gradient(inputs: Inputs, argument: str) -> None:
    if torch.is_grad_enabled() and op.needs_gradient(inputs):
        raise ValueError(f"{argument} has no gradient: call it under torch.no_grad(), or detach what requires grad")


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
        if v0 is None and self.stateful:
            v0 = self.v.detach() if self.detach_state and self.v is not None else self.v
        parameters = {"tau": self.tau, "leak": self.leak, "v_threshold": self.v_threshold}
        wanted = self.return_state or self.stateful
        result = lif(x, v0, **parameters, **self.neuron, return_state=wanted)  # type: ignore[arg-type]
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
