"""Results: near float64, the same bits as torch where that is promised, at far offsets, and the same every time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from deal_kernels.check import cases
from deal_kernels.check.calls import Call
from deal_kernels.check.cases import Case, Expected, Target
from deal_kernels.check.registry import CALLS
from deal_kernels.check.runner import Check, NotApplicable, Outcome
from deal_kernels.lif import lif

TIMES = 20
CUDNN = 4  # times the error that is allowed elsewhere: its convolutions may go through transforms
FAR_STEPS, FAR_PERIOD = 8, 17
FAR_NEURONS = 2**28 + 1  # 2^31 + 8 elements; a multiple of the period
FAR_GIGABYTES = 12


def agreement(targets: list[Target]) -> list[Check]:
    return [
        Check("agreement", f"{call.name}, {target}", partial(agrees, call, target))
        for call in CALLS
        for target in targets
        if target.backend in call.backends
    ]


def agrees(call: Call, target: Target) -> Outcome:
    """Results and gradients against float64 on the CPU, in every type, layout and number of steps."""
    every = cases.cases_of(call, target.backend)
    worst = max(compared(case, target) for case in every)
    return Outcome(f"{len(every)} cases, largest error {worst:.0%} of the allowed one")


def compared(case: Case, target: Target) -> float:
    """The largest error as a share of the allowed one. Raises if it is above 1, or if bits differ that must not."""
    call = case.call
    with cases.one_thread():
        e = cases.expected(case)
    tensors, grads = case.tensors(target.device, e.tensors), [grad.to(target.device) for grad in e.grads]
    with cases.strict(target):
        found = call.with_gradients(tensors, target.backend, grads)
    leeway = CUDNN if target == Target("torch", "cuda") else 1
    return max(compared_one(case, k, tensor, e, leeway) for k, tensor in enumerate(found))


def compared_one(case: Case, k: int, found: Tensor, e: Expected, leeway: int) -> float:
    own, count = e.own[k], len(e.grads)
    name = f"{case}: " + (f"result {k}" if k < count else f"gradient of input {case.call.leaves[k - count]}")
    described = [(tuple(each.shape), each.dtype) for each in (found, own)]
    assert described[0] == described[1], f"{name} is {described[0]}, not {described[1]}"
    if k < case.call.exact:
        different = int((found.cpu() != own).sum())
        assert not different, f"{name} differs from torch in {different} of {own.numel()} elements"
    error, allowed = cases.error(found, e.exact[k]), leeway * e.allowed[k]
    # Not so for NaN either.
    assert error <= allowed, f"{name} is off by {error:.1e} of the largest value, allowed {allowed:.1e}"
    return error / allowed


def far(targets: list[Target]) -> list[Check]:
    return [
        Check("far", f"lif, 2^31 + 8 elements, {target}", partial(far_offsets, target))
        for target in targets
        if target.backend in ("cuda", "triton")
    ]


def far_offsets(target: Target, neurons: int = FAR_NEURONS) -> Outcome:
    """A neuron with more elements than 32 bits count, in bfloat16. Its input repeats, so that all of it is known.

    The period divides no power of two: an offset that wrapped around would read another phase.
    """
    backend, device = target
    if device != "cpu" and (free := cases.free_gigabytes(device)) < FAR_GIGABYTES:
        raise NotApplicable(f"needs {FAR_GIGABYTES} GB of GPU memory, {free:.1f} are free")
    generator = torch.Generator().manual_seed(0)
    period = torch.randn(FAR_STEPS, 1, FAR_PERIOD, generator=generator).to(device, torch.bfloat16)
    repeated = neurons // FAR_PERIOD, FAR_PERIOD
    x = period.expand(FAR_STEPS, *repeated).reshape(FAR_STEPS, neurons)
    with torch.no_grad():
        spikes, wanted = lif(x, backend=backend), lif(period.cpu(), backend="torch").to(device)
    for step, (row, expected) in enumerate(zip(spikes, wanted, strict=True)):
        assert (row.view(repeated) == expected).all(), f"step {step} has wrong spikes"
    return Outcome(f"{x.numel()} elements")


def repeats(targets: list[Target]) -> list[Check]:
    return [
        Check("repeats", f"{call.name}, {target}", partial(cases.strictly, repeated, call, target))
        for call in CALLS
        for target in cases.own_targets(call, targets)
    ]


def repeated(call: Call, target: Target) -> Outcome:
    tensors = call.tensors(target.device, large=True)
    first = call.with_gradients(tensors, target.backend)
    for _ in range(TIMES - 1):
        again = call.with_gradients(tensors, target.backend)
        for k, pair in enumerate(zip(again, first, strict=True)):
            assert torch.equal(*pair), f"result or gradient {k} has other bits in another run"
    return Outcome(f"{TIMES} runs, the same bits")
