"""Argument validation for the degradation mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion, check_tensor
from deal_kernels._common.dispatch import untraced
from deal_kernels._common.types import STATE
from deal_kernels.degradation.names import RANDOM, REACH, RESIZES, Name, known, parsed
from deal_kernels.degradation.patterns import TERMS

Params = Mapping[str, Tensor]

BLURS = "gaussian_blur", "wide_blur"  # by a deviation for each image


def check_names(ops: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, each checked."""
    if isinstance(ops, str) or not isinstance(ops, Sequence):
        raise TypeError(f"ops must be a list of names; got {ops!r}")
    if not ops:
        raise ValueError("ops must have at least one name; got none")
    for name in ops:
        _named(name)
    return tuple(ops)


def _named(name: str) -> Name:
    # torch.compile does not trace into a cache, and the check names what cannot be hashed.
    return known(name) if isinstance(name, str) and not torch.compiler.is_dynamo_compiling() else parsed(name)


def check_image(x: Tensor, ops: Sequence[str]) -> None:
    check_tensor("x", x)
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x must be [B, C, H, W] with one or three channels; got the shape {tuple(x.shape)}")
    size = min(x.shape[2:])
    for name in ops:
        kind, strength = _named(name)
        least = REACH[kind] + 1 if kind in REACH else strength if kind in RESIZES else 0
        if size < least:
            height, width = x.shape[2:]
            raise ValueError(f"{name} needs images of {least:g} x {least:g} pixels or more; got {height} x {width}")


def prepared_weights(x: Tensor, weights: Tensor, ops: Sequence[str]) -> Tensor:
    """The weights, checked and in the state's dtype."""
    check_companion("weights", weights, x)
    if weights.dim() != 3 or weights.shape[0] != x.shape[0] or weights.shape[2] != len(ops) or weights.shape[1] < 1:
        raise ValueError(
            f"weights must be [B, S, N] with B = {x.shape[0]} samples, S at least 1 and N = {len(ops)} operations; "
            f"got the shape {tuple(weights.shape)}"
        )
    return weights.to(STATE[x.dtype])


def shape_of_values(name: str, shape: Sequence[int], stages: int) -> tuple[int, ...]:
    """The shape of an operation's values for images [B, C, H, W]."""
    batch, channels, height, width = shape
    of_one: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(BLURS, ()),
        **dict.fromkeys(("row_stripe", "row_gain"), (height,)),
        **dict.fromkeys(("stripe", "gain"), (width,)),
        **dict.fromkeys(("noise", "dead"), (channels, height, width)),
        "tone": (2,), "glow": (4,), "shading": (TERMS, TERMS), "partial_stripe": (3, width),
    }  # fmt: skip
    return batch, stages, *of_one[name]


def prepared_values(x: Tensor, stages: int, ops: Sequence[str], params: Params | None) -> list[Tensor]:
    """The values of each operation that takes some, checked and in the state's dtype."""
    params = {} if params is None else params
    if not isinstance(params, Mapping):
        raise TypeError(f"params must map names to tensors; got {type(params).__name__}")
    needed = [name for name in ops if name in RANDOM]
    missing, superfluous = [n for n in needed if n not in params], [n for n in params if n not in needed]
    if missing or superfluous:
        raise ValueError(
            f"params must have {_listed(needed)} for these ops; got {_listed(params)}"
            f"{f', which lacks {_listed(missing)}' if missing else ''}"
        )
    return [_prepared(name, params[name], x, shape_of_values(name, x.shape, stages)) for name in needed]


def _listed(names: Sequence[str] | Params) -> str:
    return ", ".join(map(repr, dict.fromkeys(names))) or "nothing"


def _prepared(name: str, values: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    argument = f"params[{name!r}]"
    check_companion(argument, values, x)
    if values.shape != shape:
        raise ValueError(f"{argument} must have the shape {shape}; got {tuple(values.shape)}")
    if values.requires_grad:
        raise ValueError(f"{argument} has no gradient; got a tensor that requires grad: detach it")
    # On a GPU the check would wait for it.
    if name in BLURS and values.is_cpu and untraced(values) and not (values > 0).all():
        raise ValueError(f"{argument} must be above 0, as it has deviations; got {values.min().item():g}")
    return values.to(STATE[x.dtype]).contiguous()
