"""The degradation generator N_G: a classifier that chooses a mixture of degradations for each clean image.

>>> import torch
>>> generator = Generator()
>>> generator(torch.rand(2, 1, 64, 48)).shape  # [B, C, H, W]
torch.Size([2, 1, 64, 48])
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal_kernels._common.checks import one_of
from deal_kernels.degradation import DEAL_OPS, mixture, sample_params
from deal_kernels.degradation.arguments import Params, check_names

RELEASED = DEAL_OPS
THERMAL = (
    "identity", "stripe", "gain", "average_pool_resize_2", "average_pool_resize_4", "contrast_0.7", "contrast_0.5",
)  # fmt: skip
PRESETS = {"thermal": THERMAL, "released": RELEASED}
SIDE = 256  # images are resized to this for the classifier


class Generator(nn.Module):
    """Degrades clean images, with mixture weights for each stage that a classifier predicts from the image.

    In training mode, dropout makes the weights random.

    Args:
        ops: "thermal", "released", or a list of operation names, see `deal_kernels.degradation`.

            "thermal" has the three degradations of the paper, as a thermal camera produces them: column offsets and
            column gains, low resolution at two strengths and low contrast at two strengths. Low resolution is average
            pooling, as a coarse sensor averages over the area of a pixel; max pooling, as in the released list, would
            enlarge warm objects and brighten the image. The identity lets an image pass a stage unchanged: without it,
            five stages always degrade strongly, and a network trained on that amplifies whatever it sees. The other
            released operations are omitted: saturation does not change grey images, posterizing to 5 bits has no
            gradient and is no fault of 14-bit sensors, and blur and smoothing are close to low resolution.

            "released" has the seven operations of the released code, in its order.
        channels: image channels, 1 or 3.
        stages: number of mixing stages.
        dropout: dropout probability of the classifier's features.
        ranges: the range of the standard deviation or strength of random operations, by name, see `sample_params`.
        straight_through, checkpoint: see `mixture`.

    >>> sum(parameter.numel() for parameter in Generator("released", channels=3).parameters())
    532259
    """

    def __init__(
        self, ops: str | Sequence[str] = "thermal", *, channels: int = 1, stages: int = 5, dropout: float = 0.5,
        ranges: Mapping[str, Sequence[float]] | None = None, straight_through: bool = False, checkpoint: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(ops, str):
            one_of("ops", ops, tuple(PRESETS))
            ops = PRESETS[ops]
        one_of("channels", channels, (1, 3))
        self.ops = check_names(ops)
        self.channels, self.stages = channels, stages
        self.ranges = {name: tuple(between) for name, between in (ranges or {}).items()}
        self.straight_through, self.checkpoint = straight_through, checkpoint
        self.sample(torch.zeros(1, channels, SIDE, SIDE))  # checks stages and ranges early
        widths = (channels, 16, 32, 64, 128)
        self.trunk = nn.Sequential(
            *(_downsampling(*pair, normed=True) for pair in itertools.pairwise(widths)),
            _downsampling(widths[-1], widths[-1], normed=False),
            nn.Dropout(dropout),
            nn.Conv2d(widths[-1], stages * len(self.ops), SIDE // 32),
        )

    def forward(self, x: Tensor, weights: Tensor | None = None, params: Params | None = None) -> Tensor:
        """Degraded images, not clamped, of the shape of x [B, C, H, W].

        Args:
            x: clean images in [0, 1].
            weights: mixture weights [B, S, N]; None predicts them with `weights(x)`.
            params: parameters of the random operations; None draws them with `sample(x)`.
        """
        weights = self.weights(x) if weights is None else weights
        params = self.sample(x) if params is None else params
        return mixture(
            x, weights, self.ops, params, straight_through=self.straight_through, checkpoint=self.checkpoint
        )  # fmt: skip

    def weights(self, x: Tensor) -> Tensor:
        """The predicted mixture weights of each image, [B, S, N] for S stages and N operations, with sum 1 over N."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must be [B, {self.channels}, H, W]; got the shape {tuple(x.shape)}")
        resized = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.trunk(resized).reshape(len(x), self.stages, len(self.ops)).softmax(-1)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Random parameters of the operations, for every image and stage."""
        return sample_params(self.ops, x, self.stages, generator=generator, **self.ranges)  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, object]:
        """The constructor arguments of this generator."""
        return {
            "ops": list(self.ops), "channels": self.channels, "stages": self.stages,
            "dropout": self.trunk[-2].p, "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "straight_through": self.straight_through, "checkpoint": self.checkpoint,
        }  # fmt: skip


def _downsampling(inputs: int, outputs: int, *, normed: bool) -> nn.Sequential:
    """A convolution of stride 2, an activation, and a norm if `normed`."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, *([nn.InstanceNorm2d(outputs, affine=True)] if normed else []))
