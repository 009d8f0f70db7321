"""Corrections from the statistics of whole columns and of the whole image, which small convolutions cannot see.

`Columns` removes vertical stripes. A sensor with one amplifier per column adds an offset to each column, or multiplies
it by a gain. Where the scene is smooth, neighbouring columns differ by their offsets only, so the difference that most
rows agree on estimates the step between two offsets. The offsets are then the most probable ones under a Gaussian model
with a learned precision for each step and a learned prior for the size of the offsets. `Contrast` stretches the image
by a factor learned from its darkest and brightest parts. `Sharpness` measures the detail in the image and adds bands of
detail with learned weights.

>>> import torch
>>> Context()(torch.rand(1, 1, 60, 80)).shape  # [B, C, H, W]
torch.Size([1, 1, 60, 80])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.model.filters import gaussian_smooth
from deal.model.strips import Steps, solved
from deal_kernels.consensus import nearness

SCALES = (0.2, 0.1, 0.05, 0.02, 0.01)  # tolerances for agreement between rows, from the first round to the last
SORT_STRIDE = 4  # every fourth row is used for the quartiles
NEIGHBOUR_SCALE, NEIGHBOURS = 0.02, 9  # tolerance and number of columns for agreement of a row with its neighbourhood
SMOOTH = 0.015  # change along a column at which the weight of a difference is one half
DARKEST = 0.05  # lower bound of brightness in divisions
UNIT = 0.02  # the unit of steps and offsets
TINY = 1e-4  # added to squares in that unit before a logarithm
BOUND = 12.0  # bound of log-precisions
INITIAL_STRETCH = 0.2  # initial log-gain; at 0 the ReLU would pass no gradient
BANDS, BLUR = 5, 0.9  # number of detail bands, and the standard deviation of the blur that separates them
WEIGHT = 5.0  # the unit of band weights
LAGS = (1, 2, 3, 4, 6)  # row distances at which detail is measured
MIN_SIZE = 2 * LAGS[-1] + 1  # of an image
PATCH = 4  # side of the patches whose means are the parts of the image


class Context(nn.Module):
    """Removes column stripes, stretches the contrast and sharpens, in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.columns, self.contrast, self.sharpness = Columns(), Contrast(), Sharpness()

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        return self.stages(x)[1]

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x without stripes, and then with contrast and sharpness changed, too."""
        with torch.autocast(x.device.type, enabled=False):
            without_stripes = self.columns(x)
            return without_stripes, self.sharpness(self.contrast(without_stripes))


class Columns(nn.Module):
    """Removes an offset or a gain from every column; the image statistics decide the share of each."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(SCALES[-1]).log())
        self.smooth = nn.Parameter(torch.tensor(SMOOTH).log())
        self.trust = nn.Sequential(
            nn.Conv1d(3, hidden, 3, padding=1, padding_mode="replicate"), nn.ReLU(), nn.Conv1d(hidden, 1, 1)
        )
        self.level = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.factor = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        grey = x.mean(1)  # [B, H, W]
        differences = grey[..., 1:] - grey[..., :-1]
        brightness = ((grey[..., 1:] + grey[..., :-1]) / 2).clamp_min(DARKEST)
        brightness = brightness / brightness.mean((1, 2), keepdim=True)
        weights = self._smoothness(grey)
        added, scaled = (self._steps(each, weights) for each in (differences, differences / brightness))
        residuals = (differences - added.size[:, None]).abs(), (differences - scaled.size[:, None] * brightness).abs()
        of_offsets, of_gains = ((weights * each).mean((1, 2)) + 1e-6 for each in residuals)
        (offsets, large), (factors, larger) = self._values(added), self._values(scaled)
        mean = grey.mean((1, 2))
        features = torch.stack([10 * (of_offsets / of_gains).log(), large, larger, mean], 1)
        share = self.factor(features).sigmoid()  # [B, 1], the share of gains
        added_up = ((1 - share) * offsets)[:, None, None]  # [B, 1, 1, W]
        scaled_by = (share * factors / mean[:, None].clamp_min(DARKEST))[:, None, None]
        return x - added_up - scaled_by * x

    def _smoothness(self, grey: Tensor) -> Tensor:
        """The weight of each difference, [B, H, W - 1]: small where the image changes along the columns."""
        change = functional.pad((grey[:, 2:] - grey[:, :-2]).abs(), (0, 0, 1, 1))
        return 1 / (1 + ((change[..., 1:] + change[..., :-1]) / self.smooth.exp()).square())

    def _steps(self, differences: Tensor, weights: Tensor) -> Steps:
        size = _agreed(differences, weights)
        apart = differences - size
        near = weights * nearness(differences, size, self.scale.exp())
        total = near.sum(1)
        error = (near * apart).square().sum(1) / total.square()
        return Steps(size[:, 0] + (near * apart).sum(1) / total, error, total / differences.shape[1])

    def _values(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """The most probable offsets [B, W] under Gaussian offsets and step errors, and the log of their mean square."""
        size = steps.size / UNIT
        power, error = size.square(), (steps.error / UNIT**2 + TINY).log()
        features = torch.stack([error, steps.agreement.clamp_min(1e-3).log(), (power + TINY).log()], 1)
        precision = (self.trust(features)[:, 0] - error).clamp(-BOUND, BOUND).exp()  # [B, W - 1]
        # Independent offsets of variance v give neighbouring steps a covariance of -v.
        variance = -(size[:, 1:] * size[:, :-1]).mean(1)
        likely = (variance.clamp_min(0) + TINY).log()
        powers = (power.mean(1) + TINY).log(), (power.median(1).values + TINY).log()
        image = torch.stack([likely, *powers, error.mean(1), variance / (power.mean(1) + TINY)], 1)
        prior = (self.level(image) - likely[:, None]).clamp(-BOUND, BOUND).exp()  # [B, 1]
        before, after = functional.pad(precision, (1, 0)), functional.pad(precision, (0, 1))
        known = functional.pad(precision * size, (1, 0)) - functional.pad(precision * size, (0, 1))
        values = solved((prior + before + after).double(), -precision.double(), known.double()).to(size)
        return UNIT * values, (values.square().mean(1) + TINY).log()


@torch.no_grad()  # it only selects the starting point of the last round, which has the gradient
def _agreed(differences: Tensor, weights: Tensor) -> Tensor:
    """The difference that most rows agree on, [B, 1, W - 1].

    The search starts from the mean and from both quartiles, and the value with the largest support is kept. Then rows
    that disagree at the neighbouring columns are given a low weight: an upright edge lies there, which may cover half
    of a column.
    """
    ordered = differences[:, ::SORT_STRIDE].sort(1).values
    best, most = torch.zeros_like(ordered[:, :1]), torch.zeros_like(ordered[:, :1])
    mean = (weights * differences).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    quartiles = [ordered[:, [round(at * (ordered.shape[1] - 1))]] for at in (0.25, 0.75)]
    for start, scales in ((mean, SCALES), *((quartile, SCALES[-2:]) for quartile in quartiles)):
        size = _settled(differences, weights, start, scales)
        support = nearness(differences, size, SCALES[-1]).sum(1, keepdim=True)
        best, most = torch.where(support > most, size, best), torch.maximum(support, most)
    for _ in range(2):
        near = functional.avg_pool1d(
            nearness(differences, best, NEIGHBOUR_SCALE), NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False
        )
        best = _settled(differences, weights * near**4, best, SCALES[-3:])
    return best


def _settled(differences: Tensor, weights: Tensor, size: Tensor, scales: Sequence[float]) -> Tensor:
    """A robust mean: each round weights the rows by their agreement with the last value, with a smaller tolerance."""
    for scale in scales:
        near = weights * nearness(differences, size, scale)
        size = (near * differences).sum(1, keepdim=True) / near.sum(1, keepdim=True)
    return size


class Contrast(nn.Module):
    """Stretches the contrast about the mean, by a gain from the distance of the extremes to black and white."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.gain = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.gain[2].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.gain[2].bias, INITIAL_STRETCH)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        parts = functional.avg_pool2d(x.mean(1, keepdim=True), PATCH).flatten(1).sort(1).values
        mean = parts.mean(1, keepdim=True)
        low, dark, bright, high = (parts[:, [round(at * (parts.shape[1] - 1))]] for at in (0, 0.02, 0.98, 1))
        below = ((mean - end) / mean.clamp_min(DARKEST) for end in (low, dark))
        above = ((end - mean) / (1 - mean).clamp_min(DARKEST) for end in (bright, high))
        gain = self.gain(torch.cat([*below, *above], 1).clamp_min(0.02).log()).relu().exp()[..., None, None]
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + gain * (x - mean)


class Sharpness(nn.Module):
    """Adds bands of detail to an image, with weights learned from the amount of detail in the whole image.

    With u for the high-pass part (image minus blurred image), the bands are the Bernstein polynomials of u; each covers
    a range of frequencies. Detail is measured along columns, so that vertical stripes do not count as detail.
    """

    bands: Tensor

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.weights = nn.Sequential(nn.Linear(len(LAGS) - 1, hidden), nn.ReLU(), nn.Linear(hidden, BANDS))
        nn.init.zeros_(self.weights[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.weights[2].bias)  # type: ignore[arg-type]
        self.register_buffer("bands", _bands(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        grey = x.mean(1)  # [B, H, W]
        bends = ((2 * grey[:, lag:-lag] - grey[:, : -2 * lag] - grey[:, 2 * lag :]) / lag for lag in LAGS)
        detail = torch.stack([bend.abs().mean((1, 2)) + TINY for bend in bends], 1).log()  # [B, L]
        weights = WEIGHT * self.weights(4 * detail.diff(dim=1))  # [B, BANDS]
        blurred = [x]
        for _ in range(BANDS):
            blurred.append(gaussian_smooth(gaussian_smooth(blurred[-1], BLUR).mT, BLUR).mT)
        return x + torch.einsum("bk,kbchw->bchw", weights @ self.bands, torch.stack(blurred))


def _bands() -> Tensor:
    """The coefficients of each band for an image blurred 0, 1, 2, ... times, [BANDS, BANDS + 1]."""
    rows = torch.zeros(BANDS, BANDS + 1)
    for i in range(1, BANDS + 1):
        for j in range(i + 1):
            rows[i - 1, BANDS - i + j] = math.comb(BANDS, i) * math.comb(i, j) * (-1) ** j
    return rows
