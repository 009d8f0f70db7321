"""DEAL's network in `python -m deal_kernels --check`: training steps, and inference as a CUDA graph."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from deal.model.network import DEAL
from deal_kernels.check.cases import Target, fastest, strict
from deal_kernels.check.runner import Check, Figure, NotApplicable, Outcome
from deal_kernels.check.speed import medians
from deal_kernels.check.streams import captured
from deal_kernels.check.training import training_of

SIZE = 1, 1, 480, 640


def checks(targets: list[Target]) -> list[Check]:
    device = fastest(targets)
    steps = training_of("deal", "network", DEAL, targets)
    return [*steps, Check("deal", f"fused network as a graph, {device}", partial(fused, device))]


def fused(device: str) -> Outcome:
    """A captured network enhances another image as the network itself does; and how long both take."""
    if device == "cpu":
        raise NotApplicable("graphs are for GPUs")
    return replayed(device)


def replayed(device: str, size: tuple[int, ...] = SIZE) -> Outcome:
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.rand(size, generator=generator).to(device) for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DEAL().eval().fuse().to(device)

    def step() -> list[Tensor]:
        return [network(x)]

    with torch.no_grad(), strict(Target("auto", device)):
        (found,), replay = captured(step)
        x.copy_(other)
        replay()
        assert torch.equal(found, network(x)), "the replayed graph computes something else than the network"
    with torch.no_grad():
        seconds = medians([lambda _: step(), lambda _: replay()], device)
    names = (f"inference, {how}, {size[3]} x {size[2]}" for how in ("single operations", "graph"))
    figures = (Figure(name, device, each * 1e3) for name, each in zip(names, seconds, strict=True))
    return Outcome("captured and replayed with another image", tuple(figures))
