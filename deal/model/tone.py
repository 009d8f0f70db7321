"""Tone: the contrast and brightness of a whole image, by one gain and one offset.

>>> import torch
>>> gain, offset = Tone()(torch.rand(2, 1, 60, 80))
>>> gain.shape, offset.shape  # [B, 1, 1, 1]
(torch.Size([2, 1, 1, 1]), torch.Size([2, 1, 1, 1]))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deal.model.shading import THUMBNAIL
from deal.model.whole_images import averaged, ordered

SHARES = (0.0, 0.005, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.995, 1.0)  # of the parts that are darker
LEAST = 0.02  # lower bound of distances before a logarithm
UNIT = 0.1  # the unit of offsets
BOUND = 2.0  # of the logarithm of the gain


class Tone(nn.Module):
    """A gain and an offset from the darkest and brightest parts of an image, for y = gain * x + offset."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * len(SHARES) + 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 2),
        )  # fmt: skip
        nn.init.zeros_(self.net[4].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[4].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset of images x [B, 1, H, W]."""
        parts = averaged(x, THUMBNAIL).flatten(1)
        quantiles = ordered(parts, [round(share * (parts.shape[1] - 1)) for share in SHARES])
        mean, deviation = parts.mean(1, keepdim=True), parts.std(1, keepdim=True)
        below = (mean - quantiles[:, :1]) / mean.clamp_min(LEAST)
        above = (quantiles[:, -1:] - mean) / (1 - mean).clamp_min(LEAST)
        logs = torch.cat([below, above, deviation], 1).clamp_min(LEAST).log()
        away = (quantiles - mean) / deviation.clamp_min(LEAST)
        stretch, moved = self.net(torch.cat([quantiles, away, logs, mean], 1)).split(1, 1)
        gain = (BOUND * torch.tanh(stretch / BOUND)).exp()
        offset = mean - gain * mean + UNIT * moved
        return gain[..., None, None], offset[..., None, None]
