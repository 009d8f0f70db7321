"""Networks on SpikingJelly's neurons, before and after `deal_kernels.compat.swap`, also with norms fused into neurons,
and what it costs to monitor them.

A step of training is the forward pass, the loss, the backward pass and a step of gradient descent. Saved is what the
forward pass keeps for the backward pass.
"""

from __future__ import annotations

import copy
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
from deal_kernels.compat import Report as SwapReport
from deal_kernels.compat import norms
from deal_kernels.monitor import Report, monitor

NAMES = "before", "after", "norms"  # as it is, with fused neurons, and with norms fused into them, too
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
    """A network in the forms of NAMES, and how to train it."""

    library: str
    networks: dict[str, nn.Module]
    found: SwapReport  # with norms
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
def setup(request, case, timed, monkeypatch) -> Setup:
    library = request.param
    if library not in INSTALLED:
        pytest.skip(f"spikingjelly.{library} is not installed: pip install --no-deps {LIBRARIES[library]}")
    compat.install()
    build, size, small = CASES[case]
    if not timed:
        size = SMALL
        monkeypatch.setattr(norms, "SMALLEST", 0)  # so that norms are fused in networks as small as these
    networks = {}
    for name in NAMES:
        torch.manual_seed(0)
        networks[name] = build(library, **({} if timed else small)).to(DEVICE)
    x = torch.rand(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    for network in networks.values():
        give_statistics(network, x)
    compat.swap(networks["after"])
    found = compat.swap(networks["norms"], norms=True)
    target = x.flip(-1) if case == "deraining" else torch.arange(BATCH, device=DEVICE) % CLASSES
    return Setup(library, networks, found, x, target)


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


def assert_the_same_numbers(setup: Setup) -> None:
    """Norms that are fused round otherwise. In float64 no spike depends on that, as long as no weights are updated."""
    results = []
    for name in ("before", "norms"):
        reset(setup.library, setup.networks[name])
        network = copy.deepcopy(setup.networks[name]).double()
        with torch.no_grad():
            results.append(network.train()(setup.x.double()))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def in_turns(call: Callable[[str], Tensor]) -> dict[str, Callable[[], Tensor]]:
    return {name: lambda name=name: call(name) for name in NAMES}


def bench_swap(setup, case, race, report):
    assert_the_same_numbers(setup)
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
        row |= {f"{name}_{each}": milliseconds(result.seconds(each)) for each in NAMES}
        row |= {f"x_{name}_{each}": f"{result.ratio('before', each):.2f}" for each in NAMES[1:]}
    report.add(
        f"Networks before and after swap, also with norms=True (ms; x = before / after; batch {BATCH})",
        network=case, neurons_of=setup.library, replaced=len(setup.found.replaced), left=len(setup.found.left),
        bits="equal", norms=len(setup.found.norms), fused=sum(each.uses.fused > 0 for each in setup.found.norms), **row,
        **{f"saved_MiB_{name}": f"{saved[name]:.0f}" for name in NAMES},
        **{f"x_saved_{name}": f"{saved[name] / saved['before']:.2f}" for name in NAMES[1:]},
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
