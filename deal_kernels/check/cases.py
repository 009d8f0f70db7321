"""The tensors that calls are checked with, and what they have to give."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels.check.calls import Call, cotangents, drawn_tensors
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Outcome

ALIGNED = {"B": 2, "C": 8, "O": 8, "K": 3, "R": 8, "H": 8, "W": 16}
ODD = {"B": 3, "C": 5, "O": 7, "K": 3, "R": 9, "H": 13, "W": 11}
LAYOUTS = ("aligned", "offset", "channels-last", "odd")
STEPS = (1, 4, 17)
DTYPES = (torch.float32, torch.bfloat16)
FEW = (
    ((torch.float32, "aligned", 4), (torch.bfloat16, "offset", 17)),
    ((torch.float32, "odd", 17), (torch.bfloat16, "channels-last", 4)),
    ((torch.float32, "offset", 1), (torch.bfloat16, "aligned", 4)),
)
FLOOR = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2**-7}  # errors up to this are rounding
TIMES_TORCH = 4  # so many times the error of torch on the CPU is allowed: sums in another order
SOUND = {torch.float32: 1e-4, torch.bfloat16: 2**-4}  # the error of torch itself on data that are fit for a comparison
SEEDS = 30


class Target(NamedTuple):
    """A backend, and the device that it runs on."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend} on {self.device}"


class Case(NamedTuple):
    """A call on tensors of a type, in a layout, with so many steps; None where the operation has no time."""

    call: Call
    dtype: torch.dtype
    layout: str
    steps: int | None

    def __str__(self) -> str:
        named = f"{str(self.dtype).removeprefix('torch.')}, {self.layout}"
        return named if self.steps is None else f"{named}, T={self.steps}"

    def tensors(self, device: str, like: list[Tensor]) -> list[Tensor]:
        """Tensors with these values, on a device and in the layout."""
        tensors = [tensor.to(device) for tensor in like]
        if self.layout == "offset":
            return [offset(tensor) for tensor in tensors]
        if self.layout == "channels-last":
            shape, axis = tensors[0].shape, channel_axis(self.call)
            return [channels_last(tensor, axis) if tensor.shape == shape else tensor for tensor in tensors]
        return tensors


class Expected(NamedTuple):
    """Tensors of a case on a CPU, what torch makes of them in their own type and in float64, and the error allowed."""

    tensors: list[Tensor]
    grads: list[Tensor]
    own: list[Tensor]
    exact: list[Tensor]
    allowed: list[float]


def live_targets() -> list[Target]:
    """Every backend that runs here, on every kind of device there is."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [
        Target(backend, device)
        for device, backend in itertools.product(devices, backends.BACKENDS)
        if backends.unavailable(backend, device) is None
    ]


def free_gigabytes(device: str) -> float:
    """GPU memory that is free, or that torch keeps and does not use."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0] / 2**30


def fastest(targets: list[Target]) -> str:
    """The device that speed is measured on."""
    return "cuda" if any(target.device == "cuda" for target in targets) else "cpu"


def own_targets(call: Call, targets: list[Target]) -> list[Target]:
    """Those where a kernel of this library runs the call."""
    return [target for target in targets if target.backend in call.backends and target.backend != "torch"]


def cases_of(call: Call, backend: str) -> list[Case]:
    """All of them; for Triton, which compiles kernels for each, two, which differ between the calls of an operation."""
    times: tuple[int | None, ...] = STEPS if "T" in call.axes else (None,)
    if backend == "triton":
        few = FEW[CALLS.index(call) % len(FEW)]
        return [Case(call, *each) if "T" in call.axes else Case(call, *each[:2], None) for each in few]
    layouts = [layout for layout in LAYOUTS if layout != "channels-last" or channel_axis(call) is not None]
    return [Case(call, *each) for each in itertools.product(DTYPES, layouts, times)]


def channel_axis(call: Call) -> int | None:
    """The axis of the first tensor that is innermost in memory in the layout channels-last."""
    axes = call.axes.replace("O", "")
    return next((axes.index(letter) for letter in "CK" if letter in axes), None)


def offset(tensor: Tensor) -> Tensor:
    """A copy that begins one element behind where memory is aligned."""
    memory = tensor.new_empty(tensor.numel() + 1)
    return memory[1:].view(tensor.shape).copy_(tensor)


def channels_last(tensor: Tensor, axis: int | None) -> Tensor:
    assert axis is not None
    return tensor.movedim(axis, -1).contiguous().movedim(-1, axis)


def error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    if exact.numel() == 0:
        return 0.0
    difference = (found.cpu().double() - exact).abs().max().item()
    largest = exact.abs().max().item()
    return difference / largest if largest else difference


def expected(case: Case) -> Expected:
    """Of the first data on which a rounding error decides no spike, so that every correct result is near the exact one.

    Values do not depend on the layout.
    """
    return _expected(case.call, case.dtype, case.layout == "odd", case.steps)


@functools.lru_cache(maxsize=16)  # those of one call
def _expected(call: Call, dtype: torch.dtype, odd: bool, steps: int | None) -> Expected:
    draws = call.sized((ODD if odd else ALIGNED) | {"T": steps or 1})
    for seed in range(SEEDS):
        tensors = drawn_tensors(draws, "cpu", dtype, seed)
        grads = cotangents(call.results(tensors, "torch"))
        own = call.with_gradients(tensors, "torch", grads)
        exact = in_float64(call, tensors, grads)
        errors = [error(*pair) for pair in zip(own, exact, strict=True)]
        moved = in_float64(call, [rounded_otherwise(tensor) for tensor in tensors], grads)
        moves = [error(*pair) for pair in zip(moved, exact, strict=True)]
        # `not <=` also turns NaN down.
        if not any(not each <= SOUND[dtype] for each in errors + moves):
            allowed = [max(TIMES_TORCH * e, FLOOR[tensor.dtype]) for e, tensor in zip(errors, own, strict=True)]
            return Expected(tensors, grads, own, exact, allowed)
    raise AssertionError(f"torch on the CPU is not near float64 on any of {SEEDS} sets of data")


def rounded_otherwise(tensor: Tensor) -> Tensor:
    """In float64, every value a rounding error of float32 larger or smaller."""
    generator = torch.Generator().manual_seed(2)
    signs = torch.randint(2, tensor.shape, generator=generator) * 2 - 1
    return tensor.double() * (1 + signs * 2**-22)


def in_float64(call: Call, tensors: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    return call.with_gradients([tensor.double() for tensor in tensors], "torch", [grad.double() for grad in grads])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Threads of torch cost more than they save on small tensors, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def strict(target: Target) -> Iterator[None]:
    """Fresh memory is filled with NaN, so that an element that no kernel wrote is seen. cuDNN computes in float32."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of torch, which names its operations that are not deterministic
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if target.backend == "torch":
            stack.enter_context(one_thread())
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warns)


def strictly(check: Callable[[Call, Target], Outcome], call: Call, target: Target) -> Outcome:
    with strict(target):
        return check(call, target)
