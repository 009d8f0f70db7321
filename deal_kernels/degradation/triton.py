"""The mixture as Triton kernels: how they are launched. A stage takes two launches, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deal_kernels.degradation.names import REACH
from deal_kernels.degradation.reference import Operation
from deal_kernels.degradation.triton_backward import gray_kernel, look_back_kernel, mix_back_kernel
from deal_kernels.degradation.triton_forward import look_kernel, mix_kernel
from deal_kernels.degradation.triton_plan import BLOCK, TAPS, Shape, plan

OPTIONS = {"BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": False}
# Of a thread: without a limit the compiler takes as many as there are.
REGISTERS = {"look": 64, "mix": 96, "gray": 64, "look_back": 80, "mix_back": 128}


@triton.jit
def taps_kernel(deviations, taps, count, reach, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """The windows of a blur from their centre, found in float64; zeros beyond the reach."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = n < count
    deviation = tl.load(deviations + n, mask=there, other=1.0).to(tl.float64)
    total = tl.zeros_like(deviation) + 1.0
    for k in range(1, reach + 1):
        away = tl.cast(k, tl.float64) / deviation
        total += 2.0 * tl.exp(-0.5 * away * away)
    for k in range(TAPS):
        away = tl.cast(k, tl.float64) / deviation
        tap = tl.where(k <= reach, tl.exp(-0.5 * away * away) / total, 0.0)
        tl.store(taps + n * TAPS + k, tap.to(tl.float32), mask=there)


def _taps(o: Operation, weights: Tensor) -> Tensor:
    """Of a blur, for all samples and stages."""
    deviations = weights.new_full(weights.shape[:2], o.strength) if o.values is None else o.values
    count, block = deviations.numel(), 32
    taps = weights.new_empty(count * TAPS)
    taps_kernel[(triton.cdiv(count, block),)](
        deviations=deviations, taps=taps, count=count, reach=REACH[o.kind], TAPS=TAPS, BLOCK=block, num_warps=1,
        enable_fp_fusion=False,
    )  # fmt: skip
    return taps


class Call:
    """What the launches of a call have in common."""

    def __init__(self, x: Tensor, weights: Tensor, operations: Sequence[Operation], backward: bool) -> None:
        batch, channels, height, width = x.shape
        self.shape = s = Shape(batch, channels, height, width, weights.shape[1])
        named = tuple(o._replace(values=None) for o in operations)
        table, self.numbers, self.scratch = plan(named, s, backward, x.device)
        values = [_taps(o, weights) if o.kind in REACH else o.values for o in operations]
        values = [each.flatten() for each in values if each is not None]
        self.sizes = {"channels": s.channels, "height": s.height, "width": s.width, "programs": s.programs}
        self.of_stages = {
            "weights": weights, "table": table, "values": torch.cat(values) if values else weights,
            "scratch": weights.new_empty(max(self.scratch, 1)), "stages": s.stages, "operations": len(operations),
        }  # fmt: skip

    def run(self, name: str, kernel: Any, samples: int, **arguments: Any) -> None:
        grid = (samples * self.shape.programs,)
        kernel[grid](**arguments, **self.sizes, **OPTIONS, maxnreg=REGISTERS[name])

    def run_stage(self, name: str, kernel: Any, **arguments: Any) -> None:
        self.run(name, kernel, self.shape.batch, **arguments, **self.of_stages)


def forward(x: Tensor, weights: Tensor, operations: Sequence[Operation], result: Tensor, inputs: Tensor | None) -> None:
    """Writes the result and, if wanted, what the stages after the first read."""
    with torch.cuda.device_of(x):
        call = Call(x, weights, operations, False)
        for stage, (image, out) in enumerate(_between(x, result, inputs, weights.shape[1])):
            if call.scratch:
                call.run_stage("look", look_kernel, image=image, stage=stage)
            call.run_stage("mix", mix_kernel, image=image, out=out, stage=stage, numbers=call.numbers)


def _between(x: Tensor, result: Tensor, inputs: Tensor | None, stages: int) -> list[tuple[Tensor, Tensor]]:
    """What each stage reads and writes. Images that are not kept alternate between two buffers."""
    if inputs is None:
        spare = [result, torch.empty_like(result) if stages > 1 else result]
        written = [spare[(stages - 1 - stage) % 2] for stage in range(stages)]
    else:
        written = [*inputs, result]
    return list(zip([x, *written], written, strict=False))


def backward(
    grad: Tensor, inputs: Tensor, x: Tensor, weights: Tensor, operations: Sequence[Operation],
    grad_x: Tensor | None, grad_weights: Tensor | None,
) -> None:  # fmt: skip
    """Writes the gradients that are wanted. Those between stages are float32."""
    with torch.cuda.device_of(x):
        call = Call(x, weights, operations, True)
        s = call.shape
        sums = weights.new_empty(s.stages, s.batch, s.programs)
        if any(o.kind == "contrast" for o in operations):
            call.run("gray", gray_kernel, s.batch, images=x, sums=sums)
            if s.stages > 1:
                call.run("gray", gray_kernel, s.batch * (s.stages - 1), images=inputs, sums=sums[1:])
        weighed = grad_weights is not None
        dots = weights.new_empty(s.batch, s.stages, s.blocks, len(operations)) if weighed else weights
        of_both = {"sums": sums, "numbers": call.numbers, "weighed": int(weighed)}
        grad = grad.to(torch.float32)
        for stage in reversed(range(s.stages)):
            last = stage == 0 and grad_x is not None and grad_x.dtype == grad.dtype
            image, out = inputs[stage - 1] if stage else x, grad_x if last else torch.empty_like(grad)
            if call.scratch:
                call.run_stage("look_back", look_back_kernel, image=image, grad=grad, stage=stage, **of_both)
            call.run_stage(
                "mix_back", mix_back_kernel, image=image, grad=grad, out=out, dots=dots, stage=stage, **of_both
            )  # fmt: skip
            grad = out
        if grad_x is not None and grad_x is not grad:
            grad_x.copy_(grad)
        if grad_weights is not None:
            grad_weights.copy_(dots.sum(2, dtype=torch.float64))
