"""Shading: a slow pattern as wide as the frame, such as the glow of a warm lens. It takes a view of the whole frame.

>>> import torch
>>> Shading()(torch.rand(1, 1, 120, 160)).shape  # [B, 1, H, W]
torch.Size([1, 1, 120, 160])
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

THUMBNAIL = HEIGHT, WIDTH = 64, 80
FIELD = HEIGHT // 8, WIDTH // 8  # the resolution of the pattern
LEAST_SHARE = 0.05  # of what was found; at 0 no gradient would pass
LEAST = 1e-3  # lower bound of the deviation of an image in divisions


class Shading(nn.Module):
    """The shading of an image, found on a thumbnail of it.

    Args:
        width: number of channels at the resolution of the pattern.
        layers: number of mixer layers, each over all positions of the pattern.
    """

    def __init__(self, width: int = 96, layers: int = 4) -> None:
        super().__init__()
        widths = 3, width // 4, width // 2, width
        self.trunk = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(*pair, 3, 2, 1), nn.ReLU(), nn.Conv2d(pair[1], pair[1], 3, 1, 1), nn.ReLU())
                for pair in itertools.pairwise(widths)
            )
        )
        self.mixers = nn.Sequential(*(Mixer(FIELD[0] * FIELD[1], width) for _ in range(layers)))
        self.head = nn.Conv2d(width, 1, 1)
        self.gate = nn.Linear(width, 1)
        for layer in self.trunk.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in (self.head, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The pattern of x [B, 1, H, W], in the shape of x, with the mean 0."""
        small = functional.adaptive_avg_pool2d(x, (HEIGHT, WIDTH))
        deviation = small.std((2, 3), keepdim=True).clamp_min(LEAST)
        normal = (small - small.mean((2, 3), keepdim=True)) / deviation
        features = self.mixers(self.trunk(torch.cat([normal, self._position(normal)], 1)))
        share = LEAST_SHARE + (1 - LEAST_SHARE) * self.gate(features.mean((2, 3))).sigmoid()
        field = share[..., None, None] * deviation * self.head(features)
        pattern = functional.interpolate(field, x.shape[2:], mode="bicubic", align_corners=False)
        return pattern - pattern.mean((2, 3), keepdim=True)

    def _position(self, like: Tensor) -> Tensor:
        """Row and column from -1 to 1 at every pixel, [B, 2, H, W]."""
        rows, columns = (torch.linspace(-1, 1, size).to(like) for size in (HEIGHT, WIDTH))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return grid.expand(len(like), -1, -1, -1)


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
