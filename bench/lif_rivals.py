"""What a user would run instead of `lif`: a plain loop, torch.compile of it, SpikingJelly and snnTorch.

The neuron of every contestant: h = v + (x - v) / 2, spike at h >= 1, hard reset to 0, gradient through the reset.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from deal_kernels.surrogate import DEFAULTS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TAU, THRESHOLD = 2.0, 1.0

Layer = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    direction: str
    kind: str
    dtype: torch.dtype
    steps: int
    neurons: int
    surrogate: str = "sigmoid"
    compiled: bool = False  # torch.compile takes part; it needs from half a minute to minutes a case

    @property
    def constant(self) -> bool:
        return self.kind.startswith("constant")

    @property
    def trains(self) -> bool:
        return self.direction == "forward+backward"

    @property
    def train_bytes(self) -> int:
        """Of one tensor [T, N]."""
        return self.steps * self.neurons * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """The fewest this case can move."""
        source = self.train_bytes // self.steps if self.constant else self.train_bytes
        result = self.train_bytes // self.steps if self.kind.endswith("mean") else self.train_bytes
        if self.kind == "packed":
            result = self.steps * ((self.neurons + 7) // 8)
        return source + result + (2 * source + result if self.trains else 0)

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.neurons >> 20}Mi" if self.neurons >= 1 << 20 else f"{self.neurons >> 10}Ki"
        return f"{self.direction} {self.kind} {self.surrogate} {dtype} T={self.steps} N={size}"


def sigmoid_slope(u: Tensor, alpha: float) -> Tensor:
    a = torch.sigmoid(alpha * u)
    return alpha * (1 - a) * a


def atan_slope(u: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)


class SigmoidSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * sigmoid_slope(ctx.saved_tensors[0], DEFAULTS["sigmoid"].alpha)


class AtanSpike(SigmoidSpike):
    @staticmethod
    def backward(ctx, grad):
        return grad * atan_slope(ctx.saved_tensors[0], DEFAULTS["atan"].alpha)


SPIKES = {"sigmoid": SigmoidSpike, "atan": AtanSpike}


def eager_layer(case: Case) -> Layer:
    """The loop a user would write; half types with float32 state, as ours."""
    spike = SPIKES[case.surrogate].apply

    def run(x: Tensor) -> Tensor:
        v = torch.zeros_like(x[0], dtype=torch.float32)
        spikes = []
        for current in x:
            h = v + (current - v) / TAU
            s = spike(h - THRESHOLD)
            v = (1 - s) * h
            spikes.append(s.to(x.dtype))
        return torch.stack(spikes)

    return run


def spikingjelly_layer(case: Case) -> Layer:
    from spikingjelly.activation_based import neuron, surrogate

    slope = (
        surrogate.ATan(DEFAULTS["atan"].alpha)
        if case.surrogate == "atan"
        else surrogate.Sigmoid(DEFAULTS["sigmoid"].alpha)
    )
    layer = neuron.LIFNode(
        tau=TAU, decay_input=True, v_threshold=THRESHOLD, v_reset=0.0, surrogate_function=slope, step_mode="m"
    ).to(DEVICE)

    def run(x: Tensor) -> Tensor:
        layer.reset()
        return layer(x)

    return run


def snntorch_layer(case: Case) -> Layer:
    """snnTorch does not divide its input by tau: its state and threshold are tau times ours, the slope 1/tau."""
    import snntorch
    from snntorch import surrogate

    alpha = DEFAULTS[case.surrogate].alpha / TAU
    slope = surrogate.atan(alpha) if case.surrogate == "atan" else surrogate.sigmoid(alpha)
    layer = snntorch.Leaky(
        beta=1 - 1 / TAU, threshold=TAU * THRESHOLD, spike_grad=slope, reset_mechanism="zero", reset_delay=False
    ).to(DEVICE)

    def run(x: Tensor) -> Tensor:
        membrane = layer.init_leaky()
        spikes = []
        for current in x:
            s, membrane = layer(current, membrane)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def pack(spikes: Tensor) -> Tensor:
    bits = torch.nn.functional.pad(spikes, (0, -spikes.shape[1] % 8)).to(torch.uint8).view(len(spikes), -1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(2, dtype=torch.uint8)


def of_kind(layer: Layer, case: Case) -> Layer:
    """The output kind around a rival's spike train."""

    def run(x: Tensor) -> Tensor:
        spikes = layer(x.expand(case.steps, -1) if case.constant else x)
        if case.kind.endswith("mean"):
            return spikes.mean(0)
        return pack(spikes) if case.kind == "packed" else spikes

    return run


def rival_layers(case: Case) -> dict[str, Layer]:
    layers = {"eager": of_kind(eager_layer(case), case)}
    if case.compiled:
        torch._dynamo.reset()  # every case is compiled for its own shape, past the limit on recompilations
        layers["compile"] = torch.compile(layers["eager"], dynamic=False)
    if importlib.util.find_spec("spikingjelly"):
        layers["spikingjelly"] = of_kind(spikingjelly_layer(case), case)
    if importlib.util.find_spec("snntorch"):
        layers["snntorch"] = of_kind(snntorch_layer(case), case)
    return layers
