"""A network that is written for one time step, in its loop and by `deal_kernels.compat.over_time`.

The network is that of snnTorch's tutorials, two linear layers with a leaky neuron each; where snnTorch is missing, the
neurons are this package's. A step of training makes the gradients of all parameters.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import NamedTuple

import pytest
import torch
from figures import milliseconds
from torch import Tensor, nn

from deal_kernels import compat
from deal_kernels.lif import LIF

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INPUTS, OUTPUTS, BETA = 784, 10, 0.95
FLIPPED = 1e-3  # the share of spikes that another order of a sum may change


class Size(NamedTuple):
    steps: int
    batch: int
    hidden: int


FULL, SMOKE = Size(25, 128, 1000), Size(25, 4, 100)
LIBRARY = "snntorch" if importlib.util.find_spec("snntorch") else "deal_kernels"


class OneStep(nn.Module):
    """A step of the network with snnTorch's neurons, which are given their states."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        import snntorch

        self.fc1, self.lif1 = nn.Linear(INPUTS, hidden), snntorch.Leaky(beta=BETA)
        self.fc2, self.lif2 = nn.Linear(hidden, OUTPUTS), snntorch.Leaky(beta=BETA)

    def forward(self, x: Tensor, mem1: Tensor, mem2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spikes, mem1 = self.lif1(self.fc1(x), mem1)
        spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
        return spikes, mem1, mem2


class Setup:
    """The network, the same by `over_time`, and the input: another one at every step, [T, B, N], or one for all."""

    def __init__(self, size: Size, held: bool) -> None:
        torch.manual_seed(0)
        self.size, self.held = size, held
        self.network = self.made(stateful=True)
        shape = (size.batch, INPUTS) if held else (size.steps, size.batch, INPUTS)
        self.x = torch.rand(shape, device=DEVICE)
        self.rewritten = {}
        for name, exact in (("over_time", False), ("over_time_exact", True)):
            network = self.made(stateful=False)
            network.load_state_dict(self.network.state_dict())
            self.rewritten[name] = compat.over_time(network, exact=exact)

    def made(self, stateful: bool) -> nn.Module:
        if LIBRARY == "snntorch":
            return OneStep(self.size.hidden).to(DEVICE)
        neuron = functools.partial(LIF, beta=BETA, v_reset=None, surrogate="atan", stateful=stateful)
        layers = nn.Linear(INPUTS, self.size.hidden), neuron(), nn.Linear(self.size.hidden, OUTPUTS), neuron()
        return nn.Sequential(*layers).to(DEVICE)

    def states(self) -> list[Tensor]:
        if LIBRARY != "snntorch":
            return []
        return [torch.zeros(self.size.batch, neurons, device=DEVICE) for neurons in (self.size.hidden, OUTPUTS)]

    def loop(self) -> Tensor:
        states, spikes = self.states(), []
        if not states:
            for layer in self.network[1::2]:
                layer.reset()
        for t in range(self.size.steps):
            x = self.x if self.held else self.x[t]
            step, *states = self.network(x, *states) if states else (self.network(x.unsqueeze(0)).squeeze(0),)
            spikes.append(step)
        return torch.stack(spikes)

    def run(self, name: str) -> Tensor:
        """The spikes, [T, B, OUTPUTS]."""
        if name == "loop":
            return self.loop()
        steps = {"steps": self.size.steps} if self.held else {}
        found = self.rewritten[name](self.x, *self.states(), **steps)
        return found[0] if isinstance(found, tuple) else found

    def evaluate(self, name: str) -> Tensor:
        with torch.no_grad():
            return self.run(name)

    def train(self, name: str) -> tuple[Tensor, ...]:
        network = self.network if name == "loop" else self.rewritten[name]
        return torch.autograd.grad(self.run(name).sum(), list(network.parameters()))


def share_of_flips(setup: Setup) -> float:
    """No numbers for a wrong result. With exact=True the spikes are those of the loop."""
    expected = setup.evaluate("loop")
    assert expected.any() and torch.equal(setup.evaluate("over_time_exact"), expected)
    share = (setup.evaluate("over_time") != expected).float().mean().item()
    assert share <= FLIPPED
    if share == 0:
        for name in setup.rewritten:
            for found, gradient in zip(setup.train(name), setup.train("loop"), strict=True):
                assert (found - gradient).abs().max() <= 1e-4 * gradient.abs().max()
    return share


@pytest.mark.parametrize("held", [True, False], ids=["held", "another"])
def bench_over_time(held, race, timed, report):
    setup = Setup(FULL if timed else SMOKE, held)
    share = share_of_flips(setup)
    for direction, call in (("evaluation", setup.evaluate), ("training", setup.train)):
        names = ("loop", *setup.rewritten)
        result = race({name: functools.partial(call, name) for name in names}, 8.0)
        if result is not None:
            times = {name: milliseconds(result.seconds(name)) for name in names}
            gains = {f"x_{name}": f"{result.ratio('loop', name):.1f}" for name in setup.rewritten}
            report.add(
                f"{INPUTS}-{FULL.hidden}-{OUTPUTS}, T={FULL.steps}, batch {FULL.batch}, neurons of {LIBRARY} "
                "(ms; x = loop / over_time)",
                case=f"{direction}, {'one input held' if held else 'another input at every step'}", **times, **gains,
                other_spikes=f"{share:.1e}" if share else "none",
            )  # fmt: skip
