"""The results of a benchmark as a CSV file, as Markdown tables, and as a contact sheet."""

from __future__ import annotations

import csv
import io
import itertools
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deal.detection.benchmark import CLEAN, Detected, DetectionResults
from deal.evaluate.method_registry import BEST
from deal.evaluate.results import EXACT, INPUT, MEAN, Comparison, Figures, Results
from deal.evaluate.summary import Summary, summarise
from deal.fusion.benchmark import METRICS, VARIANTS, PairResults
from deal.io import contact_sheet
from deal.io.atomic import atomic_write
from deal.io.images import Location
from deal.io.plot import Block, Mark, drawn

TABLES: dict[str, Callable[[Figures], str]] = {
    "PSNR, dB": lambda figures: _decibels(figures.psnr),
    "Affine PSNR, dB": lambda figures: _decibels(figures.affine_psnr),
    "SSIM": lambda figures: f"{figures.ssim:.4f}",
    "Stripe residual": lambda figures: f"{figures.stripe_residual:.4f}",
    "Row residual": lambda figures: f"{figures.row_residual:.4f}",
}
SUMMARIES = {"psnr": "Summary of PSNR, dB", "affine_psnr": "Summary of affine PSNR, dB"}
TEXTS = ("row", "method", "image", "winner")  # the figures that are not numbers
SUMMARY_HEADER = ("mean", "least", "in row", "mean gain", "least gain", "in row", "of perfect inputs")


def _decibels(value: float) -> str:
    """Two decimals, and no minus before 0.00."""
    return f"> {EXACT:g}" if value >= EXACT else f"{round(value, 2) + 0.0:.2f}"


