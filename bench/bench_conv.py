"""`deal_kernels.conv` against torch's own convolution, each on contiguous and on channels-last images.

The engine is named, so that cases it loses are seen too; "auto" says which of both `conv2d` takes by itself. GFLOP/s
count the multiplications and additions of the direct convolution, whoever does without them. The floor is what the
engine has to compute, at the rate of this machine's matrix product.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from figures import milliseconds
from lif_rivals import DEVICE
from torch import Tensor, nn
from torch.nn import functional

from deal_kernels.conv import Conv2d, choice, conv2d, cost
from deal_kernels.conv.reference import Geometry

pytestmark = pytest.mark.skipif(
    DEVICE != "cpu" or choice.NOT_BUILT is not None, reason="the engine runs on a CPU where the extension is built"
)
ENGINE = ("ours", "ours, last")
TORCH = ("torch", "torch, last")


class Case(NamedTuple):
    kernel: int
    dilation: int = 1
    channels: int = 32
    height: int = 256
    width: int = 256

    @property
    def padding(self) -> int:
        return self.kernel // 2 * self.dilation

    @property
    def geometry(self) -> Geometry:
        return Geometry((self.padding,) * 4, "zeros", (self.dilation,) * 2)

    @property
    def flops(self) -> int:
        return 2 * self.height * self.width * self.channels**2 * self.kernel**2

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, self.channels, self.height, self.width, generator=generator)
        weight = torch.randn(self.channels, self.channels, self.kernel, self.kernel, generator=generator)
        bias = torch.randn(self.channels, generator=generator)
        return x, weight / (self.kernel * self.channels**0.5), bias

    def __str__(self) -> str:
        apart = f" dilation {self.dilation}" if self.dilation > 1 else ""
        return f"{self.kernel}x{self.kernel}{apart}, {self.channels} channels, {self.height}x{self.width}"


KERNELS = (3, 5, 7, 9, 11, 15, 21)
SIZES = ((64, 64), (128, 128), (480, 640), (768, 1024))
CASES = (
    [Case(kernel, dilation) for kernel, dilation in itertools.product(KERNELS, (1, 2))]
    + [Case(kernel, 1, channels) for kernel, channels in itertools.product((3, 7, 11), (16, 48, 64))]
    + [Case(kernel, 1, 32, *size) for kernel, size in itertools.product((3, 5, 7, 11), SIZES)]
)
SMOKE = Case(5, 1, 4, 20, 24)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def calls(case: Case, trains: bool) -> dict[str, Callable[[], object]]:
    """The forward pass, or it and all gradients, of each contestant."""
    x, weight, bias = case.tensors()
    ours = functools.partial(conv2d, padding=case.padding, dilation=case.dilation, backend="cpp")
    theirs = functools.partial(functional.conv2d, padding=case.padding, dilation=case.dilation)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def call(function: Callable[..., Tensor], last: bool) -> Callable[[], object]:
        image, cotangent = (channels_last(t) if last else t for t in (x, grad))
        leaves = [t.detach().requires_grad_(trains) for t in (image, weight, bias)]
        if trains:
            return lambda: torch.autograd.grad(function(*leaves), leaves, cotangent)
        return torch.no_grad()(lambda: function(*leaves))

    contestants = zip(ENGINE + TORCH, (ours, ours, theirs, theirs), (False, True) * 2, strict=True)
    return {name: call(function, last) for name, function, last in contestants}


@functools.cache
def verify(case: Case) -> None:
    """No numbers for a wrong result: a corner of the image against float64, in both layouts."""
    x, weight, bias = case.tensors()
    options = {"padding": case.padding, "dilation": case.dilation}
    side = 40 + 2 * case.padding
    exact = functional.conv2d(*(t.double() for t in (x[..., -side:, -side:], weight, bias)), **options)[..., -40:, -40:]
    for image in (x, channels_last(x)):
        y = conv2d(image, weight, bias, **options, backend="cpp")[..., -40:, -40:]
        exact = exact[..., -y.shape[-2] :, -y.shape[-1] :]
        assert (y.double() - exact).norm() <= 1e-6 * exact.norm()


@functools.cache
def verify_gradients(case: Case) -> None:
    """Of a part of the image that float64 is done with in time."""
    *leaves, _ = case._replace(height=min(case.height, 48), width=min(case.width, 40)).tensors()
    options = {"padding": case.padding, "dilation": case.dilation}
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y, expected = conv2d(*leaves, **options, backend="cpp"), functional.conv2d(*exact, **options)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = zip(torch.autograd.grad(y, leaves, grad), torch.autograd.grad(expected, exact, grad.double()), strict=True)
    for one, other in found:
        assert (one.double() - other).norm() <= 2e-6 * other.norm()


@functools.cache
def rate() -> float:
    """Floating-point operations a second of a matrix product, the best of some."""
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_conv(case, direction, race, timed, report):
    trains = direction != "forward"
    if not timed:
        case = SMOKE._replace(kernel=min(case.kernel, 9), dilation=case.dilation)
    verify(case)
    if trains:
        verify_gradients(case)
    result = race(calls(case, trains), 6.0)
    if result is None:
        return
    times = {name: result.best(name) for name in ENGINE + TORCH}
    ours, theirs = min(times[name] for name in ENGINE), min(times[name] for name in TORCH)
    weight = (case.channels, case.channels, case.kernel, case.kernel)
    shape = (1, case.channels, case.height, case.width)
    choice = "engine" if cost.engine_is_faster(shape, weight, case.geometry, trains, True) else "torch"
    right = (choice == "engine") == (ours < theirs)
    report.add(
        f"Convolution, {direction} (ms, the quickest round)", case=str(case),
        **{name.replace(", ", "_"): milliseconds(value) for name, value in times.items()},
        torch_over_ours=f"{theirs / ours:.2f}", GFLOP_per_s=f"{case.flops * (3 if trains else 1) / ours / 1e9:.0f}",
        torch_GFLOP_per_s=f"{case.flops * (3 if trains else 1) / theirs / 1e9:.0f}",
        floor=milliseconds(cost.operations(shape, weight, case.geometry, trains) / rate()),
        auto=choice if right else f"{choice}, which is slower",
    )  # fmt: skip
    # Where it chooses wrongly, the difference is small.
    chosen, other = (ours, theirs) if choice == "engine" else (theirs, ours)
    assert chosen <= 1.3 * other, f"auto takes {choice}: {milliseconds(chosen)} ms instead of {milliseconds(other)}"


class Padded(nn.Sequential):
    """What `Conv2d` with reflection and ReLU is otherwise."""

    def __init__(self, case: Case) -> None:
        conv = nn.Conv2d(case.channels, case.channels, case.kernel, dilation=case.dilation)
        super().__init__(nn.ReflectionPad2d(case.padding), conv, nn.ReLU())


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("kernel", [3, 5, 7, 11])
def bench_fused(kernel, direction, race, timed, report):
    case = Case(kernel) if timed else SMOKE
    trains = direction != "forward"
    torch.manual_seed(0)
    theirs = Padded(case)
    ours = Conv2d(
        case.channels, case.channels, case.kernel, padding=case.padding, padding_mode="reflect", activation="relu",
        backend="cpp",
    )  # fmt: skip
    ours.load_state_dict(theirs[1].state_dict())
    x, grad = case.tensors()[0], torch.randn(case.tensors()[0].shape)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)

    def call(layer: nn.Module, last: bool) -> Callable[[], object]:
        image, cotangent = (channels_last(t) if last else t for t in (x, grad))
        image = image.detach().requires_grad_(trains)
        leaves = [image, *layer.parameters()]
        if trains:
            return lambda: torch.autograd.grad(layer(image), leaves, cotangent)
        return torch.no_grad()(lambda: layer(image))

    contestants = zip(ENGINE + TORCH, (ours, ours, theirs, theirs), (False, True) * 2, strict=True)
    result = race({name: call(layer, last) for name, layer, last in contestants}, 6.0)
    if result is not None:
        times = {name: result.best(name) for name in ENGINE + TORCH}
        factor = min(times[name] for name in TORCH) / min(times[name] for name in ENGINE)
        report.add(
            "Reflection, convolution, bias and ReLU (ms, the quickest round)", case=f"{direction} {case}",
            **{name.replace(", ", "_"): milliseconds(value) for name, value in times.items()},
            torch_over_ours=f"{factor:.2f}",
        )  # fmt: skip
