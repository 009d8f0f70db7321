"""Neurons with several states, forward and backward, against `lif` of their size and what a user would run instead."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import pytest
import torch
from figures import milliseconds
from memory import saved_bytes
from torch import Tensor

from deal_kernels.lif import lif
from deal_kernels.multistate import alif, clif, cuba, lsnn
from deal_kernels.surrogate import ATan, Rectangle, Sigmoid

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, SIZES, SMOKE = 16, (1 << 16, 1 << 18), 1003
Layer = Callable[[Tensor], Tensor]


def cuba_layers() -> dict[str, Layer]:
    """SpikingJelly's CUBALIFNode and this package's neuron with its bits."""
    layers: dict[str, Layer] = {
        "ours": lambda x: cuba(x, alpha=0.5, beta=0.75, v_threshold=0.5, surrogate=Rectangle(1.0))
    }
    if importlib.util.find_spec("spikingjelly"):
        from spikingjelly.activation_based import neuron

        layer = neuron.CUBALIFNode().to(DEVICE)
        layer.step_mode = "m"

        def run(x: Tensor) -> Tensor:
            layer.reset()
            return layer(x)

        layers["spikingjelly"] = run
    return layers


RHO = 0.87
WINDOW = 0.0, 1.0


class WindowedSpike(torch.autograd.Function):
    """The step function of membrane - threshold, with the derivative of a sigmoid where the membrane is in a window."""

    @staticmethod
    def forward(ctx, membrane, threshold):
        ctx.save_for_backward(membrane, threshold)
        return (membrane > threshold).to(membrane.dtype)

    @staticmethod
    def backward(ctx, grad):
        membrane, threshold = ctx.saved_tensors
        inside = (membrane > WINDOW[0]) & (membrane < WINDOW[1])
        grad = grad * Sigmoid(6.0)(membrane - threshold) * inside
        return grad, -grad


def alif_layers() -> dict[str, Layer]:
    """The adaptive neuron of event-based denoising networks, as a loop and as this package's."""
    rho = torch.tensor(RHO, device=DEVICE)

    def loop(x: Tensor) -> Tensor:
        membrane, a = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        spikes = []
        for current in x:
            membrane = membrane + current
            s = WindowedSpike.apply(membrane, 0.3 + 0.07 * a)
            a = torch.exp(-1 / rho) * a + s
            membrane = membrane * 0.2 * (1 - s)
            spikes.append(s)
        return torch.stack(spikes)

    def ours(x: Tensor) -> Tensor:
        return alif(
            x, beta=0.2, adaptation=math.exp(-1 / RHO), strength=0.07, v_threshold=0.3, fire="gt",
            surrogate=Sigmoid(6.0), window=WINDOW,
        )  # fmt: skip

    return {"ours": ours, "loop": loop}


def clif_layers() -> dict[str, Layer]:
    layers: dict[str, Layer] = {"ours": lambda x: clif(x)}
    if importlib.util.find_spec("spikingjelly"):
        from spikingjelly.activation_based import neuron

        layer = neuron.ComplementaryLIFNode(step_mode="m").to(DEVICE)

        def run(x: Tensor) -> Tensor:
            layer.reset()
            return layer(x)

        layers["spikingjelly"] = run
    return layers


def lsnn_layers() -> dict[str, Layer]:
    spike = ATan().spike

    def loop(x: Tensor) -> Tensor:
        v, i, b = torch.zeros_like(x[0]), torch.zeros_like(x[0]), torch.ones_like(x[0])
        spikes = []
        for current in x:
            h = v + 0.1 * ((0.0 - v) + i)
            i = (i - 0.2 * i) + current
            b = b + 0.00125 * (1.0 - b)
            s = spike(h - b)
            v = (1 - s) * h
            b = b + s * 1.8
            spikes.append(s)
        return torch.stack(spikes)

    return {"ours": lambda x: lsnn(x, surrogate="atan"), "loop": loop}


LAYERS = {"cuba": cuba_layers, "alif": alif_layers, "lsnn": lsnn_layers, "clif": clif_layers}


@pytest.mark.parametrize("neurons", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def bench_against_rivals(name, neurons, race, timed, report):
    neurons = neurons if timed else SMOKE
    generator = torch.Generator(DEVICE).manual_seed(0)
    x, grad = (torch.randn(STEPS, neurons, generator=generator, device=DEVICE) for _ in range(2))
    x.requires_grad_()
    layers = {**LAYERS[name](), "lif": lambda x: lif(x, surrogate="atan")}
    expected = layers["ours"](x)
    for rival in layers.keys() - {"ours", "lif"}:
        result = layers[rival](x)
        # Its sigmoid rounds in two ways, see clif; a spike at the threshold may be another one.
        assert (result != expected).float().mean() <= (1e-4 if name == "clif" else 0)
    calls = {each: lambda layer=layer: torch.autograd.grad(layer(x), x, grad) for each, layer in layers.items()}
    result = race(calls, 8.0)
    if result is not None:
        others = {
            each: f"{milliseconds(result.seconds(each))} ({result.ratio(each, 'ours'):.1f}x; "
            f"best {result.best(each) / result.best('ours'):.1f}x)"
            for each in layers
            if each != "ours"
        }
        report.add(
            "Neurons with several states, forward and backward (ms; in brackets the time / ours)", neuron=name,
            T=str(STEPS), N=str(neurons), ours=milliseconds(result.seconds("ours")), **others,
        )  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def bench_saved_for_backward(name, timed, report):
    x = torch.randn(STEPS, 1 << 12, device=DEVICE, requires_grad=True)
    size = x.numel() * x.element_size()
    saved = {each: saved_bytes(lambda layer=layer: layer(x)) / size for each, layer in LAYERS[name]().items()}
    assert saved["ours"] <= 1
    if timed:
        shares = {each: f"{share:.2f}" for each, share in saved.items()}
        report.add("Kept for backward (bytes / bytes of x)", neuron=name, **shares)
