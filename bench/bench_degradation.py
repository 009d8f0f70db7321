"""`mixture` with the seven operations of DEAL against what a user would run instead.

"ours" is the user's call, whose large results take pages that earlier ones gave back; "fresh" is the same call when
all its memory is new. Rivals are always the user's call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from degradation_rivals import Case, rivals
from figures import milliseconds
from memory import fresh, peak_bytes, saved_bytes
from torch import Tensor

from deal_kernels.degradation import DEAL_OPS, mixture

CASES = (
    Case(8, 1, 256, 256, compiled=True),
    Case(8, 3, 256, 256),
    Case(2, 3, 768, 1024),
    Case(8, 1, 256, 256, stages=1),
    Case(8, 1, 256, 256, dtype=torch.bfloat16),
)
SMOKE = (2, 1, 21, 30)
Call = Callable[[], object]


def ours(x: Tensor, weights: Tensor, deviations: Tensor, columns: Tensor) -> Tensor:
    return mixture(x, weights, DEAL_OPS, {"gaussian_blur": deviations, "stripe": columns})


def train(run: Callable[..., Tensor], x: Tensor, weights: Tensor, *params: Tensor) -> Call:
    """Forward and backward, for the gradients of x and of the weights."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    grad = torch.ones_like(x)
    return lambda: torch.autograd.grad(run(x, weights, *params), (x, weights), grad)


def evaluate(run: Callable[..., Tensor], *tensors: Tensor) -> Call:
    return torch.no_grad()(lambda: run(*tensors))


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    params = case.params()
    return case.images(), case.weights(), params["gaussian_blur"], params["stripe"]


def assert_agree(run: Callable[..., Tensor], case: Case, x: Tensor, *others: Tensor) -> None:
    """No numbers for a wrong result: but for a pixel that rounding has put on another level."""
    expected, result = rivals(compiled=False)["loop"](x, *others), run(x, *others)
    limit = 1e-5 if case.dtype == torch.float32 else 0.05
    different = ((result - expected).abs() > limit).float().mean()
    assert different <= 1e-3, f"{different:.2%} of the pixels differ from the loop's"


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_mixture(case, direction, race, timed, report):
    compiled = timed and case.compiled
    if not timed:
        case = case._replace(**dict(zip(("batch", "channels", "height", "width"), SMOKE, strict=True)))
    given = tensors(case)
    runs = {"ours": ours} | rivals(compiled)
    for run in runs.values():
        assert_agree(run, case, *given)
    make = evaluate if direction == "forward" else train
    calls = {name: make(run, *given) for name, run in runs.items()}
    x, there = given[0], torch.empty_like(given[0])
    result = race({"ours": calls["ours"], "fresh": fresh(calls["ours"]), "copy": lambda: there.copy_(x)} | calls, 30.0)
    if result is None:
        return
    row = {}
    for name in runs.keys() - {"ours"}:
        ratios = f"{result.ratio(name, 'ours'):.1f}x, {result.ratio(name, 'fresh'):.1f}x"
        row[name] = f"{milliseconds(result.seconds(name))} ({ratios})"
    each = result.seconds("ours") / (case.batch * case.stages)
    copies = result.ratio("ours", "copy") / case.stages
    report.add(
        "Mixture of the seven operations of DEAL (ms; in brackets the rival's time / ours, / ours fresh)",
        case=f"{direction} {case}", **{name: milliseconds(result.seconds(name)) for name in ("ours", "fresh")},
        us_per_stage_and_image=f"{each * 1e6:.0f}", copies_of_the_image=f"{copies:.1f}",
        **{name: row[name] for name in runs if name in row},
    )  # fmt: skip


@pytest.mark.parametrize("checkpoint", [False, True])
def bench_memory(checkpoint, timed, report):
    case = CASES[0] if timed else CASES[0]._replace(batch=2, height=21, width=30)
    x, weights, deviations, columns = tensors(case)
    x.requires_grad_()
    params = {"gaussian_blur": deviations, "stripe": columns}
    size = x.numel() * x.element_size()
    runs = {"ours": lambda: mixture(x, weights, DEAL_OPS, params, checkpoint=checkpoint)}
    if not checkpoint:
        runs |= {name: (lambda run=run: run(x, weights, deviations, columns)) for name, run in rivals(False).items()}
    for name, run in runs.items():
        kept = saved_bytes(run) / size
        step = lambda run=run: torch.autograd.grad(run().sum(), x)  # noqa: E731
        step()
        peak = peak_bytes(step)
        if name == "ours" and timed:
            assert kept <= (1.1 if checkpoint else case.stages + 0.1)
        if timed:
            report.add(
                "Memory of a training step (in sizes of x)", case=str(case),
                run="ours, checkpoint" if checkpoint else name, kept_for_backward=f"{kept:.1f}",
                peak="-" if peak is None else f"{peak / size:.1f}",
            )  # fmt: skip
