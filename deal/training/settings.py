"""The settings of a training run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from deal.io.images import Size, height_and_width
from deal.model.cuda_graph import GRAPHS
from deal_kernels._common.checks import check_integer, number, one_of

CHOICES = {
    "strategy": ("policy", "das", "average", "random"), "update": ("alternating", "simultaneous"),
    "schedule": ("constant", "cosine"), "precision": ("auto", "fp32", "bf16"),
    "loss": ("separation", "l1_ssim"), "graph": GRAPHS,
}  # fmt: skip
MIN_INTEGERS = {
    "steps": 1, "batch": 1, "stages": 1, "adversary_start": 0, "warmup_steps": 0, "save_every": 1,
    "log_every": 1, "seed": 0,
}  # fmt: skip
OPTIONAL_INTEGERS = {"limit": 1, "collapse_window": 1, "thumbnails": 0, "settle_steps": 1, "threads": 1}
NON_NEGATIVE = (
    "noise_augmentation", "price", "learning_rate", "generator_rate", "momentum", "weight_decay", "fidelity_weight",
    "l1_weight", "ssim_weight",
)  # fmt: skip
# Settings that may change when a run is resumed.
FREE = frozenset({
    "output", "steps", "minutes", "save_every", "log_every", "resume", "device", "threads", "graph", "progress",
    "collapse_window",
})  # fmt: skip


@dataclasses.dataclass
class Settings:
    """The settings of a training run.

    Args:
        images: clean training images: files, folders, patterns or lists, see `deal.io.paths.find_images`; None uses
            synthetic thermal scenes.
        limit: number of training images that are used, evenly spread over their order; None uses all.
        output: the folder of the run.
        steps: number of training steps; those before a resume count.
        minutes: limit of time; the run ends earlier when it is reached.
        validation: images to choose the best weights by; None uses the first training images.
        resume: continues from the last checkpoint of the run; starts a new one if there is none.
        blocks: "deal-u" or "deal-u-small", see `deal.DealU`; or "cascade1", "cascade2", "cascade3" or a list of blocks,
            see `deal.DEAL`.
        channels: image channels, 1 or 3.
        width: number of hidden channels of the network.
        neuron: spiking neuron, "integer" or "binary"; "none" replaces the spiking modules of "deal-u" by plain ones.
        norm: norm of the spiking convolutions, "bn" or "tdbn".
        strips: whether "deal-u" takes out patterns of columns and rows by statistics of whole lines.
        weights: a weights file to start from.
        ops: degradations of the generator: "camera", "thermal", "released", a list of operation names, or a list of
            such lists, one for each stage.
        ranges: range of the standard deviation of random degradations, by name, such as {"stripe": [0, 0.15]}; None
            uses the defaults of `deal_kernels.degradation.sample_params`.
        stages: number of mixing stages of the generator.
        dropout: dropout probability of the generator.
        strategy: how images are degraded: "random" by random operations; "policy" by operations and strengths
            that are drawn from a distribution which plays against the network, see `deal.model.policy`; "das" by the
            paper's generator, which gives a fixed mixture for each image; "average" by an even mixture of all
            operations.
        price: of the divergence of the policy from random choices. The policy approaches "random" for a high price, and
            the hardest degradations alone for the price 0.
        update: "alternating" updates the network and then the generator, with a second forward pass; "simultaneous"
            updates both from one pass, with the gradient reversed between them.
        adversary_start: step at which the training of the generator starts.
        fidelity_weight: weight of the generator's loss between degraded and clean images, which keeps degradations
            mild.
        loss: "separation", which judges each part that is taken out, see `deal.training.losses`; or "l1_ssim", the
            paper's.
        l1_weight: weight of the mean absolute error in the paper's loss.
        ssim_weight: weight of 1 - SSIM in it.
        learning_rate: learning rate of the network (Adam).
        generator_rate: learning rate of the generator: of Adam for a policy, and of SGD for "das".
        momentum: momentum of the generator's SGD.
        weight_decay: weight decay of the generator's SGD.
        warmup_steps: steps over which both learning rates increase linearly at the start.
        schedule: of both learning rates: "constant", or "cosine" decay to zero at the last step.
        gradient_clip: maximum norm of the gradients of the network and of the generator; None does not clip.
        ema_decay: decay of an exponential moving average of the network's weights, which is then validated and saved,
            such as 0.999; None uses the weights themselves.
        batch: images per step, over all processes.
        crop: size of random crops: HEIGHTxWIDTH, or one number; None uses whole images, which must then be of one
            size.
        flip_augmentation: mirrors crops at random.
        zoom_augmentation: resizes every image by a random factor first, at least to the size of a crop, so that a crop
            shows at least 1 / zoom_augmentation of its height or width. Reduced images are sharper, and show more of
            the scene; images enlarged by up to 1.5 are softer. None does not.
        thumbnails: whole images per step, reduced to the size at which "deal-u" finds shading, that train shading and
            tone; with the loss "separation" these learn from nothing else. None means three times the batch for
            "deal-u", and none for other networks.
        settle_steps: steps after which the shading and the tone of "deal-u" stay as they are, and its columns and rows
            after 0.4 times as many; the learning rates decay to zero until then. These parts have few weights, and more
            steps fit them to the scenes of the training images. None trains them to the end.
        panel_augmentation: pastes panels into a quarter of the crops, so that edges of walls, posts, skies and roads
            are not taken for stripes.
        tone_augmentation: inverts half of the crops. Half of them, chosen apart, get a random gamma and are stretched:
            the darkest part becomes black and the brightest part white, or only one of them.
        noise_augmentation: largest standard deviation of noise that is added to clean images. It is part of the target
            and not a degradation.
        window: values of 16-bit images that mean black and white, see `deal.io.images.read_frame`.
        keep_going: skips unusable images instead of stopping.
        precision: "fp32"; "bf16" runs the network under autocast; "auto" uses bf16 on GPUs that support it.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: number of CPU threads; None leaves it to torch.
        graph: "auto" repeats the steps of one process on a GPU from a CUDA graph; "off" does not.
        seed: random seed of the run.
        save_every: steps between checkpoints, each with a validation.
        log_every: steps between rows of the log.
        collapse_window: steps that a collapse must last before the run is stopped; None disables the check.
        progress: shows a progress bar.
    """

    images: str | list[str] | None = None
    limit: int | None = None
    output: str = "runs/deal"
    steps: int = 2000
    minutes: float | None = None
    validation: str | list[str] | None = None
    resume: bool = False
    blocks: str | list[list[Any]] = "deal-u"
    channels: int = 1
    width: int = 32
    neuron: Literal["integer", "binary", "none"] = "integer"
    norm: Literal["bn", "tdbn"] = "bn"
    strips: bool = True
    weights: str | None = None
    ops: str | list[str] | list[list[str]] = "camera"
    ranges: dict[str, tuple[float, float]] | None = None
    stages: int = 5
    dropout: float = 0.5
    strategy: Literal["policy", "das", "average", "random"] = "policy"
    price: float = 1.0
    update: Literal["alternating", "simultaneous"] = "alternating"
    adversary_start: int = 500
    fidelity_weight: float = 1.0
    loss: Literal["separation", "l1_ssim"] = "separation"
    l1_weight: float = 0.75
    ssim_weight: float = 1.1
    learning_rate: float = 1e-4
    generator_rate: float = 2e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    gradient_clip: float | None = None
    ema_decay: float | None = None
    batch: int = 4
    crop: Size = 128
    flip_augmentation: bool = True
    zoom_augmentation: float | None = None
    thumbnails: int | None = None
    settle_steps: int | None = None
    panel_augmentation: bool = False
    tone_augmentation: bool = False
    noise_augmentation: float = 0.0
    window: Literal["auto", "full"] | tuple[float, float] = "auto"
    keep_going: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: int | None = None
    graph: Literal["auto", "off"] = "auto"
    seed: int = 0
    save_every: int = 200
    log_every: int = 10
    collapse_window: int | None = 200
    progress: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        for name, minimum in MIN_INTEGERS.items():
            check_integer(name, getattr(self, name), minimum)
        for name, minimum in OPTIONAL_INTEGERS.items():
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum)
        height_and_width("crop", self.crop)
        for name in NON_NEGATIVE:
            value = number(name, getattr(self, name))
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0; got {value}")
        limits = {"minutes": math.inf, "gradient_clip": math.inf, "ema_decay": 1.0, "zoom_augmentation": math.inf}
        for name, limit in limits.items():
            value = getattr(self, name)
            if value is not None and not 0 < number(name, value) < limit:
                raise ValueError(f"{name} must be None or above 0 and below {limit:g}; got {value}")

    def rate_factor(self, step: int, *, settles: float | None = None) -> float:
        """The factor of both learning rates at a step, from warm-up and schedule.

        Args:
            settles: for the parts that learn for this share of `settle_steps`.
        """
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if settles is not None and self.settle_steps is not None:
            done = min(1.0, step / (settles * self.settle_steps))
        else:
            done = 0.0 if self.schedule == "constant" else min(1.0, step / self.steps)
        return warmup * (0.5 + 0.5 * math.cos(math.pi * done))

    def has_settled(self, step: int) -> bool:
        """Whether the parts that learn until `settle_steps` do not learn any more."""
        return self.settle_steps is not None and step >= self.settle_steps

    def differences(self, other: dict[str, Any]) -> list[str]:
        """The settings of another run that prevent this one from resuming it."""
        mine = dataclasses.asdict(self)
        return [
            f"{name} was {other[name]!r} and is {value!r}"
            for name, value in mine.items()
            if name not in FREE and name in other and _as_lists(other[name]) != _as_lists(value)
        ]


def _as_lists(value: Any) -> Any:
    """Tuples become lists, so that settings from Python and from YAML compare equal."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_lists(each) for each in value]
    return value
