"""`ssim` against what a user would run instead.

"ours" is the user's call, whose large results take pages that earlier ones gave back; "fresh" is the same call when
all its memory is new. Rivals are always the user's call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from figures import milliseconds
from lif_rivals import DEVICE
from memory import fresh, peak_bytes
from ssim_rivals import Similarity, rivals
from torch import Tensor

from deal_kernels.ssim import l1_ssim, ssim

SHAPES = ((8, 3, 256, 256), (8, 1, 256, 256), (2, 1, 768, 1024))
SMOKE = (2, 1, 23, 17)


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """An image and one that looks like it."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    a = torch.rand(shape, generator=generator, device=DEVICE)
    b = (a + 0.1 * torch.randn(shape, generator=generator, device=DEVICE)).clamp(0, 1)
    return a.to(dtype), b.to(dtype)


def value(function: Similarity, a: Tensor, b: Tensor) -> Callable[[], object]:
    return torch.no_grad()(lambda: function(a, b))


def value_and_gradient(function: Similarity, a: Tensor, b: Tensor) -> Callable[[], object]:
    """Forward and backward, for the gradient of the first image, as in training."""
    a = a.detach().requires_grad_()
    return lambda: torch.autograd.grad(function(a, b), a)


DIRECTIONS = {"forward": value, "forward+backward": value_and_gradient}


def assert_agree(ours: Similarity, theirs: Similarity, a: Tensor, b: Tensor) -> None:
    """No numbers for a wrong result."""
    torch.testing.assert_close(ours(a, b), theirs(a, b), rtol=1e-4, atol=1e-4)
    (one,), (other,) = (value_and_gradient(function, a, b)() for function in (ours, theirs))
    assert (one - other).norm() <= 1e-3 * other.norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_ssim(shape, direction, race, timed, report):
    a, b = images(shape if timed else SMOKE)
    others = rivals(a, compiled=timed and shape == SHAPES[0])
    assert_agree(ssim, others["five convolutions"], a, b)
    of = DIRECTIONS[direction]
    calls = {"ours": of(ssim, a, b), "with the distance": of(l1_ssim, a, b)}
    calls |= {name: of(function, a, b) for name, function in others.items()}
    there = torch.empty_like(a)
    result = race({**calls, "fresh": fresh(calls["ours"]), "copy": lambda: there.copy_(a)}, 10.0)
    if result is not None:
        row = {
            name: f"{milliseconds(result.seconds(name))} ({result.ratio(name, 'ours'):.1f}x)"
            for name in list(calls)[1:]
        }
        report.add(
            "SSIM (ms; in brackets the time / ours)", case=f"{direction} {shape}",
            ours=milliseconds(result.seconds("ours")), fresh=milliseconds(result.seconds("fresh")),
            x_copy=f"{result.ratio('ours', 'copy'):.1f}", **row,
        )  # fmt: skip


def bench_memory(timed, report):
    """The most memory that forward and backward take beside the gradient, which is an image itself."""
    a, b = images(SHAPES[0] if timed else SMOKE)
    calls = {"ours": ssim, "with the distance": l1_ssim, **rivals(a, compiled=False)}
    size = a.numel() * a.element_size()
    for name, function in calls.items():
        call = value_and_gradient(function, a, b)
        call()
        peak = peak_bytes(call)
        if not timed or peak is None:
            continue
        beside = peak / size - 1
        assert beside <= 2 or function not in (ssim, l1_ssim)
        title = "Memory of SSIM, forward and backward, beside the gradient (in images)"
        report.add(title, case=str(SHAPES[0]), function=name, peak=f"{beside:.2f}")
