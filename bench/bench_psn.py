"""Parallel spiking neurons against a copy of their input and against SpikingJelly's layers of the same names.

A layer makes its gradients of x, weight and bias.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from figures import milliseconds
from memory import saved_bytes
from torch import Tensor, nn

from deal_kernels.psn import PSN, MaskedPSN, SlidingPSN

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEURONS = (1 << 16, 1 << 19)
SMOKE_NEURONS = 1003


class Case(NamedTuple):
    name: str
    order: int  # k; 0 where a layer has none
    steps: int
    neurons: int

    def __str__(self) -> str:
        return f"{self.name}{f' k={self.order}' if self.order else ''} T={self.steps} N={self.neurons >> 10}Ki"

    def layer(self) -> nn.Module:
        torch.manual_seed(0)
        if self.name == "PSN":
            return PSN(self.steps)
        if self.name == "MaskedPSN":
            return MaskedPSN(self.order, self.steps, lambda_init=1.0)
        return SlidingPSN(self.order)

    def rival(self) -> nn.Module:
        from spikingjelly.activation_based import neuron

        if self.name == "PSN":
            return neuron.PSN(self.steps)
        if self.name == "MaskedPSN":
            return neuron.MaskedPSN(self.order, self.steps, lambda_init=1.0, step_mode="m")
        return neuron.SlidingPSN(self.order, step_mode="m")


CASES = [
    Case(name, order, steps, neurons)
    for (name, order), steps, neurons in itertools.product(
        (("PSN", 0), ("MaskedPSN", 4), ("SlidingPSN", 4), ("SlidingPSN", 8)), (4, 16), NEURONS
    )
]


def layers_of(case: Case) -> dict[str, nn.Module]:
    """Ours, and SpikingJelly's with the same parameters where it is installed."""
    layers = {"ours": case.layer().to(DEVICE)}
    if importlib.util.find_spec("spikingjelly"):
        layers["spikingjelly"] = case.rival().to(DEVICE)
        layers["spikingjelly"].load_state_dict(layers["ours"].state_dict())
    return layers


def step(layer: nn.Module, x: Tensor, grad: Tensor | None) -> list[Tensor]:
    """The spikes, or the gradients of x, weight and bias."""
    if grad is None:
        with torch.no_grad():
            return [layer(x)]
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(layer(x), [x, *layer.parameters()], grad))


def check(case: Case, direction: str, ours: list[Tensor], theirs: list[Tensor]) -> None:
    """No numbers for a wrong result: spikes equal to the rival's, gradients to its rounding."""
    for result, expected in zip(ours, theirs, strict=True):
        if direction == "forward":
            assert torch.equal(result, expected), f"{case}: the spikes differ"
        else:
            torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_psn(case, direction, race, timed, report):
    case = case if timed else case._replace(neurons=SMOKE_NEURONS)
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.randn(case.steps, case.neurons, generator=generator, device=DEVICE)
    grad = torch.randn(x.shape, generator=generator, device=DEVICE) if direction == "forward+backward" else None
    layers = layers_of(case)
    ours, *others = (step(layer, x, grad) for layer in layers.values())
    for theirs in others:
        check(case, direction, ours, theirs)
    there = torch.empty_like(x)
    calls: dict[str, Callable[[], object]] = {
        name: functools.partial(step, layer, x, grad) for name, layer in layers.items()
    }
    result = race({**calls, "copy": lambda: there.copy_(x)}, 6.0)
    if result is not None:
        rivals = {
            name: f"{milliseconds(result.seconds(name))} ({result.ratio(name, 'ours'):.1f}x)"
            for name in layers if name != "ours"
        }  # fmt: skip
        report.add(
            "Parallel spiking neurons (ms; in brackets the time / ours)", case=f"{direction} {case}",
            ours=milliseconds(result.seconds("ours")), x_copy=f"{result.ratio('ours', 'copy'):.1f}", **rivals,
        )  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.neurons == NEURONS[0]], ids=str)
def bench_saved_for_backward(case, timed, report):
    x = torch.randn(case.steps, case.neurons, device=DEVICE, requires_grad=True)
    saved = {name: saved_bytes(lambda layer=layer: layer(x)) / x.nbytes for name, layer in layers_of(case).items()}
    assert saved["ours"] < 1.01
    if timed:
        shown = {name: f"{share:.2f}" for name, share in saved.items()}
        report.add("Kept for backward by parallel spiking neurons (bytes / bytes of x)", case=str(case), **shown)
