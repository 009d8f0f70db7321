"""`lif` against copies of the bytes it must move and against what a user would run instead.

Bytes are the fewest an operation can move; the backward pass reads x again instead of a kept membrane.
"existing" writes into memory that is there, "fresh" is the user's call that allocates its results; rivals are always
the user's call, so "fresh" is the like for like.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from figures import milliseconds
from lif_rivals import DEVICE, TAU, THRESHOLD, Case, Layer, eager_layer, of_kind, rival_layers
from memory import saved_bytes
from torch import Tensor

from deal_kernels import backend as backends
from deal_kernels._common import dispatch
from deal_kernels._common.neuron import lif_neuron
from deal_kernels.lif import lif, op
from deal_kernels.lif.reference import Inputs

BACKENDS = [b for b in ("cpp", "cuda", "triton") if backends.unavailable(b, DEVICE) is None]
KINDS = ("spikes", "mean", "constant", "constant mean", "packed")
GRADIENTS = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5}}
SMOKE_NEURONS = 1003

LARGE = {4: 1 << 21, 16: 1 << 19} if DEVICE == "cpu" else {4: 1 << 24, 16: 1 << 22}
SIZES = {4: (1 << 15, LARGE[4], LARGE[4] * 2, LARGE[4] * 4), 16: (1 << 15, LARGE[16])}
DTYPES = (torch.float32, torch.bfloat16)


def kernels() -> list[Case]:
    """Every kind, dtype, number of steps and size."""
    return [
        Case(direction, kind, dtype, steps, neurons)
        for steps in SIZES
        for neurons in SIZES[steps]
        for dtype in DTYPES
        for direction in ("forward", "forward+backward")
        for kind in KINDS
        if direction == "forward" or kind != "packed"
    ]


def duels() -> list[Case]:
    """The spike train in every size, the other kinds in one; torch.compile where it is worth the wait."""
    chosen = []
    for case in kernels():
        plain = case.kind == "spikes" and case.dtype == torch.float32
        large = case.neurons == LARGE[case.steps]
        if plain and case.neurons <= 2 * LARGE[case.steps]:
            chosen.append(case._replace(compiled=case.steps == 4 or large))
        elif large and (case.steps == 4 or case.kind == "spikes"):
            named = case.kind == "spikes" or (case.kind == "constant mean" and case.dtype == torch.float32)
            chosen.append(case._replace(compiled=named and case.steps == 4))
    atan = Case("", "spikes", torch.float32, 4, LARGE[4], "atan", compiled=True)
    return chosen + [atan._replace(direction=direction) for direction in ("forward", "forward+backward")]


def our_layer(case: Case, backend: str | None) -> Callable[..., Tensor]:
    return functools.partial(
        lif, tau=TAU, surrogate=case.surrogate, steps=case.steps if case.constant else None,
        reduce="mean" if case.kind.endswith("mean") else None, pack=case.kind == "packed", backend=backend,
    )  # fmt: skip


def current(case: Case) -> Tensor:
    shape = (case.neurons,) if case.constant else (case.steps, case.neurons)
    generator = torch.Generator(DEVICE).manual_seed(0)
    return torch.randn(shape, generator=generator, device=DEVICE).to(case.dtype)


def user_call(layer: Layer, x: Tensor, grad: Tensor | None) -> Callable[[], object]:
    """What a user runs: forward without gradient, or forward and backward for the gradient of x."""
    if grad is None:
        return torch.no_grad()(lambda: layer(x))
    x = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(layer(x), x, grad)


def backward_into(case: Case, x: Tensor, grad: Tensor, grad_x: Tensor, backend: str) -> Callable[[], None]:
    """The compiled backward kernel into memory that is there, with arguments made beforehand."""
    neuron = lif_neuron(tau=TAU, v_threshold=THRESHOLD, surrogate=case.surrogate)
    inputs = Inputs(neuron, x, None, None, None, case.steps if case.constant else None)
    output = "mean" if case.kind.endswith("mean") else "spikes"
    if backend == "triton":
        from deal_kernels.lif import triton

        return lambda: triton.backward(inputs, grad, None, output, None, grad_x, None, None, None, None)
    call = backends.extension().LifBackward(
        **op.call_inputs(inputs, output), constant=case.constant, grad=grad.data_ptr(), grad_x=grad_x.data_ptr()
    )
    run = functools.partial(dispatch.run_compiled, "lif_backward", call, x, backend)
    return lambda _keeps_the_addresses_alive=(x, grad, grad_x): run()


def existing_call(case: Case, x: Tensor, grad: Tensor | None, backend: str) -> Callable[[], Tensor]:
    """Forward, and backward, into memory that is there. Returns the gradient when training, else the result."""
    forward = our_layer(case, backend)
    result = torch.empty_like(forward(x))
    if grad is None:
        return lambda: forward(x, out=result)
    grad_x = torch.empty_like(x)
    backward = backward_into(case, x, grad, grad_x, backend)

    def both() -> Tensor:
        forward(x, out=result)
        backward()
        return grad_x

    return both


def check(case: Case, backend: str, x: Tensor, grad: Tensor | None, existing: Tensor) -> None:
    """No numbers for a wrong result: spikes equal to the eager loop's, gradients to its rounding.

    The loop runs in float32: in a half type it would round the gradient at every step, which ours does once.
    """
    eager, ours = of_kind(eager_layer(case), case), our_layer(case, backend)
    with torch.no_grad():
        result = ours(x)
        expected = eager(x.float()).to(result.dtype)
        assert torch.equal(result, expected), f"{case}: {backend} differs from the eager loop"
    if grad is None:
        assert torch.equal(existing, expected), f"{case}: {backend} differs from the eager loop with out="
        return
    del expected, result
    (expected_grad,) = user_call(eager, x.float(), grad.float())()
    for got in (*user_call(ours, x, grad)(), existing):
        torch.testing.assert_close(got, expected_grad.to(got.dtype), **GRADIENTS[case.dtype])


class Setup(NamedTuple):
    case: Case
    x: Tensor
    grad: Tensor | None


@pytest.fixture
def setup(request, timed) -> Setup:
    case = request.param if timed else request.param._replace(neurons=SMOKE_NEURONS)
    x = current(case)
    grad = None
    if case.trains:
        shape = (case.neurons,) if case.kind.endswith("mean") else (case.steps, case.neurons)
        grad = torch.randn(shape, device=DEVICE).to(case.dtype)
    return Setup(case, x, grad)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setup", kernels(), ids=str, indirect=True)
@pytest.mark.benchmark(max_time=0.3, min_rounds=15)
def bench_kernel(setup, backend, benchmark):
    """Ours alone, into existing memory: one table for each direction, dtype, T and N."""
    case, x, grad = setup
    call = existing_call(case, x, grad, backend)
    check(case, backend, x, grad, call())
    benchmark.group = str(case).replace(f" {case.kind}", "")
    benchmark.name = f"{case.kind} {backend}"
    benchmark.extra_info["bytes"] = case.bytes
    benchmark(synchronised(call))


def synchronised(call: Callable[[], object]) -> Callable[[], object]:
    if DEVICE == "cpu":
        return call
    return lambda: (call(), torch.cuda.synchronize())


def copies(case: Case, x: Tensor) -> dict[str, Callable[[], object]]:
    """A copy of a spike train's bytes, into existing memory and fresh, and one that moves the bytes of the case."""
    train = x.expand(case.steps, -1).contiguous() if case.constant else x
    there = torch.empty_like(train)
    half = torch.zeros(case.bytes // 2, dtype=torch.uint8, device=DEVICE)
    half_there = torch.empty_like(half)
    return {
        "copy": lambda: there.copy_(train),
        "copy fresh": lambda: train.clone(),
        "same bytes": lambda: half_there.copy_(half),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("setup", duels(), ids=str, indirect=True)
def bench_against_rivals(setup, backend, race, timed, report):
    """Ours, copies and rivals in turns."""
    case, x, grad = setup
    if not timed:
        first = next(c for c in duels() if c.compiled and c.trains)
        case = case._replace(compiled=case[:4] == first[:4])
    existing = existing_call(case, x, grad, backend)
    check(case, backend, x, grad, existing())
    rivals = {name: user_call(layer, x, grad) for name, layer in rival_layers(case).items()}
    fresh = user_call(our_layer(case, backend), x, grad)
    result = race({"existing": existing, "fresh": fresh, **copies(case, x), **rivals})
    if result is not None:
        add_copies(report, case, backend, result)
        add_rivals(report, case, backend, result, rivals)


def add_copies(report, case: Case, backend: str, result) -> None:
    report.add(
        "Ours against copies (ms; ratio = our time / the copy's; best = quickest rounds instead of medians)",
        case=str(case), backend=backend, rounds=str(result.rounds("existing")),
        existing=milliseconds(result.seconds("existing")), IQR=f"{result.spread('existing'):.0%}",
        best=milliseconds(result.best("existing")),
        GB_s=f"{case.bytes / result.seconds('existing') / 1e9:.1f}",
        x_same_bytes=f"{result.ratio('existing', 'same bytes'):.2f}",
        best_x_same_bytes=f"{result.best('existing') / result.best('same bytes'):.2f}",
        x_train_copy=f"{result.ratio('existing', 'copy'):.2f}",
        best_x_train_copy=f"{result.best('existing') / result.best('copy'):.2f}",
        fresh=milliseconds(result.seconds("fresh")),
        x_fresh_copy=f"{result.ratio('fresh', 'copy fresh'):.2f}",
        copy_GB_s=f"{2 * case.train_bytes / result.seconds('copy') / 1e9:.1f}",
    )  # fmt: skip


def add_rivals(report, case: Case, backend: str, result, rivals) -> None:
    """Rows that a rival wins are kept and say so."""
    row = {}
    for name in ("eager", "compile", "spikingjelly", "snntorch"):
        row[name] = "-"
        if name in rivals:
            fresh, existing = result.ratio(name, "fresh"), result.ratio(name, "existing")
            best = result.best(name) / result.best("fresh")
            row[name] = f"{milliseconds(result.seconds(name))} ({fresh:.1f}x, {existing:.1f}x; {best:.1f}x)"
    row["a_rival_wins"] = ", ".join(name for name in rivals if result.ratio(name, "fresh") < 1)
    report.add(
        "Rivals (ms; in brackets the rival's time / ours fresh, / ours existing; the quickest rounds, fresh)",
        case=str(case), backend=backend, fresh=milliseconds(result.seconds("fresh")),
        existing=milliseconds(result.seconds("existing")), **row,
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", ("forward", "forward+backward"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("steps", SIZES)
def bench_constant_mean_fraction(steps, dtype, direction, backend, race, timed, report):
    """A constant current reduced to its mean, as a fraction of the spike train's time, both into existing memory."""
    calls = {}
    for kind in ("spikes", "constant mean"):
        case = Case(direction, kind, dtype, steps, LARGE[steps] if timed else SMOKE_NEURONS)
        x = current(case)
        grad = torch.randn_like(x) if case.trains else None
        calls[kind] = existing_call(case, x, grad, backend)
        check(case, backend, x, grad, calls[kind]())
    result = race(calls, 2.0)
    if result is not None:
        report.add(
            "Constant current + mean as a fraction of the spike train (ms, existing memory)",
            case=str(case).replace(f" {case.kind}", ""), backend=backend, spikes=milliseconds(result.seconds("spikes")),
            constant_mean=milliseconds(result.seconds("constant mean")),
            fraction=f"{result.ratio('constant mean', 'spikes'):.3f}",
        )  # fmt: skip


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "triton"])
def bench_overhead(backend, race, report):
    """A call without gradient on 16 elements, and what of it is neither kernel nor allocation."""
    x = torch.randn(4, 4, device=DEVICE)
    spikes = torch.empty_like(x)
    neuron = lif_neuron(tau=TAU, v_threshold=THRESHOLD)
    inputs = op.call_inputs(Inputs(neuron, x, None, None, None, None), "spikes")
    call = backends.extension().LifForward(**inputs, out=spikes.data_ptr())
    raw = functools.partial(dispatch.run_compiled, "lif_forward", call, x, backend)
    raw()
    assert torch.equal(lif(x), spikes)
    result = race({"call": lambda: lif(x), "kernel": raw, "empty_like": lambda: torch.empty_like(x)}, 3.0)
    if result is not None:
        call, run, allocation = (result.seconds(name) * 1e6 for name in ("call", "kernel", "empty_like"))
        report.add(
            "Overhead of lif(x) on 16 elements without gradient (microseconds)",
            backend=backend, call=f"{call:.2f}", kernel=f"{run:.2f}", empty_like=f"{allocation:.2f}",
            above_the_kernel=f"{call - run:.2f}", without_the_allocation=f"{call - run - allocation:.2f}",
        )  # fmt: skip


@pytest.mark.parametrize(("kind", "steps"), list(itertools.product(("spikes", "constant mean"), SIZES)))
def bench_saved_for_backward(kind, steps, timed, report):
    case = Case("forward+backward", kind, torch.float32, steps, 1 << 15, compiled=timed and steps == 4)
    x = current(case).requires_grad_()
    layers = {"ours": our_layer(case, None), **rival_layers(case)}
    saved = {name: saved_bytes(lambda layer=layer: layer(x)) / case.train_bytes for name, layer in layers.items()}
    assert saved["ours"] <= 1
    if timed:
        shown = {name: f"{share:.2f}" for name, share in saved.items()}
        report.add("Kept for backward (bytes / bytes of one tensor [T, N])", case=str(case), **shown)
