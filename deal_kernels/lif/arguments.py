"""Argument validation for the neuron, shared with the batch norm that is fused with it."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion, check_tensor, is_integer, one_of
from deal_kernels._common.types import STATE
from deal_kernels.lif.neuron import Neuron

RECORDS = {"spikes": "spikes", "v": "states", "h": "membranes"}


def output_of(output: str, reduce: str | None, pack: bool, neuron: Neuron) -> str:
    """The output of the kernels: "spikes", "mean", "packed", "states" or "membranes"."""
    if output == "spikes" and reduce is None and not pack:
        return "spikes"
    one_of("output", output, tuple(RECORDS))
    one_of("reduce", reduce, (None, "mean"))
    if pack + (reduce is not None) + (output != "spikes") > 1:
        raise ValueError(
            f"pack=True, reduce='mean' and output exclude each other; got {pack=}, {reduce=} and {output=}"
        )
    if pack and (neuron.levels > 1 or neuron.scale != 1):
        raise ValueError(
            f"pack=True keeps one bit a spike and needs levels=1 and scale=1; got {neuron.levels} and {neuron.scale:g}"
        )
    return "packed" if pack else RECORDS[output] if reduce is None else "mean"


def floating(x: Tensor) -> Tensor:
    """x, or its numbers in the default dtype if they are integers or truth values."""
    whole = isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())
    return x.to(torch.get_default_dtype()) if whole else x


def check_input(x: Tensor, steps: int | None) -> None:
    check_tensor("x", x)
    if steps is None:
        if x.dim() == 0 or x.shape[0] == 0:
            raise ValueError(f"x must have at least one time step; got the shape {tuple(x.shape)}")
    elif not (is_integer(steps) or isinstance(steps, torch.SymInt)) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}")


def state_and_parameters(
    x: Tensor, steps: int | None, v0: Tensor | None, decay: Tensor | None, threshold: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """State and parameters, checked and in the state's dtype."""
    row = x.shape if steps is not None else x.shape[1:]
    dtype = STATE[x.dtype]
    if v0 is not None:
        check_companion("v0", v0, x)
        if v0.shape != row:
            raise ValueError(f"v0 must have the shape of one step, {tuple(row)}; got {tuple(v0.shape)}")
        v0 = v0.to(dtype)
    decay, threshold = _parameter("tau, rate or beta", decay, x, row), _parameter("v_threshold", threshold, x, row)
    return v0, decay, threshold


def _parameter(name: str, p: Tensor | None, x: Tensor, row: torch.Size) -> Tensor | None:
    """A parameter in the state's dtype: one value, one per channel [C], or one per neuron [C, ...] or [B, C, ...]."""
    if p is None:
        return None
    check_companion(name, p, x)
    if p.numel() != 1 and not (p.dim() == 1 < len(row) and p.shape == row[1:2]):
        neurons = row[len(row) - p.dim() :]
        if p.dim() < min(2, len(row)) or p.dim() < len(row) - 1 or not _broadcasts(p.shape, neurons):
            raise ValueError(
                f"{name} must have one value, one per channel, or a shape that broadcasts against a step or a sample "
                f"of it, {tuple(row)} or {tuple(row[1:])}; got the shape {tuple(p.shape)}"
            )
        p = p.expand(neurons)
    return p.to(STATE[x.dtype]).contiguous()


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) == len(to) and all(size in (1, wanted) for size, wanted in zip(shape, to, strict=True))
