"""Argument validation for the neuron, shared with the batch norm that is fused with it."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion, check_tensor, is_integer, one_of
from deal_kernels._common.types import STATE


def output_of(reduce: str | None, pack: bool, levels: int) -> str:
    """The output of the kernels: "spikes", "mean" or "packed"."""
    if reduce is None and not pack:
        return "spikes"
    one_of("reduce", reduce, (None, "mean"))
    if pack and reduce:
        raise ValueError("pack=True and reduce='mean' exclude each other")
    if pack and levels > 1:
        raise ValueError(f"pack=True keeps one bit a spike and needs levels=1; got levels={levels}")
    return "packed" if pack else "mean"


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
    for name, parameter in (("tau or beta", decay), ("v_threshold", threshold)):
        if parameter is None:
            continue
        check_companion(name, parameter, x)
        channels = row[1] if len(row) > 1 else 1
        if parameter.numel() != 1 and (parameter.dim() != 1 or parameter.numel() != channels):
            raise ValueError(
                f"{name} must have one value or one per channel, {channels} for a step of shape {tuple(row)}; "
                f"got the shape {tuple(parameter.shape)}"
            )
    decay = None if decay is None else decay.to(dtype).contiguous()
    threshold = None if threshold is None else threshold.to(dtype).contiguous()
    return v0, decay, threshold
