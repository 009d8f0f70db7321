"""What the check of a machine, and the tests, know of a call of an operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Draw:
    """A random tensor: normal, or uniform between two bounds."""

    shape: tuple[int, ...]
    bounds: tuple[float, float] | None = None
    parameter: bool = False  # parameters of half inputs are float32

    def __call__(self, generator: torch.Generator, device: str, dtype: torch.dtype) -> Tensor:
        if self.bounds is None:
            drawn = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        else:
            low, high = self.bounds
            drawn = torch.rand(self.shape, generator=generator, dtype=torch.float64) * (high - low) + low
        half = dtype in (torch.float16, torch.bfloat16)
        return drawn.to(device, torch.float32 if half and self.parameter else dtype)


@dataclasses.dataclass(frozen=True)
class Call:
    """One way to call an operation.

    Args:
        run: of the tensors, and `backend`; a tensor or a tuple of them.
        inputs: the tensors.
        leaves: which of them get a gradient.
        operations: the torch operations that the forward pass dispatches to; none where torch computes.
        large: tensors that take several threads.
        axes: a letter for each size that `draws` takes: T steps, B samples, C channels, K colours, O channels of the
            result, R rows, H and W. The first tensor has these axes in this order, but for O.
        draws: the tensors of other sizes.
        backends: which may run it.
        exact: how many results, from the first on, have the same bits on every backend.
        any_threads: whether results and gradients have the same bits for any number of threads.
        second_derivatives: whether there are any; a call without them refuses.
        autocasts: whether autocast changes the type that it computes in.
        dtype, channels_last: of the inputs.
    """

    name: str
    run: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[Draw, ...]
    leaves: tuple[int, ...]
    operations: tuple[str, ...]
    large: tuple[Draw, ...] = ()
    axes: str = ""
    draws: Callable[..., tuple[Draw, ...]] | None = None
    backends: tuple[str, ...] = ("cpp", "cuda", "triton", "torch")
    exact: int = 0
    any_threads: bool = True
    second_derivatives: bool = False
    autocasts: bool = False
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def tensors(
        self, device: str = "cpu", dtype: torch.dtype | None = None, *, seed: int = 0, large: bool = False
    ) -> list[Tensor]:
        drawn = drawn_tensors(self.large if large else self.inputs, device, dtype or self.dtype, seed)
        if self.channels_last:
            drawn[0] = drawn[0].contiguous(memory_format=torch.channels_last)
        return drawn

    def sized(self, sizes: dict[str, int]) -> tuple[Draw, ...]:
        """The tensors, with a size for every letter of the axes."""
        assert self.draws is not None, self.name
        return self.draws(*(sizes[axis] for axis in self.axes))

    def results(self, tensors: list[Tensor], backend: str | None = None) -> tuple[Tensor, ...]:
        found = self.run(*tensors, backend=backend)
        return found if isinstance(found, tuple) else (found,)

    def with_gradients(
        self, tensors: list[Tensor], backend: str | None = None, grads: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """The results, and the gradients of the leaves for fixed gradients of the results."""
        given = self.leaf_tensors(tensors)
        results = self.results(given, backend)
        return [*(result.detach() for result in results), *self.gradients(results, given, grads)]

    def leaf_tensors(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.detach().requires_grad_(k in self.leaves) for k, tensor in enumerate(tensors)]

    def gradients(
        self, results: tuple[Tensor, ...], given: list[Tensor], grads: Sequence[Tensor] | None = None, **options: Any
    ) -> list[Tensor]:
        if not self.leaves:
            return []
        grads = cotangents(results) if grads is None else grads
        return list(torch.autograd.grad(results, [given[k] for k in self.leaves], grads, **options))


def drawn_tensors(draws: Sequence[Draw], device: str, dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [draw(generator, device, dtype) for draw in draws]


def cotangents(results: Sequence[Tensor]) -> list[Tensor]:
    """Fixed gradients of the results."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each) for each in results]
