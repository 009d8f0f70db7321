"""`consensus` against its specification in torch and against what it is more robust than: the median of the rows."""

from __future__ import annotations

import pytest
import torch
from figures import milliseconds

from deal_kernels.consensus import consensus

SHAPES = ((1, 96, 639), (4, 96, 255))  # columns of a frame of 640 x 512, and of a batch of cuts
SMOKE = (2, 9, 17)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_consensus(shape, race, timed, report):
    shape = shape if timed else SMOKE
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    tolerance = torch.full(shape[:1], 0.05)
    there = torch.empty_like(x)
    result = race(
        {
            "ours": lambda: consensus(x, weights, tolerance),
            "torch": lambda: consensus(x, weights, tolerance, backend="torch"),
            "median": lambda: x.median(1),
            "copy": lambda: there.copy_(x),
        },
        10.0,
    )
    if result is not None:
        report.add(
            "Consensus of rows (ms; in brackets the time / ours)", case=str(shape),
            ours=milliseconds(result.seconds("ours")), x_copy=f"{result.ratio('ours', 'copy'):.1f}",
            **{
                name: f"{milliseconds(result.seconds(name))} ({result.ratio(name, 'ours'):.1f}x)"
                for name in ("torch", "median")
            },
        )  # fmt: skip
