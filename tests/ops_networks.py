"""A network of the tests that are the same for all operations: for compilation, export and copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from deal_kernels.check.calls import Draw, drawn_tensors


@dataclasses.dataclass(frozen=True)
class Network:
    """A module with operations in it.

    Args:
        build: makes it.
        inputs: the tensors it takes.
        leaves: which of them get a gradient, beside the parameters.
        operations: torch operations that are found in an exported program of it.
        training: its mode.
        exact: whether its compiled forward pass has the same bits.
        rtol, atol: of the gradients of the compiled network; None for torch's own.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Draw, ...]
    leaves: tuple[int, ...]
    operations: tuple[str, ...]
    training: bool = True
    exact: bool = False
    rtol: float | None = None
    atol: float | None = None

    def module(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().train(self.training)

    def tensors(self, seed: int = 0) -> list[Tensor]:
        return drawn_tensors(self.inputs, "cpu", torch.float32, seed)
