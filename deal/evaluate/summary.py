"""Summary of a benchmark: one line per metric and method, over all rows.

An image counts if its input can be improved, that is, if the metric of the degraded image itself is below 100 dB.
Inputs above that are perfect, for example in the row "clean", and by affine PSNR in rows of low contrast: nothing can
be gained there, and a difference to 100 dB would say nothing. They have a figure of their own: the decibels that the
method leaves. Restored images above 100 dB count as 100.

>>> from deal.evaluate.results import Figures, Results
>>> rows = [Figures(row, method, "a.png", psnr, psnr, 0.9, 0.0, 0.0, 1.0) for row, method, psnr in (
...     ("clean", "none", float("inf")), ("noise", "none", 26.0), ("stripes", "none", 20.0),
...     ("clean", "midway", 60.0), ("noise", "midway", 25.0), ("stripes", "midway", 30.0))]
>>> summarise(Results(rows, ("clean", "noise", "stripes"), ("midway",), ""))[0]._asdict()
{'metric': 'psnr', 'method': 'midway', 'mean': 27.5, 'worst': 25.0, 'worst_row': 'noise', 'gain': 4.5, \
'least_gain': -1.0, 'least_gain_row': 'noise', 'perfect_inputs': 60.0}
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

from deal.evaluate.results import DECIBELS, EXACT, INPUT, Results, capped


class Summary(NamedTuple):
    """Decibels of one method over the rows of a benchmark; NaN and "" where there is no image."""

    metric: str
    method: str
    mean: float  # over rows, each the mean over its images, like `gain`
    worst: float
    worst_row: str
    gain: float  # over the degraded image
    least_gain: float
    least_gain_row: str
    perfect_inputs: float  # the mean over images whose input is perfect


def summarise(results: Results) -> list[Summary]:
    """The summaries by metric, PSNR and affine PSNR, and method."""
    return [_summary(results, metric, method) for metric in DECIBELS for method in results.methods]


def _summary(results: Results, metric: str, method: str) -> Summary:
    restored: dict[str, float] = {}
    gains: dict[str, float] = {}
    perfect: list[float] = []
    for row in results.degradations:
        before, after = (_decibels(results, row, name, metric) for name in (INPUT, method))
        pairs = list(zip(before, after, strict=True))
        perfect += [y for x, y in pairs if x >= EXACT]
        if counted := [(x, y) for x, y in pairs if x < EXACT]:
            restored[row] = statistics.fmean(y for _, y in counted)
            gains[row] = statistics.fmean(y - x for x, y in counted)
    mean, worst, worst_row = _mean_and_least(restored)
    gain, least_gain, least_gain_row = _mean_and_least(gains)
    left = statistics.fmean(perfect) if perfect else float("nan")
    return Summary(metric, method, mean, worst, worst_row, gain, least_gain, least_gain_row, left)


def _decibels(results: Results, row: str, method: str, metric: str) -> list[float]:
    return [capped(getattr(each, metric)) for each in results.of(row, method)]


def _mean_and_least(values: dict[str, float]) -> tuple[float, float, str]:
    if not values:
        return float("nan"), float("nan"), ""
    row = min(values, key=values.__getitem__)
    return statistics.fmean(values.values()), values[row], row
