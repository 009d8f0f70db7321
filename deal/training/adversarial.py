"""One training step of the game between the network and the generator of degradations.

For clean images x the generator makes degraded images x_hat, and the network separates parts from them. With the loss L
of `deal.training.losses`, the network minimises L(x_hat, parts, x). The generator minimises
fidelity_weight * L(x_hat, none, x) - L(x_hat, parts, x): it looks for degradations that are mild but hard to remove. A
policy pays for its divergence from random choices as well, with `price`. With the loss "l1_ssim" and the strategy "das"
this is the dynamic adversarial solution (DAS) of the paper.

>>> from deal.training.settings import Settings
>>> training = AdversarialTraining(Settings(blocks=[["scale", 5, 3]], width=4), ProcessGroup(torch.device("cpu")))
>>> figures = training.step(torch.rand(2, 1, 32, 32), step=0, adversary=True)
>>> list(figures)
['loss', 'fidelity', 'divergence', 'contrast', 'degraded_contrast']
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deal.model import cuda_graph
from deal.model.averaging import tensors_of, update_average
from deal.model.generator import SHADINGS, TONES, Generator
from deal.model.parts import Parts
from deal.model.policy import Policy
from deal.model.pretrained import Network
from deal.model.separation import DealU
from deal.training.distributed import ProcessGroup
from deal.training.draws import Draws, draw, draw_noise, seeded_random
from deal.training.half_precision import InHalfPrecision
from deal.training.losses import separation_loss, structure_loss, whole_frame_loss
from deal.training.network_setup import build_network, parameter_groups
from deal.training.settings import Settings
from deal_kernels.ssim import l1_ssim
from deal_kernels.tdbn import TDBatchNorm2d

FIGURES = (
    "loss",
    "fidelity",
    "divergence",
    "contrast",
    "degraded_contrast",
)  # of a step, see `AdversarialTraining.step`
MIN_DEVIATION = 1e-6  # lower bound of the standard deviation of a clean image in divisions


class AdversarialTraining:
    """The network and the generator, with their optimisers.

    Args:
        settings: of the run.
        group: the processes that share each batch. Each draws the random numbers of the whole batch and uses those of
            its own samples, so that results do not depend on the number of processes.
    """

    def __init__(self, settings: Settings, group: ProcessGroup) -> None:
        self.settings, self.group = settings, group
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = build_network(settings)
            self.dropout = DrawnDropout(settings.dropout)
            kind = Policy if settings.strategy in ("policy", "random") else Generator
            generator = kind(
                settings.ops, channels=settings.channels, stages=settings.stages, dropout=settings.dropout,
                ranges=settings.ranges,
            )  # fmt: skip
        generator.trunk[-2] = self.dropout
        self.network, self.generator = network.to(group.device).train(), generator.to(group.device).train()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False) if settings.ema_decay else None
        self.network_optimiser = torch.optim.Adam(parameter_groups(self.network), settings.learning_rate, fused=True)
        self.generator_optimiser = _generator_optimiser(self.generator, settings)
        half = settings.precision == "bf16" or (
            settings.precision == "auto" and group.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.separate = InHalfPrecision(self.network) if half else self.network.separate
        recorder = cuda_graph.recorder_for(settings.graph, group.device) if group.size == 1 else None
        self.update = self._update if recorder is None else cuda_graph.Graphed(self._update, recorder)
        self._place_rates()

    def draws(
        self, step: int, x: Tensor, adversary: bool, thumbnails: Tensor | None = None
    ) -> tuple[Draws, Draws | None]:  # fmt: skip
        """The random numbers of a step for its images and its thumbnails, on their device; arguments as of `step`."""
        of_images = self._draws(x, seeded_random(self.settings.seed, 2, step), adversary)
        if thumbnails is None:
            return of_images, None
        random = seeded_random(self.settings.seed, 4, step)
        of_thumbnails = self._draws(thumbnails, random, policy=False)
        return of_images, of_thumbnails._replace(noise=draw_noise(thumbnails, random, self.group))

    def step(
        self, x: Tensor, step: int, adversary: bool, thumbnails: Tensor | None = None,
        draws: tuple[Draws, Draws | None] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Updates the network, and the generator if `adversary` is set.

        Args:
            x: this process's clean images, [B, C, H, W].
            step: the number of the step, which seeds its random numbers.
            adversary: whether the generator learns.
            thumbnails: reduced images [B', C, H', W'] that train the shading and the tone.
            draws: the random numbers of the step, where they were drawn before, see `draws`.

        Returns:
            "loss" is the network's and "fidelity" that of the degraded images; "divergence" is that of the policy from
            random choices; "contrast" and "degraded_contrast" are the standard deviations of the restored images and of
            x_hat, relative to that of x.
        """
        if draws is None:
            draws = self.draws(step, x, adversary, thumbnails)
        self._set_learning_rates(step)
        return dict(zip(FIGURES, self.update(x, thumbnails, *draws, adversary).unbind(), strict=True))

    def _update(
        self, x: Tensor, thumbnails: Tensor | None, of_images: Draws, of_thumbnails: Draws | None, adversary: bool
    ) -> Tensor:  # fmt: skip
        """The figures of a step, after the update."""
        self.network_optimiser.zero_grad()
        self.generator_optimiser.zero_grad()
        if thumbnails is not None and of_thumbnails is not None:
            self._learn_whole_frames(thumbnails, of_thumbnails)
        with torch.set_grad_enabled(adversary):
            x_hat, toned, divergence = self.degrade(x, of_images, policy=adversary)
            fidelity = self.fidelity(x_hat, x)
            closeness = self.settings.fidelity_weight * fidelity + self.settings.price * divergence
        if not adversary:
            loss, parts = self._update_network(x_hat, x, toned)
        elif self.settings.update == "alternating":
            loss, parts = self._update_network(x_hat.detach(), x, toned)
            self._update_generator(x_hat, x, toned, closeness)
        else:
            loss, parts = self._update_both(x_hat, x, toned, closeness)
        if self.averaged is not None and self.settings.ema_decay is not None:
            update_average(self.averaged, self.network, self.settings.ema_decay)
        images = torch.stack([x, parts.restored(x_hat).detach(), x_hat.detach()])
        clean, *others = images.flatten(2).std(2)
        enhanced, degraded = (torch.stack(others) / clean.clamp_min(MIN_DEVIATION)).mean(1)
        return torch.stack([loss.detach(), fidelity.detach(), divergence.detach(), enhanced, degraded])

    def degrade(self, x: Tensor, draws: Draws, *, policy: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images, degraded by the strategy of the run.

        Args:
            x: clean images, [B, C, H, W].
            draws: the random numbers.
            policy: whether a policy chooses; otherwise it makes random choices.

        Returns:
            The degraded images, the images with the changes of contrast and brightness alone, and the mean divergence
            of the choices from random ones.
        """
        weights, divergence = self._mixture_weights(x, draws, policy)
        degraded: Tensor = self.generator(x, weights, draws.params)
        return degraded, self.generator.only(TONES, x, weights.detach(), draws.params), divergence.mean()

    def loss(self, x_hat: Tensor, parts: Parts, x: Tensor, toned: Tensor) -> Tensor:
        """The loss of the network, [B] or a mean; arguments as of `separation_loss`."""
        if self.settings.loss == "separation":
            return separation_loss(x_hat, parts, x, toned)
        return l1_ssim(parts.restored(x_hat), x, self.settings.l1_weight, self.settings.ssim_weight)

    def fidelity(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The same loss of the degraded images as they are."""
        if self.settings.loss == "separation":
            return structure_loss(x_hat, x).mean()
        return l1_ssim(x_hat, x, self.settings.l1_weight, self.settings.ssim_weight)

    def _draws(self, x: Tensor, random: torch.Generator, policy: bool) -> Draws:
        strategy = self.settings.strategy
        classifies = (strategy == "das" or (strategy == "policy" and policy)) and self.dropout.p > 0
        like = torch.empty_like(x, device="cpu")
        return draw(self.generator, like, random, self.group, classifies=classifies).to(x.device)

    def _mixture_weights(self, x: Tensor, draws: Draws, policy: bool) -> tuple[Tensor, Tensor]:
        """The weights of this process's samples, and their divergences from random ones."""
        self.dropout.drawn = draws.dropout
        if isinstance(self.generator, Policy):
            return self.generator.draw(x if policy and self.settings.strategy == "policy" else None, *draws.chances)
        if self.settings.strategy == "das":
            return self.generator.weights(x), x.new_zeros(())
        return self.generator.even(len(x)).to(x), x.new_zeros(())

    def _learn_whole_frames(self, x: Tensor, draws: Draws) -> None:
        """Adds to the gradients of shading and tone. Thumbnails keep the tone and the shading, and little of the
        noise."""
        if not isinstance(self.network, DealU):
            raise ValueError(f"thumbnails can only train deal-u; got {type(self.network).__name__}")
        weights, _ = self._mixture_weights(x, draws, policy=False)
        toned, shaded = (self.generator.only(kinds, x, weights, draws.params) for kinds in (TONES, TONES + SHADINGS))
        x_hat = shaded if draws.noise is None else shaded + draws.noise
        shading = self.network.shading(x_hat)
        tone = self.network.tone((x_hat - shading).detach())
        whole_frame_loss(x_hat, shading, tone, x, toned).mean().backward()  # type: ignore[no-untyped-call]

    def _update_network(self, x_hat: Tensor, x: Tensor, toned: Tensor) -> tuple[Tensor, Parts]:
        parts = self.separate(x_hat)
        loss = self.loss(x_hat, parts, x, toned).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply_gradients(self.network, self.network_optimiser)
        return loss, parts

    def _update_generator(self, x_hat: Tensor, x: Tensor, toned: Tensor, closeness: Tensor) -> None:
        with _frozen(self.network):
            loss = self.loss(x_hat, self.separate(x_hat), x, toned).mean()
            (closeness - loss).backward()  # type: ignore[no-untyped-call]
        self._apply_gradients(self.generator, self.generator_optimiser)

    def _update_both(
        self, x_hat: Tensor, x: Tensor, toned: Tensor, closeness: Tensor
    ) -> tuple[Tensor, Parts]:  # fmt: skip
        reversed_x_hat = GradientReversal.apply(x_hat)
        parts = self.separate(reversed_x_hat)
        loss = self.loss(reversed_x_hat, parts, x, toned).mean()
        (loss + closeness).backward()  # type: ignore[no-untyped-call]
        self._apply_gradients(self.network, self.network_optimiser)
        self._apply_gradients(self.generator, self.generator_optimiser)
        return loss, parts

    def _apply_gradients(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.group.average_gradients(module)
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), self.settings.gradient_clip)
        optimiser.step()

    def _set_learning_rates(self, step: int) -> None:
        rates = self.settings.learning_rate, self.settings.generator_rate
        for optimiser, rate in zip((self.network_optimiser, self.generator_optimiser), rates, strict=True):
            for group in optimiser.param_groups:
                factor = self.settings.rate_factor(step, settles=group.get("settles"))
                value = rate * factor * group.get("share", 1.0)
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(value)
                else:
                    group["lr"] = value

    def _place_rates(self) -> None:
        """Keeps the learning rates where an update reads them: a graph does so on the device."""
        in_graph = isinstance(self.update, cuda_graph.Graphed)
        for optimiser in (self.network_optimiser, self.generator_optimiser):
            for group in optimiser.param_groups:
                rate = float(group["lr"])
                group["lr"] = torch.full((), rate, device=self.group.device) if in_graph else rate
                if "capturable" in group:
                    group["capturable"] = in_graph and self.group.device.type == "cuda"

    @property
    def result(self) -> Network:
        """The network that is validated and saved: the moving average if there is one."""
        return self.network if self.averaged is None else self.averaged

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(
            bool(tensor.isfinite().all()) for module in (self.network, self.generator) for tensor in tensors_of(module)
        )

    def state(self) -> dict[str, Any]:
        """The state to resume from."""
        parts: dict[str, Any] = {
            "network": self.network, "generator": self.generator, "network_optimiser": self.network_optimiser,
            "generator_optimiser": self.generator_optimiser,
        } | ({} if self.averaged is None else {"averaged": self.averaged})  # fmt: skip
        return {name: part.state_dict() for name, part in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)
        self._place_rates()


def _generator_optimiser(generator: Generator, settings: Settings) -> torch.optim.Optimizer:
    if isinstance(generator, Policy):
        return torch.optim.Adam(generator.parameters(), settings.generator_rate, fused=True)
    return torch.optim.SGD(
        generator.parameters(), settings.generator_rate, settings.momentum, weight_decay=settings.weight_decay,
        fused=True,
    )  # fmt: skip


class DrawnDropout(nn.Dropout):
    """Dropout by uniform numbers that were drawn before."""

    drawn: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        assert self.drawn is not None
        return x * ((self.drawn >= self.p).to(x) / (1 - self.p))


class GradientReversal(torch.autograd.Function):
    """The identity, with the gradient negated: the generator maximises what the network minimises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network, but its parameters get none and its running statistics do not change."""
    norms = [module for module in network.modules() if isinstance(module, TDBatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
