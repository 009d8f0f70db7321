"""N_G, the degradation generator: a classifier that looks at clean images and mixes degradations for each of them.

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

from deal_kernels.degradation import DEAL, mixture, sample_params
from deal_kernels.degradation.arguments import Params, check_names
from deal_kernels.lif.arguments import one_of

RELEASED = DEAL
THERMAL = (
    "identity", "stripe", "gain", "average_pool_resize_2", "average_pool_resize_4", "contrast_0.7", "contrast_0.5",
)  # fmt: skip
PRESETS = {"thermal": THERMAL, "released": RELEASED}
SIDE = 256  # the classifier sees images of this size


class Generator(nn.Module):
    """Mixes degradations into clean images, with weights that it chooses from each image, stage by stage.

    In training a dropout makes the weights random.

    Args:
        ops: "thermal", "released", or a list of names of operations, see `deal_kernels.degradation`.

            "thermal" has the three that the paper names, as a thermal camera makes them. Stripes are the offsets and
            the gains of a sensor's columns. A coarse sensor averages over a pixel's area: pooling by the maximum, as in
            the released list, would make warm things larger and images brighter. Contrast comes at two strengths, low
            resolution as well, and stripes at one drawn for each image and stage. The identity lets an image pass a
            stage as it is: without it the least that five stages do is a lot, and a network trained on them learns to
            amplify whatever it sees. What the released list has beyond that is left out: saturation does nothing to
            grey images, posterizing to 5 bits lets no gradient pass and is no fault of 14-bit sensors, and blur and
            smoothing are near to low resolution.

            "released" has the seven of the released code, in its order.
        channels: of the images, 1 or 3.
        stages: how often the image is mixed anew.
        dropout: share of the features that are dropped.
        ranges: for random operations the range of their deviation, by name, see `sample_params`.
        straight_through, checkpoint: of `mixture`.

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
        self.sample(torch.zeros(1, channels, SIDE, SIDE))  # what is wrong with stages or ranges is said now
        widths = (channels, 16, 32, 64, 128)
        self.trunk = nn.Sequential(
            *(_halving(*pair, normed=True) for pair in itertools.pairwise(widths)),
            _halving(widths[-1], widths[-1], normed=False),
            nn.Dropout(dropout),
            nn.Conv2d(widths[-1], stages * len(self.ops), SIDE // 32),
        )

    def forward(self, x: Tensor, weights: Tensor | None = None, params: Params | None = None) -> Tensor:
        """Degraded images like x [B, C, H, W]. They are not clamped.

        Args:
            x: clean images in [0, 1].
            weights: [B, S, N] instead of those that `weights` gives for x.
            params: for the random operations, instead of those that `sample` draws.
        """
        weights = self.weights(x) if weights is None else weights
        params = self.sample(x) if params is None else params
        return mixture(
            x, weights, self.ops, params, straight_through=self.straight_through, checkpoint=self.checkpoint
        )  # fmt: skip

    def weights(self, x: Tensor) -> Tensor:
        """What share each operation has in each stage, for every image: [B, S, N], of sum 1 over N."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must be [B, {self.channels}, H, W]; got the shape {tuple(x.shape)}")
        seen = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.trunk(seen).reshape(len(x), self.stages, len(self.ops)).softmax(-1)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What the random operations take, drawn anew for every image and stage."""
        return sample_params(self.ops, x, self.stages, generator=generator, **self.ranges)  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, object]:
        """The arguments that make a generator like this one."""
        return {
            "ops": list(self.ops), "channels": self.channels, "stages": self.stages,
            "dropout": self.trunk[-2].p, "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "straight_through": self.straight_through, "checkpoint": self.checkpoint,
        }  # fmt: skip


def _halving(inputs: int, outputs: int, *, normed: bool) -> nn.Sequential:
    """To half of the size; the norm stands behind the activation."""
    layers = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, *([nn.InstanceNorm2d(outputs, affine=True)] if normed else []))
