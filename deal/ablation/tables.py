"""Mean and deviation over the seeds of a plan, as tables and as CSV lines.

>>> str(Spread.of([30.0, 31.0, 32.0])), str(Spread.of([30.0]))
('31.00 ± 1.00', '30.00')
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from deal.evaluate import report
from deal.evaluate.results import INPUT, Figures, Results
from deal.evaluate.summary import Summary, summarise

SUMMARY: dict[str, Callable[[Summary], float]] = {  # in this order in tables and plots
    "mean": lambda each: each.mean,
    "least": lambda each: each.worst,
    "mean gain": lambda each: each.gain,
    "least gain": lambda each: each.least_gain,
}
METRICS = {"affine_psnr": "affine PSNR, dB", "psnr": "PSNR, dB"}
COLUMNS = ("variant", "seed", "evaluation", "row", "psnr", "affine_psnr", "ssim", "psnr_gain", "affine_psnr_gain")


class Measured(NamedTuple):
    """The results of one trained network in one evaluation."""

    variant: str
    seed: int
    evaluation: str
    results: Results  # of the methods "none" and of the network


class Spread(NamedTuple):
    """Mean and sample deviation of a figure over seeds; the deviation of one seed is NaN."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if math.isnan(self.deviation) else f" ± {self.deviation:.2f}")


def summaries(measured: Iterable[Measured], metric: str) -> dict[str, dict[str, list[float]]]:
    """Figures by variant and by the names in `SUMMARY`, one number for each seed.

    Args:
        measured: the results of one evaluation.
        metric: "affine_psnr" or "psnr".
    """
    found: dict[str, dict[str, list[float]]] = {}
    for each in measured:
        of_variant = found.setdefault(each.variant, {name: [] for name in SUMMARY})
        summary = next(one for one in summarise(each.results) if (one.metric, one.method) == (metric, _method(each)))
        for name, figure in SUMMARY.items():
            of_variant[name].append(figure(summary))
    return found


def as_markdown(measured: Sequence[Measured]) -> str:
    """For each evaluation a summary for each metric, and the affine PSNR of every row."""
    tables = []
    for evaluation in dict.fromkeys(each.evaluation for each in measured):
        of_it = [each for each in measured if each.evaluation == evaluation]
        tables += [_summary(evaluation, title, summaries(of_it, metric)) for metric, title in METRICS.items()]
        tables.append(_rows(evaluation, of_it))
    return "\n\n".join(tables) + "\n"


def as_csv(measured: Iterable[Measured]) -> str:
    """One line for each variant, seed, evaluation and row: means over images, and gains over the degraded image."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in measured:
        for row in each.results.degradations:
            before, after = each.results.mean(row, INPUT), each.results.mean(row, _method(each))
            gains = after.psnr - before.psnr, after.affine_psnr - before.affine_psnr
            figures = (f"{value:.4f}" for value in (after.psnr, after.affine_psnr, after.ssim, *gains))
            writer.writerow([each.variant, each.seed, each.evaluation, row, *figures])
    return text.getvalue()


def _method(measured: Measured) -> str:
    return next(name for name in measured.results.methods if name != INPUT)


def _summary(evaluation: str, title: str, found: dict[str, dict[str, list[float]]]) -> str:
    lines = [[variant, *(str(Spread.of(figures[name])) for name in SUMMARY)] for variant, figures in found.items()]
    return report.table([f"{evaluation}, {title}", *SUMMARY], lines)


def _rows(evaluation: str, measured: Sequence[Measured]) -> str:
    """A line for each row of the suite, a column for each variant, beside the degraded image."""
    variants = list(dict.fromkeys(each.variant for each in measured))

    def figures(row: str, variant: str) -> list[Figures]:
        return [each.results.mean(row, _method(each)) for each in measured if each.variant == variant]

    lines = [
        [
            row,
            f"{measured[0].results.mean(row, INPUT).affine_psnr:.2f}",
            *(str(Spread.of([each.affine_psnr for each in figures(row, variant)])) for variant in variants),
        ]
        for row in measured[0].results.degradations
    ]
    return report.table([f"{evaluation}, {METRICS['affine_psnr']}", INPUT, *variants], lines)