def check_folder(folder: Location) -> None:
    """Creates the folder, and raises if it is not writable, before the time for the benchmark is spent."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(results: Results | PairResults | DetectionResults, folder: Location) -> list[Path]:
    """Writes results.csv and results.md; for `Results` summary.csv and, if there are images to show, sheet.png; for the
    others plot.png; each atomically. Returns their paths."""
    files = {"results.csv": as_csv(results).encode(), "results.md": as_markdown(results).encode()}
    if isinstance(results, Results):
        files["summary.csv"] = _lines(Summary._fields, summarise(results)).encode()
    if isinstance(results, Results) and results.comparisons:
        encoded = io.BytesIO()
        sheet(results).save(encoded, "PNG")
        files["sheet.png"] = encoded.getvalue()
    if not isinstance(results, Results):
        files["plot.png"] = plot(results)
    for name, content in files.items():
        with atomic_write(Path(folder) / name) as file:
            file.write(content)
    return [Path(folder) / name for name in files]


def as_csv(results: Results | PairResults | DetectionResults) -> str:
    """One line per image, and after the images of each method a line with their means; or one line per class."""
    rows: list[Any] = list(results.rows)
    if isinstance(results, DetectionResults):
        return _lines(Detected._fields, rows)
    lines: list[Any] = []
    for position, each in enumerate(rows):
        lines.append(each)
        key = each[: each._fields.index("image")]
        if position + 1 == len(rows) or rows[position + 1][: len(key)] != key:
            lines.append(results.mean(*key))
    return _lines(rows[0]._fields, lines)


def from_csv(text: str) -> Results:
    """The results whose metrics `as_csv` wrote, without protocol and comparisons.

    >>> figures = Figures("noise", "none", "a.png", 26.0, 26.5, 0.9, 0.0, 0.0, 1.0)
    >>> from_csv(as_csv(Results([figures], ("noise",), ("none",), ""))).rows == [figures]
    True
    """
    lines = [line for line in csv.DictReader(io.StringIO(text)) if line["image"] != MEAN]
    values = ((value if name in TEXTS else float(value) for name, value in line.items()) for line in lines)
    rows: list[Figures] = [Figures._make(each) for each in values]
    degradations, methods = (tuple(dict.fromkeys(line[name] for line in lines)) for name in ("row", "method"))
    return Results(rows, degradations, methods, protocol="")


def _lines(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue()


def as_markdown(results: Results | PairResults | DetectionResults) -> str:
    """The protocol, and one table per metric, per kind of fusion, or per class of objects."""
    if isinstance(results, DetectionResults):
        tables = _detection_tables(results)
    else:
        tables = _degradation_tables(results) if isinstance(results, Results) else _fusion_tables(results)
    return "\n\n".join([f"Protocol: {results.protocol}", *tables]) + "\n"


def _degradation_tables(results: Results) -> list[str]:
    means = {(row, method): results.mean(row, method) for row in results.degradations for method in results.methods}
    tables = []
    for title, cell in TABLES.items():
        lines = [[row, *(cell(means[row, each]) for each in results.methods)] for row in results.degradations]
        tables.append(table([title, *results.methods], lines))
    tables += _summary_tables(summarise(results))
    times = {each: [figures.ms for figures in results.rows if figures.method == each] for each in results.methods}
    medians = [f"{statistics.median(times[each]):.1f}" for each in results.methods]
    tables.append(table(["Time, ms", *results.methods], [["median per image", *medians]]))
    if BEST in results.methods:
        lines = [[row, means[row, BEST].winner] for row in results.degradations]
        tables.append(table([BEST, "is"], lines))
    return tables


def _summary_tables(summaries: Sequence[Summary]) -> list[str]:
    tables = []
    for metric, title in SUMMARIES.items():
        lines = []
        for each in (each for each in summaries if each.metric == metric):
            of_row = [_or_none(each.mean), _or_none(each.worst), each.worst_row]
            gains = [_or_none(each.gain), _or_none(each.least_gain), each.least_gain_row]
            lines.append([each.method, *of_row, *gains, _or_none(each.perfect_inputs)])
        tables.append(table([title, *SUMMARY_HEADER], lines))
    return tables


def _or_none(value: float) -> str:
    return "-" if math.isnan(value) else _decibels(value)


def _fusion_tables(results: PairResults) -> list[str]:
    tables = []
    for how, variant, reference in itertools.product(results.fusions, VARIANTS, results.references):
        title = f"{how} fusion, {variant}"
        lines = []
        for row, method in itertools.product(results.degradations, results.methods):
            key = row, reference, method, how, variant
            mean, error = results.mean(*key), results.error(*key)
            name = method if len(results.references) == 1 else f"{row}: {method}"
            lines.append([name, *(_with_error(getattr(mean, each), getattr(error, each)) for each in METRICS)])
        if len(results.references) > 1:
            title += f", against {reference}"
        tables.append(table([title, *METRICS], lines))
    return tables


def _detection_tables(results: DetectionResults) -> list[str]:
    """For every class: AP50, AP, and the share of the AP50 lost by degradation that each method recovers."""
    tables = []
    for label in results.classes:
        found = {key: results.of(*key, label) for key in itertools.product(results.degradations, results.methods)}
        for title, name in (("AP50", "ap50"), ("AP", "ap")):
            lines = [
                [row, *(_precision(found[row, each], name) for each in results.methods)] for row in results.degradations
            ]
            tables.append(table([f"{label}, {title}", *results.methods], lines))
        if INPUT in results.methods:
            lines = [[row, *_recovered(found, row, results.methods)] for row in results.degradations if row != CLEAN]
            tables.append(table([f"{label}, AP50 recovered, %", *results.methods], lines))
    return tables


def _precision(found: Detected, name: str) -> str:
    return _with_error(getattr(found, name), getattr(found, f"{name}_error"))


def _with_error(value: float, error: float) -> str:
    """A value and its standard error, where it has one."""
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ± {error:.3f}"


def _recovered(found: Mapping[tuple[str, str], Detected], row: str, methods: Sequence[str]) -> list[str]:
    """The share of the AP50 lost by degradation that each method recovers, in percent."""
    clean, degraded = found[CLEAN, INPUT].ap50, found[row, INPUT].ap50
    if not clean > degraded:
        return ["-"] * len(methods)
    return [f"{100 * (found[row, each].ap50 - degraded) / (clean - degraded):.0f}" for each in methods]


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns.

    >>> print(table(["row", "PSNR"], [["clean", "42.10"]]))
    | row   |  PSNR |
    | ----- | ----: |
    | clean | 42.10 |
    """
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in (header, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def sheet(results: Results) -> Image.Image:
    """Clean, degraded and restored images side by side, one row per shown degradation and image."""
    return contact_sheet.stack([_drawn(each) for each in results.comparisons])


def plot(results: PairResults | DetectionResults) -> bytes:
    """A PNG file: AP50 of every class; or SCD, VIF and Qabf, legacy, of the last fusion. Bars are standard errors."""
    if isinstance(results, DetectionResults):
        return drawn([Block(f"{label}, AP50", _precision_marks(results, label)) for label in results.classes])
    how = results.fusions[-1]
    return drawn(
        [
            Block(f"{row}, {how} fusion, legacy measures, against {reference}", _fusion_marks(results, row, reference))
            for row, reference in itertools.product(results.degradations, results.references)
        ]
    )


def _precision_marks(results: DetectionResults, label: str) -> dict[str, dict[str, Mark]]:
    found = {key: results.of(*key, label) for key in itertools.product(results.degradations, results.methods)}
    return {
        method: {row: Mark(found[row, method].ap50, found[row, method].ap50_error) for row in results.degradations}
        for method in results.methods
    }


def _fusion_marks(results: PairResults, row: str, reference: str) -> dict[str, dict[str, Mark]]:
    marks = {}
    for method in results.methods:
        key = row, reference, method, results.fusions[-1], "legacy"
        mean, error = results.mean(*key), results.error(*key)
        marks[method] = {name: Mark(getattr(mean, name), getattr(error, name)) for name in ("SCD", "VIF", "Qabf")}
    return marks


def _drawn(comparison: Comparison) -> Image.Image:
    first = comparison.figures[0]
    images, titles, notes = [comparison.clean, comparison.degraded], ["clean", first.row], [first.image, ""]
    for image, figures in zip(comparison.restored, comparison.figures, strict=True):
        if figures.method != "none":
            images.append(image)
            titles.append(figures.winner or figures.method)
            notes.append(f"{figures.psnr:.1f} dB, SSIM {figures.ssim:.3f}")
    return contact_sheet.row(images, titles, notes)
