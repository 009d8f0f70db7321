"""Where work runs on a GPU: on the current stream, on the device of the tensors, and in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from deal_kernels.check import cases
from deal_kernels.check.calls import Call, cotangents, drawn_tensors
from deal_kernels.check.cases import Target
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Check, NotApplicable, Outcome

BUSY = 20_000_000  # cycles that a stream sleeps: about 10 ms, which a call takes much less of

Step = Callable[[], list[Tensor]]


def on_gpu(part: str, check: Callable[[Call, Target], Outcome], targets: list[Target]) -> list[Check]:
    """A check of each call on every backend of this library that runs it on a GPU."""
    return [
        Check(part, f"{call.name}, {target}", partial(cases.strictly, check, call, target))
        for call in CALLS
        for target in cases.own_targets(call, targets)
        if target.device != "cpu"
    ]


def streams(targets: list[Target]) -> list[Check]:
    return on_gpu("streams", in_order, targets)


def devices(targets: list[Target]) -> list[Check]:
    checks = on_gpu("devices", on_another_device, targets)
    return [Check("devices", "second GPU", no_second_gpu)] if checks and torch.cuda.device_count() < 2 else checks


def no_second_gpu() -> Outcome:
    raise NotApplicable("the machine has one GPU")


def graphs(targets: list[Target]) -> list[Check]:
    return on_gpu("graphs", replayed, targets)


def two_sets(call: Call, device: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Tensors of two sets of data, and gradients of the results."""
    draws = call.sized(cases.ODD | {"T": 4})
    first, second = (drawn_tensors(draws, device, torch.float32, seed) for seed in range(2))
    return first, second, cotangents(call.results(first, "torch"))


def assert_same(found: list[Tensor], wanted: list[Tensor], complaint: str) -> None:
    wrong = [k for k, pair in enumerate(zip(found, wanted, strict=True)) if not torch.equal(*pair)]
    assert not wrong, f"{complaint}: results and gradients {wrong} differ"


def in_order(call: Call, target: Target) -> Outcome:
    """A call waits for what its stream does before it: on the default stream, and on another while that one is busy."""
    given, new, grads = two_sets(call, target.device)
    wanted = call.with_gradients(new, target.backend, grads)
    default, side = torch.cuda.default_stream(), torch.cuda.Stream()
    for stream, other, name in ((default, side, "the default stream"), (side, default, "a side stream")):
        tensors = [tensor.clone() for tensor in given]
        torch.cuda.synchronize()
        with torch.cuda.stream(other):
            torch.cuda._sleep(BUSY)
        with torch.cuda.stream(stream):
            torch.cuda._sleep(2 * BUSY)
            for tensor, value in zip(tensors, new, strict=True):
                tensor.copy_(value)
            found = call.with_gradients(tensors, target.backend, grads)
        stream.synchronize()
        assert_same(found, wanted, f"on {name} the call did not wait for its inputs, or was not waited for")
    return Outcome("default stream and side stream")


def on_another_device(call: Call, target: Target, here: str = "cuda:0", there: str = "cuda:1") -> Outcome:
    """A call on the second device while the first is current allocates nothing on the first."""
    given, _, grads = two_sets(call, "cpu")
    with torch.cuda.device(here):
        wanted = call.with_gradients(moved(given, here), target.backend, moved(grads, here))
        tensors, grads = moved(given, there), moved(grads, there)
        torch.cuda.synchronize(there)
        before = allocations(here)
        found = call.with_gradients(tensors, target.backend, grads)
        after, current = allocations(here), torch.cuda.current_device()
    assert after == before, f"{here} allocated {after - before} times for a call on {there}"
    assert current == 0, f"device 0 was current before the call, device {current} after it"
    assert_same(moved(found, "cpu"), moved(wanted, "cpu"), f"{there} computes something else than {here}")
    return Outcome(f"{there} while {here} is current")


def moved(tensors: list[Tensor], device: str) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def allocations(device: str) -> int:
    """How often torch has allocated memory on a device."""
    return torch.cuda.memory_stats(device)["allocation.all.allocated"]


def replayed(call: Call, target: Target) -> Outcome:
    """A graph of forward and backward computes new inputs as the call itself does."""
    given, new, grads = two_sets(call, target.device)

    def step() -> list[Tensor]:
        return call.with_gradients(given, target.backend, grads)

    found, replay = captured(step)
    for tensor, value in zip(given, new, strict=True):
        tensor.copy_(value)
    replay()
    assert_same(found, step(), "the replayed graph computes something else than the call")
    return Outcome("captured and replayed with other inputs")


def captured(step: Step) -> tuple[list[Tensor], Callable[[], None]]:
    """What a step gave in a CUDA graph, and the function that runs the graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    return found, graph.replay
