"""What a convolution of some pixels' reach cannot see: statistics of whole columns, and of the whole image.

A sensor with an amplifier for each column adds a value to it, or multiplies it by one. From one column to the next the
scene hardly changes where it is smooth, so most differences between two neighbours are that of their two values. What
the columns' values then are is a question of what is trusted more: these steps, each to its own measure, or that values
are small. `Columns` learns to judge both, and `Contrast` learns to stretch an image by its darkest and brightest parts.
`Sharpness` learns by how much detail there is whether an image has lost any, and which bands of detail bring it back.

>>> import torch
>>> Context()(torch.rand(1, 1, 60, 80)).shape  # [B, C, H, W]
torch.Size([1, 1, 60, 80])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.smoothing import smoothed

SCALES = (0.2, 0.1, 0.05, 0.02, 0.01)  # on which differences agree, from the first round to the last
SPARSE = 4  # of so many rows one is sorted
NEAR, NEARBY = 0.02, 9  # on which rows agree nearby, and over how many columns that is
SMOOTH = 0.015  # change along a column of which a difference counts half
DARKEST = 0.05  # what brightness is divided by at least
UNIT = 0.02  # steps and values are measured in it
TINY = 1e-4  # added to squares in that unit
BOUND = 12.0  # of logarithms of precisions
FIRST = 0.2  # the logarithm of the stretch at first: at none at all there would be no gradient
BANDS, BLUR = 5, 0.9  # of detail, and the deviation of the blur that tells them apart
WEIGHT = 5.0  # that weights of bands are measured in
LAGS = (1, 2, 3, 4, 6)  # of rows whose differences tell of detail
LEAST_SIZE = 2 * LAGS[-1] + 1  # of an image
PATCH = 4  # pixels of which one mean is a part of the image


class Context(nn.Module):
    """Takes out the columns' stripes, stretches the contrast, and sharpens; the rest is for the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.columns, self.contrast, self.sharpness = Columns(), Contrast(), Sharpness()

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]."""
        with torch.autocast(x.device.type, enabled=False):
            return self.sharpness(self.contrast(self.columns(x)))


class Steps(NamedTuple):
    """From each column to the next."""

    size: Tensor  # [B, W - 1], what most rows agree on
    error: Tensor  # the square of its standard error
    agreement: Tensor  # the share of rows that agree


class Columns(nn.Module):
    """Takes an offset out of every column, or its factor: which of both, the image's statistics tell."""

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
        unlike = (differences - added.size[:, None]).abs(), (differences - scaled.size[:, None] * brightness).abs()
        rest, other = ((weights * each).mean((1, 2)) + 1e-6 for each in unlike)
        (offsets, large), (factors, larger) = self._values(added), self._values(scaled)
        mean = grey.mean((1, 2))
        signs = torch.stack([10 * (rest / other).log(), large, larger, mean], 1)
        share = self.factor(signs).sigmoid()  # [B, 1], of the factors
        added_up = ((1 - share) * offsets)[:, None, None]  # [B, 1, 1, W]
        scaled_by = (share * factors / mean[:, None].clamp_min(DARKEST))[:, None, None]
        return x - added_up - scaled_by * x

    def _smoothness(self, grey: Tensor) -> Tensor:
        """How much each difference counts, [B, H, W - 1]: little where its columns change along themselves."""
        change = functional.pad((grey[:, 2:] - grey[:, :-2]).abs(), (0, 0, 1, 1))
        return 1 / (1 + ((change[..., 1:] + change[..., :-1]) / self.smooth.exp()).square())

    def _steps(self, differences: Tensor, weights: Tensor) -> Steps:
        size = _agreed(differences, weights)
        apart = differences - size
        near = weights * _near(differences, size, self.scale.exp())
        total = near.sum(1)
        error = (near * apart).square().sum(1) / total.square()
        return Steps(size[:, 0] + (near * apart).sum(1) / total, error, total / differences.shape[1])

    def _values(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """The columns' most probable values [B, W], where values and errors of steps are normal; and how large they are
        in all."""
        size = steps.size / UNIT
        power, error = size.square(), (steps.error / UNIT**2 + TINY).log()
        signs = torch.stack([error, steps.agreement.clamp_min(1e-3).log(), (power + TINY).log()], 1)
        precision = (self.trust(signs)[:, 0] - error).clamp(-BOUND, BOUND).exp()  # [B, W - 1]
        # Values that know nothing of each other make neighbouring steps opposite.
        variance = -(size[:, 1:] * size[:, :-1]).mean(1)
        likely = (variance.clamp_min(0) + TINY).log()
        powers = (power.mean(1) + TINY).log(), (power.median(1).values + TINY).log()
        image = torch.stack([likely, *powers, error.mean(1), variance / (power.mean(1) + TINY)], 1)
        prior = (self.level(image) - likely[:, None]).clamp(-BOUND, BOUND).exp()  # [B, 1]
        before, after = functional.pad(precision, (1, 0)), functional.pad(precision, (0, 1))
        known = functional.pad(precision * size, (1, 0)) - functional.pad(precision * size, (0, 1))
        values = solved((prior + before + after).double(), -precision.double(), known.double()).to(size)
        return UNIT * values, (values.square().mean(1) + TINY).log()


@torch.no_grad()  # it leads to the last round, on which it has next to no influence
def _agreed(differences: Tensor, weights: Tensor) -> Tensor:
    """What most rows agree on, [B, 1, W - 1].

    Found from the mean, or from a quartile if more rows agree on that. Then rows count little that disagree at the
    columns nearby: there the edge of a thing lies, which may be as long as half of a column.
    """
    ordered = differences[:, ::SPARSE].sort(1).values
    best, most = torch.zeros_like(ordered[:, :1]), torch.zeros_like(ordered[:, :1])
    mean = (weights * differences).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    quartiles = [ordered[:, [round(at * (ordered.shape[1] - 1))]] for at in (0.25, 0.75)]
    for start, scales in ((mean, SCALES), *((quartile, SCALES[-2:]) for quartile in quartiles)):
        size = _settled(differences, weights, start, scales)
        support = _near(differences, size, SCALES[-1]).sum(1, keepdim=True)
        best, most = torch.where(support > most, size, best), torch.maximum(support, most)
    for _ in range(2):
        near = functional.avg_pool1d(_near(differences, best, NEAR), NEARBY, 1, NEARBY // 2, count_include_pad=False)
        best = _settled(differences, weights * near**4, best, SCALES[-3:])
    return best


def _settled(differences: Tensor, weights: Tensor, size: Tensor, scales: Sequence[float]) -> Tensor:
    """Where rounds of ever narrower scales end."""
    for scale in scales:
        near = weights * _near(differences, size, scale)
        size = (near * differences).sum(1, keepdim=True) / near.sum(1, keepdim=True)
    return size


def _near(differences: Tensor, size: Tensor, scale: float | Tensor) -> Tensor:
    return 1 / (1 + ((differences - size) / scale).square())


def solved(diagonal: Tensor, links: Tensor, right: Tensor) -> Tensor:
    """x [B, W] of symmetric systems in which each unknown has a link [B, W - 1] to the next one.

    Every round puts what each unknown's neighbours are into its equation, and links it to those twice as far.

    >>> solved(torch.tensor([[2.0, 2.0]]), torch.tensor([[-1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0.6667, 0.3333]])
    """

    def earlier(values: Tensor, missing: float = 0.0) -> Tensor:
        return functional.pad(values[:, :-far], (far, 0), value=missing)

    def later(values: Tensor, missing: float = 0.0) -> Tensor:
        return functional.pad(values[:, far:], (0, far), value=missing)

    far, links = 1, functional.pad(links, (1, 0))  # [B, W], to the one before
    while far < diagonal.shape[1]:
        back, ahead = -links / earlier(diagonal, 1.0), -later(links) / later(diagonal, 1.0)
        right = right + back * earlier(right) + ahead * later(right)
        diagonal = diagonal + back * links + ahead * later(links)
        links, far = back * earlier(links), 2 * far
    return right / diagonal


class Contrast(nn.Module):
    """Stretches an image about its mean, by how far its darkest and brightest parts are from the ends, or not."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.gain = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.gain[2].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.gain[2].bias, FIRST)  # type: ignore[arg-type]

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
    """Adds to an image some of its bands of detail, each as much as the detail of the whole image tells.

    With u for what a blur takes out of an image, the bands are Bernstein's polynomials of u: each is of one frequency
    more than of others. How much detail there is is measured along columns, whose stripes are then no part of it.
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
            blurred.append(smoothed(smoothed(blurred[-1], BLUR).mT, BLUR).mT)
        return x + torch.einsum("bk,kbchw->bchw", weights @ self.bands, torch.stack(blurred))


def _bands() -> Tensor:
    """Of an image that is blurred ever more often, what each band has, [BANDS, BANDS + 1]."""
    rows = torch.zeros(BANDS, BANDS + 1)
    for i in range(1, BANDS + 1):
        for j in range(i + 1):
            rows[i - 1, BANDS - i + j] = math.comb(BANDS, i) * math.comb(i, j) * (-1) ** j
    return rows
