"""Shading: a slow pattern as wide as the frame, such as the glow of a warm lens. It takes a view of the whole frame.

The pattern is a glow, around one of several points or between them, and a sum of the slowest cosines. How strong a glow
could be is measured (`deal.model.glow`); a small network on a thumbnail of the frame decides how much of it to believe.

>>> import torch
>>> Shading()(torch.rand(1, 1, 120, 160)).shape  # [B, 1, H, W]
torch.Size([1, 1, 120, 160])
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from deal.model.glow import BLOCKS, POINTS, Glow, spots
from deal.model.whole_images import averaged, enlarged
from deal_kernels.degradation.patterns import TERMS, pattern

THUMBNAIL = HEIGHT, WIDTH = 64, 80
LAGS = (1, 2)  # between the blocks that are compared for glows
SUPPORT = 0.03  # the unit of supports
BOUND = 8.0  # of the strength of a glow, in deviations of the image
TRUST = 3.0  # initial factor of supports in the choice of a glow
AMOUNT_UNIT = 5.0  # of amounts, which start at 0 and have to reach about 1
LEAST_SHARE = 0.05  # of what was found; at 0 no gradient would pass
LEAST = 1e-3  # lower bound of the deviation of an image in divisions


class Shading(nn.Module):
    """The shading of an image, found on a thumbnail of it.

    Args:
        width: number of channels at the resolution of the points.
        layers: number of mixer layers, each over all points.
    """

    spots: Tensor
    cosines: Tensor

    def __init__(self, width: int = 80, layers: int = 3) -> None:
        super().__init__()
        widths = 3, width // 4, width // 2, width
        self.trunk = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(*pair, 3, 2, 1), nn.ReLU(), nn.Conv2d(pair[1], pair[1], 3, 1, 1), nn.ReLU())
                for pair in itertools.pairwise(widths)
            )
        )
        self.glows = nn.ModuleList(Glow(lag) for lag in LAGS)
        self.evidence = nn.Conv2d(3 * len(LAGS), width, 1)
        self.mixers = nn.Sequential(*(Mixer(POINTS[0] * POINTS[1], width) for _ in range(layers)))
        self.choice, self.amount = nn.Conv2d(width, len(LAGS), 1), nn.Conv2d(width, 1, 1)
        self.trust = nn.Parameter(torch.tensor(TRUST))
        self.slow = nn.Linear(width, TERMS**2 - 1)
        self.gate = nn.Linear(width, 1)
        for layer in self.trunk.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for head in (self.choice, self.amount, self.slow, self.gate):
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.register_buffer("spots", spots().flatten(1), persistent=False)  # [K, H W]
        self.register_buffer("cosines", _cosines().flatten(1), persistent=False)  # [N, H W]

    def forward(self, x: Tensor) -> Tensor:
        """The pattern of x [B, 1, H, W], in the shape of x, with the mean 0."""
        small = averaged(x, THUMBNAIL)
        deviation = small.std((2, 3), keepdim=True).clamp_min(LEAST)
        normal = (small - small.mean((2, 3), keepdim=True)) / deviation
        strengths, supports = self._evidence(normal)  # each [B, L, K]
        most = supports.amax(2, keepdim=True)
        found = torch.cat([strengths, supports - most, most.expand_as(supports)], 1).unflatten(2, POINTS)
        seen = self.trunk(torch.cat([normal, self._position(normal)], 1))
        features = self.mixers(seen + self.evidence(found))
        preference = self.choice(features).flatten(2) + self.trust * supports
        chosen = preference.flatten(1).softmax(1).view_as(strengths)
        amounts = AMOUNT_UNIT * self.amount(features).flatten(1) * (chosen * strengths).sum(1)  # [B, K]
        pooled = features.mean((2, 3))
        share = LEAST_SHARE + (1 - LEAST_SHARE) * self.gate(pooled).sigmoid()
        field = share * (amounts @ self.spots + self.slow(pooled) @ self.cosines)  # [B, H W]
        field = deviation * field.view(-1, 1, *BLOCKS)
        shading = enlarged(field, x.shape[2:])
        return shading - shading.mean((2, 3), keepdim=True)

    def _evidence(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Strengths and supports of glows, [B, L, K]."""
        blocks = averaged(normal, BLOCKS)[:, 0]
        found = [glow(blocks) for glow in self.glows]
        strengths, supports = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return strengths.clamp(-BOUND, BOUND), supports / SUPPORT

    def _position(self, like: Tensor) -> Tensor:
        """Row and column from -1 to 1 at every pixel, [B, 2, H, W]."""
        rows, columns = (torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device) for size in (HEIGHT, WIDTH))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return grid.expand(like.shape[0], -1, -1, -1)


def _cosines() -> Tensor:
    """The slowest cosines but the constant, [N, H, W]; faster ones are weaker."""
    terms = torch.eye(TERMS**2)[1:].view(1, -1, TERMS, TERMS)
    order = torch.arange(TERMS)
    return pattern("shading", terms / (order[:, None] + order).clamp_min(1), *BLOCKS)[0]


class Mixer(nn.Module):
    """Mixes positions, and then channels, each by a small network with a residual."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.across = nn.Sequential(nn.Linear(positions, positions), nn.ReLU(), nn.Linear(positions, positions))
        self.within = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        for branch in (self.across, self.within):
            nn.init.normal_(branch[2].weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch[2].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        x = x + self.across(x.flatten(2)).view_as(x)
        return x + self.within(x)
