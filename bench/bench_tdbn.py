"""`TDBNLIF` and `SpikingConv` against what a user would run instead.

"ours" is the user's call, whose large results take pages that earlier ones gave back; "fresh" is the same call when
all its memory is new. Rivals are always the user's call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from figures import milliseconds
from lif_rivals import DEVICE, TAU
from memory import fresh, peak_bytes, saved_bytes
from tdbn_rivals import LEAK, LEVELS, Shape, norm_neurons, spiking_convs
from torch import Tensor, nn

from deal_kernels.tdbn import TDBNLIF, SpikingConv

SHAPES = (
    Shape(4, 2, 32, 256, 256),
    Shape(4, 2, 32, 256, 256, "channels last"),
    Shape(4, 2, 32, 256, 256, dtype=torch.bfloat16),
    Shape(4, 8, 64, 28, 28),
)
COMPILED = SHAPES[:1]
SMOKE = Shape(4, 2, 3, 9, 11)
# Bytes per element of x that have to move. Ours writes the gradient of the normalised x on its way.
BYTES = {"ours": 12 + 24, "norm + our lif": 20 + 36}


def train(layer: nn.Module, x: Tensor, grad: Tensor, *arguments: object) -> Callable[[], object]:
    """Forward and backward, for the gradients of x and of all parameters."""
    layer.train()
    x = x.detach().requires_grad_()
    leaves = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x, *arguments), leaves, grad)


def evaluate(layer: nn.Module, x: Tensor, *arguments: object) -> Callable[[], object]:
    layer.eval()
    return torch.no_grad()(lambda: layer(x, *arguments))


def add(report, title: str, result, rivals, **row: str) -> None:
    """Ours in milliseconds, a copy of x, and every rival with its time as a multiple of ours and of ours fresh."""
    for name in rivals:
        ratios = f"{result.ratio(name, 'ours'):.1f}x, {result.ratio(name, 'fresh'):.1f}x"
        row[name] = f"{milliseconds(result.seconds(name))} ({ratios})"
    ours, there = (milliseconds(result.seconds(name)) for name in ("ours", "fresh"))
    report.add(title, ours=ours, fresh=there, x_copy=f"{result.ratio('ours', 'copy'):.2f}", **row)


def contestants(calls: dict[str, Callable[[], object]], x: Tensor) -> dict[str, Callable[[], object]]:
    there = torch.empty_like(x)
    return {"ours": calls["ours"], "fresh": fresh(calls["ours"]), "copy": lambda: there.copy_(x)} | calls


@pytest.mark.parametrize("direction", ["forward+backward", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_norm_neuron(shape, direction, race, timed, report):
    shape = shape if timed else SMOKE._replace(layout=shape.layout, dtype=shape.dtype)
    x, grad = shape.random(), shape.random()
    layers = {"ours": TDBNLIF(shape.channels, alpha=None, tau=TAU).to(DEVICE)}
    layers |= norm_neurons(shape, compiled=timed and shape in COMPILED)
    assert_agree(layers, x, grad)
    trains = direction != "evaluation"
    calls = {name: train(layer, x, grad) if trains else evaluate(layer, x) for name, layer in layers.items()}
    result = race(contestants(calls, x), 12.0)
    if result is not None:
        title = "Norm and neuron (ms; in brackets the rival's time / ours, / ours fresh)"
        add(report, title, result, list(layers)[1:], case=f"{direction} {shape}")


def assert_agree(layers: dict[str, nn.Module], x: Tensor, grad: Tensor) -> None:
    """No numbers for a wrong result: nearly all spikes are those of the eager loop, and so are the gradients."""
    ours, eager = (train(layers[name], x, grad)() for name in ("ours", "eager"))
    with torch.no_grad():
        different = (layers["ours"].train()(x) != layers["eager"].train()(x)).float().mean()
    # Half types round the normalised x in between; a membrane at the threshold may round to either side.
    limit = 1e-3 if x.dtype == torch.float32 else 0.1
    assert different <= limit, f"{different:.2%} of the spikes differ from the eager loop's"
    for one, other in zip(ours, eager, strict=True):
        distance = (one - other).float().norm() / other.float().norm()
        assert distance <= 50 * limit, f"gradients differ by {distance:.2%}"


@pytest.mark.parametrize("shape", SHAPES[:1], ids=str)
def bench_memory(shape, timed, report):
    shape = shape if timed else SMOKE
    x, grad = shape.random(), shape.random()
    layers = {"ours": TDBNLIF(shape.channels, alpha=None, tau=TAU).to(DEVICE)}
    layers |= norm_neurons(shape, compiled=timed)
    for name, layer in layers.items():
        call = train(layer, x, grad)
        call()
        kept = saved_bytes(lambda layer=layer: layer(x.clone().requires_grad_())) / shape.bytes
        peak = peak_bytes(call)
        if name == "ours":
            assert kept <= 1.05 or not timed
        if timed:
            report.add(
                "Memory of a training step of norm and neuron (in sizes of x)", case=str(shape), layer=name,
                kept_for_backward=f"{kept:.2f}", peak="-" if peak is None else f"{peak / shape.bytes:.2f}",
                bytes_moved_per_element=str(BYTES.get(name, "-")),
            )  # fmt: skip


def our_conv(shape: Shape, kernel: int) -> SpikingConv:
    return SpikingConv(
        shape.channels, shape.channels, kernel, padding=kernel // 2, reduce="mean", alpha=None, beta=LEAK,
        levels=LEVELS, v_reset=None, detach_reset=True,
    ).to(DEVICE)  # fmt: skip


class StepByStep(nn.Module):
    """The evaluation of a SpikingConv without folding: every step through the convolution and the norm."""

    def __init__(self, block: SpikingConv) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, steps: int) -> Tensor:
        block = self.block
        return block.norm(block._each_step(x, steps, block.conv.weight, block.conv.bias)).mean(0)


@pytest.mark.parametrize("direction", ["forward+backward", "evaluation"])
@pytest.mark.parametrize("kernel", [1, 3])
def bench_spiking_conv(kernel, direction, race, timed, report):
    """One image at each of four steps, as the restoration network has it."""
    shape = Shape(4, 2, 32, 128, 128) if timed else SMOKE
    x, grad = shape.random(time=False), shape.random(time=False)
    block = our_conv(shape, kernel)
    rivals = spiking_convs(shape, kernel, compiled=timed)
    for rival in rivals.values():
        getattr(rival, "_orig_mod", rival).load_state_dict(block.state_dict())  # of torch.compile
    if direction == "evaluation":
        calls = {"ours": evaluate(block, x, shape.steps), "step by step": evaluate(StepByStep(block), x, shape.steps)}
        calls |= {name: evaluate(layer, x) for name, layer in rivals.items()}
        expected = calls["eager"]()
        for name, call in calls.items():
            torch.testing.assert_close(
                call(), expected, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
    else:
        calls = {"ours": train(block, x, grad, shape.steps)}
        calls |= {name: train(layer, x, grad) for name, layer in rivals.items()}
        for one, other in zip(calls["ours"](), calls["eager"](), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())
    result = race(contestants(calls, x), 10.0)
    if result is not None:
        title = "Spiking convolution with mean of one image at every step (ms; in brackets / ours, / ours fresh)"
        add(report, title, result, list(calls)[1:], case=f"{direction} {kernel}x{kernel} {shape}")
