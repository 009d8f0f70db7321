"""Networks on SpikingJelly's neurons, before and after `deal_kernels.compat.swap`, and what it costs to monitor them.

A step of training is the forward pass, the loss, the backward pass and a step of gradient descent. Saved is what the
forward pass keeps for the backward pass.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from figures import milliseconds
from lif_rivals import DEVICE
from memory import saved_bytes
from models import deraining, ms_resnet, sew_resnet, spikformer
from models.neurons import reset
from torch import Tensor, nn

from deal_kernels import compat
from deal_kernels.monitor import Report, monitor

LIBRARIES = {"clock_driven": "spikingjelly==0.0.0.0.12", "activation_based": "spikingjelly==0.0.0.0.14"}
BATCH, CLASSES, RATE = 4, 10, 1e-3


class Case(NamedTuple):
    build: Callable[..., nn.Module]
    size: int  # of the square images
    small: dict[str, Any]  # arguments for a network that only has to run


CASES = {
    "Spikformer-type": Case(spikformer.build, 32, {"width": 24, "depth": 1, "heads": 2}),
    "SEW-type": Case(sew_resnet.build, 112, {"width": 4, "blocks": (1, 1)}),
    "MS-type": Case(ms_resnet.build, 64, {"width": 4, "blocks": (1, 1)}),
    "deraining": Case(deraining.build, 48, {"width": 4, "scales": 2}),
}
SMALL = 16


def installed(library: str) -> bool:
    """Whether this part of SpikingJelly itself is there, and not what `compat.install` puts in its place."""
    try:
        return importlib.util.find_spec(f"spikingjelly.{library}.neuron") is not None
    except ModuleNotFoundError:
        return False


INSTALLED = [library for library in LIBRARIES if installed(library)]  # found before `compat.install` adds to them


class Setup(NamedTuple):
    """A network as it is and the same network with fused neurons, and how to train them."""

    library: str
    networks: dict[str, nn.Module]
    replaced: str
    x: Tensor
    target: Tensor

    def loss(self, result: Tensor) -> Tensor:
        if self.target.dim() == 1:
            return nn.functional.cross_entropy(result, self.target)
        return nn.functional.l1_loss(result, self.target)

    def forward(self, name: str) -> Tensor:
        reset(self.library, self.networks[name])
        return self.networks[name](self.x)

    def evaluate(self, name: str) -> Tensor:
        with torch.no_grad():
            return self.forward(name)

    def train(self, name: str) -> Tensor:
        loss = self.loss(self.forward(name))
        parameters = list(self.networks[name].parameters())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.sub_(gradient, alpha=RATE)
        return loss.detach()


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


@pytest.fixture(params=LIBRARIES)
def setup(request, case, timed) -> Setup:
    library = request.param
    if library not in INSTALLED:
        pytest.skip(f"spikingjelly.{library} is not installed: pip install --no-deps {LIBRARIES[library]}")
    compat.install()
    build, size, small = CASES[case]
    size, small = (size, {}) if timed else (SMALL, small)
    networks = {}
    for name in ("before", "after"):
        torch.manual_seed(0)
        networks[name] = build(library, **small).to(DEVICE)
    x = torch.rand(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    for network in networks.values():
        give_statistics(network, x)
    found = compat.swap(networks["after"])
    target = x.flip(-1) if case == "deraining" else torch.arange(BATCH, device=DEVICE) % CLASSES
    return Setup(library, networks, f"{len(found.replaced)} of {len(found.replaced) + len(found.left)}", x, target)


def give_statistics(network: nn.Module, x: Tensor) -> None:
    """Makes the norms those of a network that was trained on x; as they start, few of the neurons would fire."""
    norms = [module for module in network.modules() if hasattr(module, "momentum")]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def set_training(setup: Setup, training: bool) -> None:
    for network in setup.networks.values():
        network.train(training)


def assert_the_same_bits(setup: Setup) -> None:
    """No numbers for a wrong result: logits in both modes, and the losses of two steps of training."""
    for training in (False, True):
        set_training(setup, training)
        assert torch.equal(setup.evaluate("before"), setup.evaluate("after"))
    for _ in range(2):
        assert torch.equal(setup.train("before"), setup.train("after"))


def in_turns(call: Callable[[str], Tensor]) -> dict[str, Callable[[], Tensor]]:
    return {name: lambda name=name: call(name) for name in ("before", "after")}


def bench_swap(setup, case, race, report):
    assert_the_same_bits(setup)
    set_training(setup, True)
    saved = {name: saved_bytes(lambda name=name: setup.forward(name)) / 2**20 for name in setup.networks}
    training = race(in_turns(setup.train), 12.0)
    set_training(setup, False)
    evaluation = race(in_turns(setup.evaluate), 8.0)
    if training is None or evaluation is None:
        return
    row = {}
    for name, result in (("evaluation", evaluation), ("training", training)):
        row |= {f"{name}_{each}": milliseconds(result.seconds(each)) for each in ("before", "after")}
        row[f"x_{name}"] = f"{result.ratio('before', 'after'):.2f}"
    report.add(
        f"Networks before and after swap (ms; x = before / after; batch {BATCH})",
        network=case, neurons_of=setup.library, replaced=setup.replaced, bits="equal", **row,
        saved_MiB_before=f"{saved['before']:.0f}", saved_MiB_after=f"{saved['after']:.0f}",
        x_saved=f"{saved['after'] / saved['before']:.2f}",
    )  # fmt: skip


def monitored(setup: Setup) -> Report:
    with monitor(setup.networks["after"]) as found:
        setup.evaluate("after")
    return found


def bench_monitor(setup, case, race, report):
    """What the monitor adds to a pass, and what it finds in networks that are not trained."""
    set_training(setup, False)
    found = monitored(setup)
    rates = [(layer.spikes, layer.neuron_steps) for layer in found.layers if layer.neuron_steps]
    assert found.accumulations > 0
    result = race({"plain": lambda: setup.evaluate("after"), "monitored": lambda: monitored(setup)}, 6.0)
    if result is not None:
        spikes, neuron_steps = map(sum, zip(*rates, strict=True))
        report.add(
            f"A pass with the monitor of spikes (ms; counts of a batch of {BATCH})",
            network=case, neurons_of=setup.library, plain=milliseconds(result.seconds("plain")),
            monitored=milliseconds(result.seconds("monitored")), x_plain=f"{result.ratio('monitored', 'plain'):.2f}",
            firing_rate=f"{spikes / neuron_steps:.3f}", M_accumulations=f"{found.accumulations / 1e6:.1f}",
            M_MACs=f"{found.macs / 1e6:.1f}", uJ=f"{found.energy() / 1e6:.1f}",
        )  # fmt: skip
