"""State and parameters of neurons: one value, one per channel [C], or one per neuron [C, ...] or [B, C, ...]."""

from __future__ import annotations

import torch
from torch import Tensor

from deal_kernels._common.checks import check_companion
from deal_kernels._common.layout import arranged, inner_of, is_dense
from deal_kernels._common.types import STATE


def checked_state(name: str, state: Tensor | None, x: Tensor, row: torch.Size) -> Tensor | None:
    """An initial state, in the dtype of the state."""
    if state is None:
        return None
    check_companion(name, state, x)
    if state.shape != row:
        raise ValueError(f"{name} must have the shape of one step, {tuple(row)}; got {tuple(state.shape)}")
    return state.to(STATE[x.dtype])


def checked_parameter(name: str, p: Tensor | None, x: Tensor, row: torch.Size) -> Tensor | None:
    """A parameter in the dtype of the state, expanded to [C, ...] or [B, C, ...] if it has values per neuron."""
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


def broadcast(p: Tensor | None, number: float, row: Tensor) -> Tensor:
    """A parameter, or a number in its place, as a tensor that broadcasts against one step, [B, C, ...]."""
    if p is None:
        return torch.full((), number, dtype=STATE[row.dtype], device=row.device)
    if p.numel() == 1:
        return p.reshape(())
    return p.reshape(-1, *[1] * (row.dim() - 2)) if p.dim() == 1 < row.dim() else p


def by_neuron(p: Tensor | None, row: Tensor) -> Tensor | None:
    """A parameter with values per neuron in the memory order of a step. Others stay as they are."""
    if p is None or p.numel() == 1 or p.dim() == 1 < row.dim():
        return p
    if p.dim() < row.dim() and not is_dense(row.shape[1:], row.stride()[1:]):
        p = p.expand(row.shape)
    return arranged(p, row.stride()[row.dim() - p.dim() :])


def period(p: Tensor, row: Tensor) -> tuple[int, int]:
    """channels and inner of a parameter: neuron n has the value (n / inner) % channels."""
    by_channel = p.dim() == 1 < row.dim() and p.numel() > 1
    return p.numel(), inner_of(row) if by_channel else 1


def reduced(shares: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    """The sum of the neurons' shares [B, C, ...] of a parameter's gradient, in its shape."""
    if shares is None or parameter is None:
        return None
    if parameter.numel() == 1:
        return shares.sum().reshape(parameter.shape)
    if parameter.dim() == 1 < shares.dim():
        return shares.sum([axis for axis in range(shares.dim()) if axis != 1])
    return shares.sum_to_size(parameter.shape)
