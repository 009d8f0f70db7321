"""The two players and one step of their game.

>>> from deal.settings import Settings
>>> players = Players(Settings(blocks=[["scale", 5, 3]], width=4), Crew(torch.device("cpu")))
>>> figures = players.step(torch.rand(2, 1, 32, 32), number=0, adversary=True)
>>> list(figures)
['loss', 'closeness', 'contrast', 'degraded_contrast']
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from deal.generator import Generator
from deal.model import DEAL
from deal.processes import Crew
from deal.settings import Settings
from deal_kernels.ssim import l1_ssim
from deal_kernels.tdbn import TDBatchNorm2d

LAST = 0.1  # of the learning rate, for the last two convolutions
DARK = 1e-6  # the least deviation of a clean image to measure others by


def seeded(*words: int) -> torch.Generator:
    """Random numbers that depend on these words alone: what is drawn at a step needs no state kept from earlier ones.

    They are drawn on the CPU, so that a GPU sees the same ones.
    """
    seed = numpy.random.SeedSequence(words).generate_state(1, numpy.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


class Players:
    """The network and the generator with their optimisers.

    Args:
        settings: of the run.
        crew: the processes that share every batch. All draw what is random for the whole batch and take their part of
            it, so that how many there are makes no difference.
    """

    def __init__(self, settings: Settings, crew: Crew) -> None:
        self.settings, self.crew = settings, crew
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = _network(settings)
            self.dropout = SharedDropout(settings.dropout, crew)
            generator = Generator(
                settings.ops, channels=settings.channels, stages=settings.stages, dropout=settings.dropout,
                ranges=settings.ranges,
            )  # fmt: skip
        generator.trunk[-2] = self.dropout
        self.network, self.generator = network.to(crew.device).train(), generator.to(crew.device).train()
        self.learner = _learner(self.network, settings.learns)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False) if settings.ema else None
        self.network_optimiser = torch.optim.Adam(_groups(self.network), settings.learning_rate, fused=True)
        self.generator_optimiser = torch.optim.SGD(
            self.generator.parameters(), settings.generator_rate, settings.momentum,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        self.half = settings.precision == "bf16" or (
            settings.precision == "auto" and crew.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )

    def step(self, x: Tensor, number: int, adversary: bool) -> dict[str, Tensor]:
        """Moves the network, and the generator if it is the network's adversary at this step.

        Args:
            x: this process's part of the clean images, [B, C, H, W].
            number: of the step; it decides what is drawn.

        Returns:
            The losses L(y, x) and L(x_hat, x), and the deviation of each y and x_hat as a share of that of its x.
        """
        self._set_rates(self.settings.scale(number))
        self.network_optimiser.zero_grad()
        self.generator_optimiser.zero_grad()
        with torch.set_grad_enabled(adversary):
            x_hat = self.degraded(x, seeded(self.settings.seed, 2, number))
            closeness = self.loss(x_hat, x)
        if not adversary:
            loss, y = self._move_network(x_hat, x)
        elif self.settings.update == "alternating":
            loss, y = self._move_network(x_hat.detach(), x)
            self._move_generator(x_hat, x, closeness)
        else:
            loss, y = self._move_both(x_hat, x, closeness)
        self._average_weights()
        clean, enhanced, degraded = (image.detach().flatten(1).std(1) for image in (x, y, x_hat))
        return {
            "loss": loss.detach(), "closeness": closeness.detach(),
            "contrast": (enhanced / clean.clamp_min(DARK)).mean(),
            "degraded_contrast": (degraded / clean.clamp_min(DARK)).mean(),
        }  # fmt: skip

    def loss(self, y: Tensor, x: Tensor) -> Tensor:
        return l1_ssim(y, x, self.settings.pixel, self.settings.structure)

    def enhanced(self, x_hat: Tensor) -> Tensor:
        """By the network, as it trains, or by its context, where that learns alone."""
        with torch.autocast(x_hat.device.type, torch.bfloat16, enabled=self.half):
            y: Tensor = self.learner(x_hat)
        return y.to(x_hat.dtype)

    def degraded(self, x: Tensor, random: torch.Generator) -> Tensor:
        """What the strategy makes of clean images."""
        whole = x[:1].expand(len(x) * self.crew.count, -1, -1, -1)  # only its shape matters
        self.dropout.random = random
        weights = self._weights(x, whole, random)
        params = {name: self.crew.share(each) for name, each in self.generator.sample(whole, random).items()}
        degraded: Tensor = self.generator(x, weights, params)
        return degraded

    def _weights(self, x: Tensor, whole: Tensor, random: torch.Generator) -> Tensor:
        if self.settings.strategy == "das":
            return self.generator.weights(x)
        shape = len(whole), self.generator.stages, len(self.generator.ops)
        if self.settings.strategy == "average":
            return x.new_full((len(x), *shape[1:]), 1 / shape[-1])
        chosen = torch.randint(shape[-1], shape[:2], generator=random)
        return nn.functional.one_hot(self.crew.share(chosen), shape[-1]).to(x)

    def _move_network(self, x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.enhanced(x_hat)
        loss = self.loss(y, x)
        loss.backward()  # type: ignore[no-untyped-call]
        self._follow(self.network, self.network_optimiser)
        return loss, y

    def _move_generator(self, x_hat: Tensor, x: Tensor, closeness: Tensor) -> None:
        with _frozen(self.network):
            loss = self.loss(self.enhanced(x_hat), x)
            (self.settings.closeness * closeness - loss).backward()  # type: ignore[no-untyped-call]
        self._follow(self.generator, self.generator_optimiser)

    def _move_both(self, x_hat: Tensor, x: Tensor, closeness: Tensor) -> tuple[Tensor, Tensor]:
        y = self.enhanced(Opposed.apply(x_hat))
        loss = self.loss(y, x)
        (loss + self.settings.closeness * closeness).backward()  # type: ignore[no-untyped-call]
        self._follow(self.network, self.network_optimiser)
        self._follow(self.generator, self.generator_optimiser)
        return loss, y

    def _follow(self, player: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.crew.average_gradients(player)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters(), self.settings.clip)
        optimiser.step()

    def _set_rates(self, scale: float) -> None:
        rates = self.settings.learning_rate, self.settings.generator_rate
        for optimiser, rate in zip((self.network_optimiser, self.generator_optimiser), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale * group.get("share", 1.0)

    @torch.no_grad()
    def _average_weights(self) -> None:
        if self.averaged is None or self.settings.ema is None:
            return
        for mean, new in zip(_tensors(self.averaged), _tensors(self.network), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - self.settings.ema)
            else:
                mean.copy_(new)

    @property
    def kept(self) -> DEAL:
        """The network that is validated and saved."""
        return self.network if self.averaged is None else self.averaged

    def finite(self) -> bool:
        """Whether all weights are numbers still."""
        return all(
            bool(tensor.isfinite().all()) for player in (self.network, self.generator) for tensor in _tensors(player)
        )

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        parts: dict[str, Any] = {
            "network": self.network, "generator": self.generator, "network_optimiser": self.network_optimiser,
            "generator_optimiser": self.generator_optimiser,
        } | ({} if self.averaged is None else {"averaged": self.averaged})  # fmt: skip
        return {name: part.state_dict() for name, part in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Takes the place of the players whose state this is."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def _network(settings: Settings) -> DEAL:
    network = DEAL(
        settings.blocks, channels=settings.channels, width=settings.width, neuron=settings.neuron, norm=settings.norm,
        context=settings.context,
    )  # fmt: skip
    nn.init.zeros_(network.output_conv.weight)  # so that training begins with images as they are
    for file in [settings.weights] if isinstance(settings.weights, str) else settings.weights or []:
        start = DEAL.from_pretrained(file).with_channels(settings.channels)
        expected = {**network.config, "context": settings.context and start.context is not None}
        if start.config != expected:
            raise ValueError(f"weights of {file} are of a network {start.config}; asked for is {network.config}")
        network.load_state_dict(start.state_dict(), strict=False)
    return network


def _learner(network: DEAL, learns: str) -> nn.Module:
    """What makes the images to learn by; what is not to learn has no gradient."""
    if learns == "all" or network.context is None:
        return network
    alone = learns == "context"
    network.requires_grad_(not alone)
    network.context.requires_grad_(alone)
    return network.context if alone else network


def _groups(network: DEAL) -> list[dict[str, Any]]:
    """What learns, and at which share of the rate.

    Adam's steps are as long for the last two convolutions as for others, but move the image itself. At the full rate
    nearly all of what the last one reads is off after a few of them, for good.
    """
    last = {*network.refine_conv.parameters(), *network.output_conv.parameters()}
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    others = [parameter for parameter in learning if parameter not in last]
    slow = [parameter for parameter in learning if parameter in last]
    return [{"params": others}, {"params": slow, "share": LAST}]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class SharedDropout(nn.Dropout):
    """Drops of a process's samples what one process alone would drop of them."""

    def __init__(self, p: float, crew: Crew) -> None:
        super().__init__(p)
        self.crew, self.random = crew, torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        drawn = torch.rand(len(x) * self.crew.count, *x.shape[1:], generator=self.random)
        return x * ((self.crew.share(drawn) >= self.p).to(x) / (1 - self.p))


class Opposed(torch.autograd.Function):
    """The boundary between the players: what is a loss to the one is a gain to the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass the network and leave none in it, and its running statistics stay what they are."""
    norms = [module for module in network.modules() if isinstance(module, TDBatchNorm2d)]
    before = [norm.momentum for norm in norms]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
