"""What a training run is told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from deal.data import Size, sides
from deal_kernels.lif.arguments import number, one_of

CHOICES = {
    "strategy": ("das", "average", "random"), "update": ("alternating", "simultaneous"),
    "schedule": ("constant", "cosine"), "precision": ("auto", "fp32", "bf16"),
    "learns": ("all", "context", "convolutions"),
}  # fmt: skip
COUNTS = {
    "steps": 1, "batch": 1, "stages": 1, "warm_start": 0, "rise": 0, "save_every": 1, "log_every": 1, "seed": 0
}  # fmt: skip
LEAST = {
    "grain": 0.0, "learning_rate": 0.0, "generator_rate": 0.0, "momentum": 0.0, "weight_decay": 0.0, "closeness": 0.0,
    "pixel": 0.0, "structure": 0.0,
}  # fmt: skip
# What may change from one part of a run to the next.
FREE = frozenset({"output", "steps", "minutes", "save_every", "log_every", "resume", "device", "progress", "watch"})


@dataclasses.dataclass
class Settings:
    """Settings of a training run.

    Args:
        images: clean images: files, folders, patterns or lists of them, see `deal.data.find_images`; None makes
            synthetic thermal scenes.
        output: the run's folder.
        steps: how many batches to train on, those before a break included.
        minutes: stops earlier, when so much time is spent.
        validation: images to choose the best weights by; None takes the first of the training images.
        resume: goes on from the folder's last checkpoint, if it has one.
        blocks: "cascade1", "cascade2" or "cascade3", or a list of blocks, see `deal.model.DEAL`.
        channels: of the images, 1 or 3.
        width: channels inside of the network.
        neuron: "integer" or "binary".
        norm: of the spiking convolutions, "bn" or "tdbn".
        context: lets the network see statistics of whole columns and of the whole image, see `deal.context`.
        learns: "context" lets that part of the network learn alone, which is far cheaper; "convolutions" leaves it as
            it is, and lets the rest learn.
        weights: a file of weights to start from, which fit the network, or a list of files, of which later ones take
            the place of earlier ones: a context, and convolutions that have learned without one.
        ops: the generator's degradations: "thermal", "released", or a list of names.
        ranges: by name of a random degradation the least and the largest deviation that is drawn, such as
            {"stripe": [0, 0.15]}; None takes those of `deal_kernels.degradation.sample_params`.
        stages: how often the generator mixes them.
        dropout: share of the generator's features that are dropped.
        strategy: "das" trains the generator against the network; "average" mixes all degradations evenly; "random"
            takes one at random for every image and stage.
        update: "alternating" lets the generator answer the network's step, with a second pass; "simultaneous" moves
            both at once, from one pass whose gradient changes its sign on the way from the network to the generator.
        warm_start: steps before the generator begins to learn.
        closeness: how much the generator is to keep its images near the clean ones.
        pixel: weight of the mean distance of pixels in the loss.
        structure: weight of 1 - SSIM in the loss.
        learning_rate: of the network's Adam.
        generator_rate: of the generator's SGD.
        momentum: of the generator's SGD.
        weight_decay: of the generator's SGD.
        rise: steps over which both rates rise to what they are.
        schedule: of both rates: "constant", or "cosine" down to zero at the last step.
        clip: the largest norm that the gradient of each player may have.
        ema: decay of a moving average of the network's weights, which is then validated and kept; such as 0.999.
        batch: images in a step, of all processes together.
        crop: size of random cuts, one number or height and width; None takes whole images, which then have to be of
            one size.
        flips: mirrors images at random.
        halves: takes half of the cuts from images at half their size, which are sharper.
        panels: puts upright parts of themselves into a quarter of the images, elsewhere and of another brightness.
        tones: shows half of the images in negative, and each with a gamma of its own.
        grain: the largest deviation of noise that is added to clean images, so that a network that learns from smooth
            ones knows what others look like. It is to be kept: no degradation.
        window: which values of 16-bit images are black and white, see `deal.data.read_frame`.
        keep_going: leaves out unusable images instead of stopping.
        precision: "fp32"; "bf16" runs the network under autocast; "auto" does so on GPUs that can.
        device: "auto", "cpu", "cuda" or "cuda:1".
        seed: of everything that is random.
        save_every: steps between checkpoints, and validations.
        log_every: steps between rows of the log.
        watch: steps over which a collapse is looked for; None never.
        progress: shows a bar.
    """

    images: str | list[str] | None = None
    output: str = "runs/deal"
    steps: int = 2000
    minutes: float | None = None
    validation: str | list[str] | None = None
    resume: bool = False
    blocks: str | list[list[Any]] = "cascade2"
    channels: int = 1
    width: int = 32
    neuron: Literal["integer", "binary"] = "integer"
    norm: Literal["bn", "tdbn"] = "bn"
    context: bool = False
    learns: Literal["all", "context", "convolutions"] = "all"
    weights: str | list[str] | None = None
    ops: str | list[str] = "thermal"
    ranges: dict[str, tuple[float, float]] | None = None
    stages: int = 5
    dropout: float = 0.5
    strategy: Literal["das", "average", "random"] = "das"
    update: Literal["alternating", "simultaneous"] = "alternating"
    warm_start: int = 500
    closeness: float = 1.0
    pixel: float = 0.75
    structure: float = 1.1
    learning_rate: float = 1e-4
    generator_rate: float = 2e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rise: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float | None = None
    ema: float | None = None
    batch: int = 4
    crop: Size = 128
    flips: bool = True
    halves: bool = False
    panels: bool = False
    tones: bool = False
    grain: float = 0.0
    window: Literal["auto", "full"] | tuple[float, float] = "auto"
    keep_going: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    device: str = "auto"
    seed: int = 0
    save_every: int = 200
    log_every: int = 10
    watch: int | None = 200
    progress: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        for name, least in COUNTS.items():
            whole(name, getattr(self, name), least)
        if self.watch is not None:
            whole("watch", self.watch, 1)
        sides("crop", self.crop)
        if self.learns == "context" and not self.context:
            raise ValueError(f"learns='context' needs context=True; got {self.context}")
        for name, bound in LEAST.items():
            value = number(name, getattr(self, name))
            if not bound <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least {bound:g}; got {value}")
        for name, top in (("minutes", math.inf), ("clip", math.inf), ("ema", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 < number(name, value) < top:
                raise ValueError(f"{name} must be None or above 0 and below {top:g}; got {value}")

    def scale(self, step: int) -> float:
        """What both rates are multiplied by at a step."""
        risen = min(1.0, (step + 1) / (self.rise + 1))
        done = 0.0 if self.schedule == "constant" else min(1.0, step / self.steps)
        return risen * (0.5 + 0.5 * math.cos(math.pi * done))

    def differences(self, other: dict[str, Any]) -> list[str]:
        """What keeps this from going on where a run with other settings stopped."""
        mine = dataclasses.asdict(self)
        return [
            f"{name} was {other[name]!r} and is {value!r}"
            for name, value in mine.items()
            if name not in FREE and name in other and _plain(other[name]) != _plain(value)
        ]


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def whole(name: str, value: Any, least: int) -> None:
    """Raises where the value of a setting is no whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
