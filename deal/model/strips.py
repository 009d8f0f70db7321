"""Patterns of whole columns and whole rows, which small convolutions cannot tell from edges.

A sensor with one amplifier per column adds an offset to each column, or multiplies it by a gain. Where the scene is
smooth, neighbouring columns differ by their offsets only, so the difference that most rows agree on estimates the step
between two offsets. The offsets are then the most probable ones under a Gaussian model with a learned precision for
each step and a learned prior for the size of the offsets.

>>> import torch
>>> Columns()(torch.rand(1, 1, 60, 80)).shape  # [B, 1, 1, W] or [B, 1, H, W]
torch.Size([1, 1, 60, 80])
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.model.whole_images import averaged_rows, median
from deal_kernels._common.dispatch import exports
from deal_kernels.consensus import consensus, nearness

TOLERANCE = 0.01  # the least unit of tolerances; above it, the deviation of the noise
SMOOTH = 1.5  # change along a column at which the weight of a difference is one half
DARKEST = 0.05  # lower bound of brightness in divisions
UNIT = 0.02  # the unit of steps and offsets
TINY = 1e-4  # added to squares in that unit before a logarithm
BOUND = 12.0  # bound of log-precisions
EDGE = 100.0  # squares of steps, of their median: larger steps that last are edges of the scene
NEAR = 5  # steps whose sum shows whether a step lasts: those to a single column and back add up to 0
NORMAL_MEDIAN = 0.6745  # median size of a standard normal value
EXPORTED_ROUNDS = 14  # of cyclic reduction, enough for 2^14 columns
NOISE_STRIDE = 4  # of the pixels that the noise is measured at


class Steps(NamedTuple):
    """The estimated steps from each column to the next."""

    size: Tensor  # [B, W - 1], the difference that most rows agree on
    error: Tensor  # its squared standard error
    agreement: Tensor  # the share of rows that agree


class Columns(nn.Module):
    """The pattern of an offset or a gain of every column; the image statistics decide the share of each.

    Args:
        rows: images with more rows are reduced to this many by averaging, before their columns are compared.
        hidden: width of the small networks.
    """

    def __init__(self, rows: int = 256, hidden: int = 16) -> None:
        super().__init__()
        self.rows = rows
        self.scale = nn.Parameter(torch.zeros(()))
        self.smooth = nn.Parameter(torch.tensor(SMOOTH).log())
        self.trust = nn.Sequential(
            nn.Conv1d(4, hidden, 3, padding=1, padding_mode="replicate"), nn.ReLU(), nn.Conv1d(hidden, 1, 1)
        )
        self.level = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.factor = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The column pattern of x [B, 1, H, W], in the shape of x."""
        grey = self._reduced(x[:, 0])  # [B, R, W]
        differences = grey[..., 1:] - grey[..., :-1]
        unit = noise_of(grey).clamp_min(TOLERANCE)  # [B]
        brightness = ((grey[..., 1:] + grey[..., :-1]) / 2).clamp_min(DARKEST)
        brightness = brightness / brightness.mean((1, 2), keepdim=True)
        weights = self._smoothness(grey, unit)
        added, scaled = (self._steps(each, weights, unit) for each in (differences, differences / brightness))
        residuals = (differences - added.size[:, None]).abs(), (differences - scaled.size[:, None] * brightness).abs()
        of_offsets, of_gains = ((weights * each).mean((1, 2)) + 1e-6 for each in residuals)
        noise = (unit / TOLERANCE).log()
        (offsets, large), (factors, larger) = self._values(added, noise), self._values(scaled, noise)
        mean = grey.mean((1, 2))
        features = torch.stack([10 * (of_offsets / of_gains).log(), large, larger, mean, noise], 1)
        share = self.factor(features).sigmoid()  # [B, 1], the share of gains
        added_up = ((1 - share) * offsets)[:, None, None]  # [B, 1, 1, W]
        scaled_by = (share * factors / mean[:, None].clamp_min(DARKEST))[:, None, None]
        return added_up + scaled_by * x

    def _reduced(self, grey: Tensor) -> Tensor:
        if exports():
            return averaged_rows(grey, torch.sym_min(grey.shape[1], self.rows))
        return grey if grey.shape[1] <= self.rows else averaged_rows(grey, self.rows)

    def _smoothness(self, grey: Tensor, unit: Tensor) -> Tensor:
        """The weight of each difference, [B, R, W - 1]: small where the image changes along the columns."""
        change = functional.pad((grey[:, 2:] - grey[:, :-2]).abs(), (0, 0, 1, 1))
        tolerance = (self.smooth.exp() * unit)[:, None, None]
        return 1 / (1 + ((change[..., 1:] + change[..., :-1]) / tolerance).square())

    def _steps(self, differences: Tensor, weights: Tensor, unit: Tensor) -> Steps:
        size = consensus(differences, weights, unit)[:, None]
        apart = differences - size
        near = weights * nearness(differences, size, (self.scale.exp() * unit)[:, None, None])
        total = near.sum(1) + 1e-6
        error = (near * apart).square().sum(1) / total.square()
        return Steps(size[:, 0] + (near * apart).sum(1) / total, error, total / differences.shape[1])

    def _values(self, steps: Steps, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable offsets [B, W] under Gaussian offsets and step errors, and the log of their mean square."""
        size = steps.size / UNIT
        power, error = size.square(), (steps.error / UNIT**2 + TINY).log()
        typical = median(size.abs()).square()  # in this order an exported network finds it more exactly
        lasting = NEAR * functional.avg_pool1d(size[:, None], NEAR, 1, NEAR // 2)[:, 0]
        edge = torch.minimum(power, lasting.square()) / (EDGE * typical[:, None] + TINY)
        believed = 1 / (1 + edge.square())
        everywhere = noise[:, None].expand_as(error)
        features = [error, steps.agreement.clamp_min(1e-3).log(), (power + TINY).log(), everywhere]
        trust = self.trust(torch.stack(features, 1))[:, 0]
        precision = believed * (trust - error).clamp(-BOUND, BOUND).exp()  # [B, W - 1]
        # Independent offsets of variance v give neighbouring steps a covariance of -v.
        within = believed * size
        variance = -(within[:, 1:] * within[:, :-1]).mean(1)
        likely = (variance.clamp_min(0) + TINY).log()
        powers = (power.mean(1) + TINY).log(), (typical + TINY).log()
        image = torch.stack([likely, *powers, error.mean(1), variance / (power.mean(1) + TINY), noise], 1)
        prior = (self.level(image) - likely[:, None]).clamp(-BOUND, BOUND).exp()  # [B, 1]
        before, after = functional.pad(precision, (1, 0)), functional.pad(precision, (0, 1))
        known = functional.pad(precision * size, (1, 0)) - functional.pad(precision * size, (0, 1))
        system = (prior + before + after, -precision, known)
        values = solved(*(each if exports() else each.double() for each in system)).to(size)
        return UNIT * values, (values.square().mean(1) + TINY).log()


class NoColumns(nn.Module):
    """Stands for `Columns` in a network that takes out no patterns of lines."""

    def forward(self, image: Tensor) -> Tensor:
        """Zeros in the shape of the image [B, 1, H, W]."""
        return torch.zeros_like(image)


@torch.no_grad()
def noise_of(grey: Tensor) -> Tensor:
    """The deviation [B] of the noise in images [B, R, W]: of the changes, down the columns, of the differences between
    neighbouring columns. They are the same with and without a column pattern."""
    upper, lower = grey[:, :-1:NOISE_STRIDE], grey[:, 1::NOISE_STRIDE]
    upper, lower = (each[..., 1::NOISE_STRIDE] - each[..., :-1:NOISE_STRIDE] for each in (upper, lower))
    return median((lower - upper).flatten(1).abs()) / (NORMAL_MEDIAN * 2**0.5)


def solved(diagonal: Tensor, links: Tensor, right: Tensor) -> Tensor:
    """The solution x [B, W] of symmetric tridiagonal systems, by cyclic reduction.

    Every round eliminates the two neighbours of each unknown, which then depends on unknowns twice as far away.

    Args:
        diagonal: [B, W]
        links: the off-diagonal, [B, W - 1]
        right: the right-hand side, [B, W]

    >>> solved(torch.tensor([[2.0, 2.0]]), torch.tensor([[-1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0.6667, 0.3333]])
    """

    def earlier(values: Tensor, missing: float = 0.0) -> Tensor:
        return functional.pad(values, (far, 0), value=missing)[:, :count]

    def later(values: Tensor, missing: float = 0.0) -> Tensor:
        return functional.pad(values, (0, far), value=missing)[:, far:]

    count, links = diagonal.shape[1], functional.pad(links, (1, 0))  # [B, W], to the previous unknown
    for k in range(EXPORTED_ROUNDS if exports() else (count - 1).bit_length()):
        far = 2**k
        back, ahead = -links / earlier(diagonal, 1.0), -later(links) / later(diagonal, 1.0)
        right = right + back * earlier(right) + ahead * later(right)
        diagonal = diagonal + back * links + ahead * later(links)
        links = back * earlier(links)
    return right / diagonal
