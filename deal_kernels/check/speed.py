"""How fast every call moves its tensors, beside a copy in the same rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels.check import cases
from deal_kernels.check.calls import Call, Draw
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Check, Figure, Outcome

SIZES = {"T": 4, "B": 1, "C": 32, "O": 32, "K": 3, "R": 64, "H": 128, "W": 128}
CPU_ELEMENTS = 1 << 21
GPU_ELEMENTS = ((1 << 26, 40), (1 << 24, 12), (1 << 22, 0))  # and the GB of free memory that they take
SETS = 3  # that take turns, so that none is found in a cache
SECONDS = 0.25  # for the rounds of a call
ROUNDS = 3  # at least


class Work(NamedTuple):
    """What is timed in turns, and the bytes that it has to read and write at least."""

    what: str
    run: Callable[[int], object]  # on the set of this number
    nbytes: int


def speed(targets: list[Target]) -> list[Check]:
    """Of each call on the fastest device: the backends of this library, or torch where the call has none there."""
    device = cases.fastest(targets)
    here = [target for target in targets if target.device == device]
    checks = []
    for call in CALLS:
        for target in cases.own_targets(call, here) or [Target("torch", device)]:
            for dtype in cases.DTYPES if device == "cuda" and target.backend != "triton" else (torch.float32,):
                name = f"{call.name}, {str(dtype).removeprefix('torch.')}, {target}"
                checks.append(Check("speed", name, partial(timed, call, target, dtype)))
    return checks


def timed(call: Call, target: Target, dtype: torch.dtype) -> Outcome:
    """Forward, and forward and backward, of the user's call; results are allocated."""
    backend, device = target
    draws = call.sized(sizes_for(call, elements_for(device)))
    sets = [[fast_drawn(draw, device, dtype) for draw in draws] for _ in range(SETS)]
    grads = [torch.ones_like(result) for result in call.results(sets[0], backend)]
    into = torch.empty_like(sets[0][0])
    inputs, results = bytes_of(sets[0]), bytes_of(grads)
    gradients = bytes_of([sets[0][k] for k in call.leaves])

    def forward(k: int) -> object:
        with torch.no_grad():
            return call.results(sets[k], backend)

    works = [
        Work("copy", lambda k: into.copy_(sets[k][0]), 2 * into.nbytes),
        Work("forward", forward, inputs + results),
    ]
    if call.leaves:
        both = 2 * (inputs + results) + gradients
        works.append(Work("forward+backward", lambda k: call.with_gradients(sets[k], backend, grads), both))
    seconds = medians([work.run for work in works], device)
    rates = [work.nbytes / each / 1e9 for work, each in zip(works, seconds, strict=True)]
    name = f"{call.name}, {str(dtype).removeprefix('torch.')}"
    figures = tuple(
        Figure(f"{name}, {work.what}", str(target), each * 1e3, rate, rates[0])
        for work, each, rate in zip(works[1:], seconds[1:], rates[1:], strict=True)
    )
    share = ", ".join(f"{work.what} {rate / rates[0]:.0%}" for work, rate in zip(works[1:], rates[1:], strict=True))
    return Outcome(f"{share} of the rate of a copy", figures)


def elements_for(device: str) -> int:
    if device == "cpu":
        return CPU_ELEMENTS
    free = cases.free_gigabytes(device)
    return next(elements for elements, needed in GPU_ELEMENTS if free >= needed)


def sizes_for(call: Call, elements: int) -> dict[str, int]:
    """Sizes with so many elements in the first tensor, or a few more."""
    sample = torch.Size(call.sized(SIZES)[0].shape).numel()
    return SIZES | {"B": -(-elements // sample)}


def fast_drawn(draw: Draw, device: str, dtype: torch.dtype) -> Tensor:
    """Other values of the same distribution, drawn on the device."""
    half = dtype in (torch.float16, torch.bfloat16)
    tensor = torch.empty(draw.shape, device=device, dtype=torch.float32 if half and draw.parameter else dtype)
    return tensor.normal_() if draw.bounds is None else tensor.uniform_(*draw.bounds)


def bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def medians(runs: Sequence[Callable[[int], object]], device: str) -> list[float]:
    """Median seconds of runs that take turns, so that a busy moment of the machine affects all of them."""
    for run in runs:
        run(0)
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < ROUNDS or time.perf_counter() - start < SECONDS:
        times.append([seconds_of(run, device) for run in runs])
    return [statistics.median(each) for each in zip(*times, strict=True)]


def seconds_of(run: Callable[[int], object], device: str) -> float:
    """Seconds of a run, the mean over the sets."""
    if device == "cpu":
        start = time.perf_counter()
        for k in range(SETS):
            run(k)
        return (time.perf_counter() - start) / SETS
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for k in range(SETS):
        run(k)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / SETS / 1e3
