"""What the tests that are the same for all operations know of one.

A `Call` is a function of tensors; a `Network` is a module with operations in it, for compilation, export and copies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn


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
        backends: which may run it.
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
    backends: tuple[str, ...] = ("cpp", "cuda", "triton", "torch")
    any_threads: bool = True
    second_derivatives: bool = False
    autocasts: bool = False
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def tensors(
        self, device: str = "cpu", dtype: torch.dtype | None = None, *, seed: int = 0, large: bool = False
    ) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = [draw(generator, device, dtype or self.dtype) for draw in (self.large if large else self.inputs)]
        if self.channels_last:
            drawn[0] = drawn[0].contiguous(memory_format=torch.channels_last)
        return drawn

    def results(self, tensors: list[Tensor], backend: str | None = None) -> tuple[Tensor, ...]:
        found = self.run(*tensors, backend=backend)
        return found if isinstance(found, tuple) else (found,)

    def with_gradients(self, tensors: list[Tensor], backend: str | None = None) -> list[Tensor]:
        """The results, and the gradients of the leaves for fixed gradients of the results."""
        given = self.leaf_tensors(tensors)
        results = self.results(given, backend)
        return [*(result.detach() for result in results), *self.gradients(results, given)]

    def leaf_tensors(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.detach().requires_grad_(k in self.leaves) for k, tensor in enumerate(tensors)]

    def gradients(self, results: tuple[Tensor, ...], given: list[Tensor], **options: bool) -> list[Tensor]:
        if not self.leaves:
            return []
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each) for each in results]
        return list(torch.autograd.grad(results, [given[k] for k in self.leaves], grads, **options))


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
        generator = torch.Generator().manual_seed(seed)
        return [draw(generator, "cpu", torch.float32) for draw in self.inputs]
