"""A training step of a small network of this library's layers: in float32, in bfloat16, and as a CUDA graph."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from deal_kernels.check.cases import Target, fastest, strict
from deal_kernels.check.runner import Check, Figure, NotApplicable, Outcome
from deal_kernels.check.speed import medians
from deal_kernels.check.streams import captured
from deal_kernels.conv import Conv2d
from deal_kernels.degradation import mixture
from deal_kernels.ssim import l1_ssim
from deal_kernels.tdbn import TDBNLIF, SpikingConv

OPS = ("contrast_0.5", "gaussian_blur", "noise")
MODES = {
    "float32": (torch.float32, False), "bfloat16": (torch.bfloat16, False), "graph": (torch.float32, True),
}  # fmt: skip
STEPS = 6
WARM = 2  # steps before a graph is captured
SIZES = {"cpu": (2, 48), "cuda": (8, 128)}  # images, and their height and width
CLOSE = 1e-2  # losses of a graph and of single steps, whose sums cuDNN may take in another order


class Restorer(nn.Module):
    """Takes degradations out of images [B, 1, H, W]. Its neurons see each image for four steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv2d(1, 16, 3, padding=1, padding_mode="reflect", activation="relu")
        self.block = SpikingConv(16, 16, 3, padding=1, alpha=None, v_threshold=0.3, surrogate="atan")
        self.neurons = TDBNLIF(16, alpha=None, v_threshold=0.3, reduce="mean", surrogate="atan")
        self.last = Conv2d(16, 1, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neurons(self.block(self.first(x), steps=4))) + x


def waves(batch: int, size: int) -> Tensor:
    """Smooth images, which can be told from noise."""
    phase = torch.rand(batch, 2, 1, 1) * 6
    across = torch.linspace(0, 12, size)
    return (0.5 + 0.25 * (across + phase[:, :1]).sin() + 0.25 * (across[:, None] + phase[:, 1:]).sin()).clamp(0, 1)


class Trainer:
    """The same images at every step, degraded by mixtures that are fixed, too."""

    def __init__(self, build: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> None:
        self.build, self.device, self.dtype = build, device, dtype
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = build().to(device)
            batch, size = SIZES[device]
            x = waves(batch, size)
            weights = torch.rand(batch, 2, len(OPS)).softmax(-1)
            params = {"gaussian_blur": torch.ones(batch, 2), "noise": torch.randn(batch, 2, 1, size, size) / 4}
        self.images, self.weights = x.to(device), weights.to(device)
        self.params = {name: values.to(device) for name, values in params.items()}
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def step(self) -> list[Tensor]:
        """The loss before the step."""
        degraded = mixture(self.images, self.weights, OPS, self.params)
        # A graph is not to read weights that autocast converted before it was captured.
        half = torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False)
        with half:
            restored = self.network(degraded)
        loss = l1_ssim(restored.float(), self.images)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return [loss.detach()]

    def losses(self, steps: int) -> list[float]:
        return [self.step()[0].item() for _ in range(steps)]


def training(targets: list[Target]) -> list[Check]:
    return training_of("training", "small network", Restorer, targets)


def training_of(part: str, name: str, build: Callable[[], nn.Module], targets: list[Target]) -> list[Check]:
    """Steps of a network that restores images, in every mode, on the fastest device."""
    device = fastest(targets)
    return [
        Check(part, f"{name}, {mode}, {device}", partial(trained, build, device, f"{name}, {mode}", *how))
        for mode, how in MODES.items()
    ]


def trained(build: Callable[[], nn.Module], device: str, name: str, dtype: torch.dtype, graphed: bool) -> Outcome:
    """Some steps, whose loss falls, and how long one takes."""
    if graphed and device == "cpu":
        raise NotApplicable("graphs are for GPUs")
    trainer = Trainer(build, device, dtype)
    with strict(Target("auto", device)) if graphed else contextlib.nullcontext():
        losses, step = replays(trainer) if graphed else (trainer.losses(WARM + STEPS), trainer.step)
    assert all(map(math.isfinite, losses)), f"the loss is {losses[-1]}"
    assert losses[-1] < losses[0], f"the loss did not fall: {losses[0]:.4f}, {losses[-1]:.4f} after {len(losses)} steps"
    (seconds,) = medians([lambda _: step()], device)
    figure = Figure(f"training step, {name}", device, seconds * 1e3)
    return Outcome(f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps", (figure,))


def replays(trainer: Trainer) -> tuple[list[float], Callable[[], object]]:
    """The losses of steps by a graph, which have to be those of single steps; and the graph."""
    wanted = Trainer(trainer.build, trainer.device, trainer.dtype).losses(WARM + STEPS)[WARM:]
    (loss,), replay = captured(trainer.step)
    found = []
    for _ in range(STEPS):
        replay()
        found.append(loss.item())
    for one, other in zip(found, wanted, strict=True):
        assert abs(one - other) <= CLOSE * abs(other), (
            f"the graph has the loss {one:.5f} where single steps have {other:.5f}"
        )
    return found, replay
