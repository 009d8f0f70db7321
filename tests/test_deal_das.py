"""The two players: what each of them follows, and what becomes of that over a run."""

import csv
import dataclasses
import math

import pytest
import torch

from deal.das import Settings, train
from deal.model import DEAL
from deal.players import Players
from deal.processes import Crew
from deal.progress import Collapsed, Watch
from deal.scenes import Scenes
from deal_kernels.ssim import l1_ssim

ALONE = Crew(torch.device("cpu"))
TINY = {
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "width": 4, "batch": 2, "crop": 32, "progress": False,
    "device": "cpu",
}  # fmt: skip
UPDATES = ("alternating", "simultaneous")


def settings(**changes):
    return Settings(**{**TINY, **changes})


def scenes(count=4):
    return Scenes(count, 48, 48)


def batch(dtype=torch.float32):
    source = scenes()
    return torch.stack([source[k] for k in range(2)]).to(dtype)


def weights_of(module):
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def tiny_run(folder, *, source=None, **changes):
    return train(settings(output=str(folder), **changes), scenes() if source is None else source)


@pytest.mark.parametrize("update", UPDATES)
def test_generator_learns(update):
    players = Players(settings(update=update), ALONE)
    before = weights_of(players.generator).clone()
    players.step(batch(), 0, adversary=True)
    moved = (weights_of(players.generator) != before).float().mean()
    assert moved > 0.9
    # Not by weight decay alone: the adversary's gradient is in every layer.
    assert all(parameter.grad.abs().max() > 0 for parameter in players.generator.parameters())


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("closeness", [0.0, 1.0])
def test_gradients_are_finite_differences(update, closeness):
    """Of what either player descends; without spiking neurons, whose gradient is none of a function."""
    chosen = settings(
        update=update, closeness=closeness, learning_rate=0.0, generator_rate=0.0, blocks=[["scale", 5, 3]]
    )  # fmt: skip
    players = Players(chosen, ALONE)
    players.network.double(), players.generator.double()
    x = batch(torch.float64)
    players.step(x, 3, adversary=True)
    generator = torch.Generator().manual_seed(0)

    def objective(player):
        figures = players.step(x, 3, adversary=True)
        return figures["loss"] if player is players.network else closeness * figures["closeness"] - figures["loss"]

    for player, step in ((players.generator, 1e-4), (players.network, 1e-5)):
        parameters = list(player.parameters())
        gradients = [parameter.grad.clone() for parameter in parameters]
        norm = torch.cat([gradient.reshape(-1) for gradient in gradients]).norm()
        # Half along the gradient, half at random.
        way = [
            gradient / norm + torch.randn(gradient.shape, dtype=x.dtype, generator=generator) / 2000
            for gradient in gradients
        ]
        ahead = sum((gradient * each).sum() for gradient, each in zip(gradients, way, strict=True))
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, each in zip(parameters, way, strict=True):
                    parameter += sign * step * each
            found.append(objective(player))
            with torch.no_grad():
                for parameter, each in zip(parameters, way, strict=True):
                    parameter -= sign * step * each
        difference = (found[0] - found[1]) / (2 * step)
        print(update, closeness, type(player).__name__, difference.item(), ahead.item())
        assert abs(difference - ahead) < 1e-4 * abs(ahead)
