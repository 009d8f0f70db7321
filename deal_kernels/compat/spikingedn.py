"""The layers of SpikingEDN, known by the source of their `forward`: a neuron and what is in front of it, for one step.

What is in front of the neuron, such as a convolution and a batch norm, runs as the layer has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deal_kernels.compat.fused import Fused
from deal_kernels.compat.handwritten import Names, OfSource, Unlike, Written, key, source_of, spike_of
from deal_kernels.multistate import alif

FIXED = Written("SpikingEDN", "self.act_fun", "tangent", "decay")
ADAPTIVE = FIXED._replace(family="adaptive tangent")
# Neurons, without and with gradients. With fewer a fused call costs more time than it saves.
SMALLEST = {False: 1 << 17, True: 1 << 15}


def itself(layer: Any, x: Tensor) -> Tensor:
    return x


def pooled(layer: Any, x: Tensor) -> Tensor:
    return layer.pooling(x)  # type: ignore[no-any-return]


def convolved(layer: Any, x: Tensor) -> Tensor:
    return layer.conv1(x)  # type: ignore[no-any-return]


def normed(layer: Any, x: Tensor) -> Tensor:
    # In evaluation the norm is folded into the convolution at each call: that has other bits than one after the other.
    if layer.bn.training:
        return layer.bn(layer.conv1(x))  # type: ignore[no-any-return]
    return fuse_conv_bn_eval(layer.conv1, layer.bn)(x)


def normed_if_wanted(layer: Any, x: Tensor) -> Tensor:
    return convolved(layer, x) if layer.bn.training and layer.withbn == 0 else normed(layer, x)


class Layer(NamedTuple):
    """A layer's `forward`."""

    current: Callable[[Any, Tensor], Tensor]  # the input of its neuron, from it and its own input
    written: Written = FIXED
    begins: bool = True  # whether it begins anew where it has no state
    counts: bool = False  # whether it keeps the share of neurons that fired
    rho: tuple[float, float] | None = None  # the range of rho, where the threshold adapts
    named: bool = False  # whether a dictionary says if the step is the first


# By the fingerprint of `forward`.
LAYERS: dict[str, Layer] = {
    "dbbf01014a19ff12": Layer(normed, FIXED._replace(beta="self.decay"), counts=True),
    "6986ba34dfa7edef": Layer(convolved),
    "77be17a429b58c83": Layer(normed),
    "06605366d384fdd5": Layer(itself, counts=True),
    "b30a9b0147042eb2": Layer(normed_if_wanted, begins=False, counts=True),
    "db9b3393b3f36db4": Layer(pooled, begins=False),
    "9ad6bde85f133da2": Layer(normed, ADAPTIVE, begins=False, rho=(0.64, 1.1), named=True),
    "fb973077d3f75c56": Layer(itself, ADAPTIVE, begins=False, rho=(0.64, 2.3)),
}


class SteppedLayer(OfSource):
    """A layer that keeps the decayed membrane as `mem`, and what its threshold has adapted to as `a`."""

    fused_inputs = 2
    mem: Any
    a: Any
    rho: Tensor
    sparsity: Tensor

    @classmethod
    def note(cls, module: Any) -> str:
        return f"the neuron of {FIXED.network}"

    @classmethod
    def fused_settings(cls, module: Any, forward: Any) -> dict[str, Any]:
        """Those of `alif`, and the share of the membrane that is kept, "decay"."""
        written, names = _known(forward).written, Names(forward, module)
        spike, own = spike_of(written, names.find(written.spike))
        return {"decay": names.number(written.beta), **spike.settings(written, names, own)}

    def fused_run(self, forward: Any, *inputs: Any) -> Tensor:
        known, (x, when) = _known(forward), inputs
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type):
            raise Unlike("x is not a float32 tensor")
        neurons = self.mem if isinstance(self.mem, Tensor) else x
        if neurons.numel() < SMALLEST[torch.is_grad_enabled()]:
            raise Unlike("the neurons are few")
        first = is_first(known, when)
        settings = self.fused_settings(self, forward)
        states = self.entered(known, first)
        if known.rho is not None:
            if x.dim() != 4 or self.rho.dim() != 3 or self.rho.shape[1:] != (1, 1):
                raise Unlike("rho is not one of each channel")
            if first:
                self.rho.data.clamp_(*known.rho)
            settings["adaptation"] = torch.exp(-1 / self.rho).flatten()
        decay, current = settings.pop("decay"), known.current(self, x)
        spikes, (v, a) = alif(current.unsqueeze(0), *states, beta=1.0, return_state=True, **settings)
        spikes, self.mem = spikes.squeeze(0), v * decay
        if known.rho is not None:
            self.a = a
        if known.counts:
            self.sparsity = spikes.sum() / spikes.numel()
        return spikes

    def entered(self, known: Layer, first: bool) -> tuple[Tensor, ...]:
        """The states before the step; none where it begins anew."""
        if first or (known.begins and self.mem is None):
            return ()
        states = (self.mem,) if known.rho is None else (self.mem, self.a)
        if not all(isinstance(each, Tensor) and each.dtype == torch.float32 for each in states):
            raise Unlike("it has no state")
        return states


def form(kind: type[nn.Module]) -> type[Fused] | None:
    """The fused form of a class of modules."""
    return SteppedLayer if source_of(kind) in LAYERS else None


def is_first(known: Layer, when: Any) -> bool:
    """Whether the step is the first, from the argument that says it."""
    if known.named:
        if type(when) is not dict or when.get("mixed_at_mem", True):
            raise Unlike("no spikes are wanted")
        when = when.get("is_first")
    if type(when) not in (bool, int) or when not in (0, 1):
        raise Unlike("is_first is neither 0 nor 1")
    return bool(when)


def _known(forward: Any) -> Layer:
    if key(forward) not in LAYERS:
        raise Unlike("the forward of its class is another one now")
    return LAYERS[key(forward)]
