"""The degradation generator N_G: a classifier that chooses a mixture of degradations for each clean image.

>>> import torch
>>> generator = Generator()
>>> generator(torch.rand(2, 1, 64, 48)).shape  # [B, C, H, W]
torch.Size([2, 1, 64, 48])
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal_kernels._common.checks import check_integer, one_of
from deal_kernels.degradation import DEAL_OPS, mixture, sample_params
from deal_kernels.degradation.arguments import Params, check_names
from deal_kernels.degradation.names import known

Stages = Sequence[str] | Sequence[Sequence[str]]

RELEASED = DEAL_OPS
THERMAL = (
    "identity", "stripe", "gain", "average_pool_resize_2", "average_pool_resize_4", "contrast_0.7", "contrast_0.5",
)  # fmt: skip
# What happens to the image of a thermal camera, in this order: each stage has operations of its own.
CAMERA = (
    ("identity", "tone", "contrast_0.3"),
    ("identity", "wide_blur"),
    ("identity", "coarse_2", "average_pool_resize_2", "average_pool_resize_4"),
    ("identity", "glow", "shading"),
    ("identity", "gain", "row_gain"),
    ("identity", "stripe", "row_stripe", "partial_stripe"),
    ("identity", "noise"),
    ("identity", "dead"),
    ("identity", "quantise_8"),
)
PRESETS: dict[str, Stages] = {"camera": CAMERA, "thermal": THERMAL, "released": RELEASED}
# The strongest degradations; a policy mixes them with the identity.
PRESET_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "camera": {
        "tone": (0.2, 0.8), "tone_offset": (0.1, 0.4), "wide_blur": (0.6, 3.0), "glow": (0.1, 0.35),
        "shading": (0.05, 0.25), "gain": (0.04, 0.15), "row_gain": (0.04, 0.15), "stripe": (0.03, 0.17),
        "row_stripe": (0.03, 0.12), "partial_stripe": (0.03, 0.12), "noise": (0.03, 0.1), "dead": (0.0, 0.01),
    },
}  # fmt: skip
TONES = ("contrast", "tone")  # the kinds that change contrast and brightness
SHADINGS = ("glow", "shading")  # the kinds that add a slow pattern
SIDE = 256  # images are resized to this for the classifier


class Generator(nn.Module):
    """Degrades clean images, with mixture weights for each stage that a classifier predicts from the image.

    In training mode, dropout makes the weights random.

    Args:
        ops: "camera", "thermal", "released", or a list of operation names, see `deal_kernels.degradation`; or a list of
            such lists, the operations of each stage.

            "camera" has nine stages in the order in which a camera degrades a scene: tone, blur, resolution, shading,
            gains and offsets of columns or rows, noise, dead pixels, and 8 bits.

            "thermal" has the three degradations of the paper, as a thermal camera produces them: column offsets and
            column gains, low resolution at two strengths and low contrast at two strengths. Low resolution is average
            pooling, as a coarse sensor averages over the area of a pixel; max pooling, as in the released list, would
            enlarge warm objects and brighten the image. The identity lets an image pass a stage unchanged: without it,
            five stages always degrade strongly, and a network trained on that amplifies whatever it sees. The other
            released operations are omitted: saturation does not change grey images, posterizing to 5 bits has no
            gradient and is no fault of 14-bit sensors, and blur and smoothing are close to low resolution.

            "released" has the seven operations of the released code, in its order.
        channels: image channels, 1 or 3.
        stages: number of mixing stages, if all have the same operations.
        dropout: dropout probability of the classifier's features.
        ranges: the range of the standard deviation or strength of random operations, by name, see `sample_params`.
        straight_through, checkpoint: see `mixture`.

    >>> sum(parameter.numel() for parameter in Generator("released", channels=3).parameters())
    532259
    """

    allowed: Tensor

    def __init__(
        self, ops: str | Stages = "thermal", *, channels: int = 1, stages: int = 5, dropout: float = 0.5,
        ranges: Mapping[str, Sequence[float]] | None = None, straight_through: bool = False, checkpoint: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        presets: dict[str, tuple[float, float]] = {}
        if isinstance(ops, str):
            one_of("ops", ops, tuple(PRESETS))
            presets = PRESET_RANGES.get(ops, {})
            ops = PRESETS[ops]
        one_of("channels", channels, (1, 3))
        self.stage_ops = _stages(ops, stages)
        same = len(set(self.stage_ops)) == 1
        self.ops = self.stage_ops[0] if same else tuple(dict.fromkeys(itertools.chain(*self.stage_ops)))
        self.channels, self.stages = channels, len(self.stage_ops)
        # The first and last stage of each call of `mixture`, and its operations.
        self.calls = [(0, self.stages, self.ops)] if same else [
            (stage, stage + 1, names) for stage, names in enumerate(self.stage_ops)
        ]  # fmt: skip
        for number, (_, _, names) in enumerate(self.calls):
            columns = torch.tensor([self.ops.index(name) for name in names])  # of the weights
            self.register_buffer(f"columns_{number}", columns, persistent=False)
        self.ranges = {name: tuple(between) for name, between in {**presets, **(ranges or {})}.items()}
        allowed = torch.tensor([[name in names for name in self.ops] for names in self.stage_ops])
        self.register_buffer("allowed", allowed, persistent=False)  # [S, N]
        self.straight_through, self.checkpoint = straight_through, checkpoint
        self.sample(torch.zeros(1, channels, SIDE, SIDE))  # checks stages and ranges early
        widths = (channels, 16, 32, 64, 128)
        self.dropout_shape = widths[-1], SIDE // 32, SIDE // 32  # of the features that dropout thins
        self.trunk = nn.Sequential(
            *(_downsampling(*pair, normed=True) for pair in itertools.pairwise(widths)),
            _downsampling(widths[-1], widths[-1], normed=False),
            nn.Dropout(dropout),
            nn.Conv2d(widths[-1], self._outputs(), SIDE // 32),
        )

    def _outputs(self) -> int:
        """How many numbers the classifier gives for an image."""
        return self.allowed.numel()

    def forward(self, x: Tensor, weights: Tensor | None = None, params: Params | None = None) -> Tensor:
        """Degraded images, not clamped, of the shape of x [B, C, H, W].

        Args:
            x: clean images in [0, 1].
            weights: mixture weights [B, S, N]; None predicts them with `weights(x)`.
            params: parameters of the random operations; None draws them with `sample(x)`.
        """
        weights = self.weights(x) if weights is None else weights
        params = self.sample(x) if params is None else params
        for names, chosen, values in self._calls(weights, params):
            x = mixture(
                x, chosen, names, values, straight_through=self.straight_through, checkpoint=self.checkpoint
            )  # fmt: skip
        return x

    @torch.no_grad()
    def only(self, kinds: Sequence[str], x: Tensor, weights: Tensor, params: Params) -> Tensor:
        """x with the degradations of some kinds alone, such as `TONES`; other arguments as of `forward`."""
        for names, chosen, values in self._calls(weights, params):
            kept = [k for k, name in enumerate(names) if known(name).kind in kinds]
            if kept:
                changes = torch.stack([chosen[..., k] for k in kept], -1)
                chosen = torch.cat([1 - changes.sum(-1, keepdim=True), changes], -1)
                ops = ["identity", *(names[k] for k in kept)]
                x = mixture(x, chosen, ops, {name: values[name] for name in ops if name in values})
        return x

    def _calls(self, weights: Tensor, params: Params) -> Iterator[tuple[tuple[str, ...], Tensor, dict[str, Tensor]]]:
        """Operations, weights and parameters of each call of `mixture`."""
        used = dict.fromkeys(params, 0)
        for number, (first, end, names) in enumerate(self.calls):
            chosen = weights[:, first:end]
            if names != self.ops:
                chosen = chosen.index_select(-1, self.get_buffer(f"columns_{number}"))
            values = {name: params[name][:, used[name] : used[name] + end - first] for name in names if name in params}
            used |= {name: used[name] + end - first for name in values}
            yield names, chosen, values

    def weights(self, x: Tensor) -> Tensor:
        """The predicted mixture weights of each image, [B, S, N] for S stages and N operations, with sum 1 over N."""
        logits = self.classify(x).reshape(len(x), self.stages, len(self.ops))
        return logits.masked_fill(~self.allowed, -torch.inf).softmax(-1)

    def classify(self, x: Tensor) -> Tensor:
        """The numbers that the classifier gives for images x [B, C, H, W]."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must be [B, {self.channels}, H, W]; got the shape {tuple(x.shape)}")
        resized = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        numbers: Tensor = self.trunk(resized).flatten(1)
        return numbers

    def even(self, count: int) -> Tensor:
        """Mixture weights [B, S, N] for `count` images, the same for all operations of a stage."""
        allowed = self.allowed.float()
        return (allowed / allowed.sum(1, keepdim=True)).expand(count, -1, -1)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Random parameters of the operations by name, for every image and every stage that has the operation."""
        found: dict[str, list[Tensor]] = {}
        for first, end, names in self.calls:
            drawn = sample_params(names, x, end - first, generator=generator, **self.ranges)  # type: ignore[arg-type]
            for name, values in drawn.items():
                found.setdefault(name, []).append(values)
        return {name: torch.cat(values, 1) for name, values in found.items()}

    @property
    def config(self) -> dict[str, object]:
        """The constructor arguments of this generator."""
        return {
            "ops": list(map(list, self.stage_ops)), "channels": self.channels, "stages": self.stages,
            "dropout": self.trunk[-2].p, "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "straight_through": self.straight_through, "checkpoint": self.checkpoint,
        }  # fmt: skip


def _stages(ops: Stages, stages: int) -> tuple[tuple[str, ...], ...]:
    """The operations of each stage, checked."""
    if not isinstance(ops, Sequence) or not ops or all(isinstance(each, str) for each in ops):
        check_integer("stages", stages, 1)
        return (check_names(ops),) * stages  # type: ignore[arg-type]
    return tuple(map(check_names, ops))


def _downsampling(inputs: int, outputs: int, *, normed: bool) -> nn.Sequential:
    """A convolution of stride 2, an activation, and a norm if `normed`."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, *([nn.GroupNorm(outputs, outputs)] if normed else []))
