"""What an evaluation has found, as a CSV file, as tables in Markdown, and as a sheet of pictures."""

from __future__ import annotations

import csv
import io
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deal.checkpoint import atomically
from deal.data import Location
from deal.evaluate import EXACT, Figures, Results, Strip
from deal.methods import BEST
from deal.pairs import MEASURES, VARIANTS, PairResults
from deal.picture import stacked, strip

TABLES: dict[str, Callable[[Figures], str]] = {
    "PSNR, dB": lambda figures: _decibels(figures.psnr),
    "Affine PSNR, dB": lambda figures: _decibels(figures.affine_psnr),
    "SSIM": lambda figures: f"{figures.ssim:.4f}",
    "Stripe residual": lambda figures: f"{figures.stripe_residual:.4f}",
}


def _decibels(value: float) -> str:
    return f"> {EXACT:g}" if value > EXACT else f"{value:.2f}"


def check_folder(folder: Location) -> None:
    """Makes the folder, and raises where no file can be written into it, before hours are spent."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(results: Results | PairResults, folder: Location) -> list[Path]:
    """Writes results.csv, results.md, and sheet.png where there are pictures, each as a whole; their paths."""
    files = {"results.csv": as_csv(results).encode(), "results.md": as_markdown(results).encode()}
    if isinstance(results, Results) and results.strips:
        encoded = io.BytesIO()
        sheet(results).save(encoded, "PNG")
        files["sheet.png"] = encoded.getvalue()
    for name, content in files.items():
        with atomically(Path(folder) / name) as file:
            file.write(content)
    return [Path(folder) / name for name in files]


def as_csv(results: Results | PairResults) -> str:
    """A line for every figure of an image, and behind those of a method their means."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    rows: list[Any] = list(results.rows)
    table.writerow(rows[0]._fields)
    for place, each in enumerate(rows):
        table.writerow(each)
        key = each[: each._fields.index("image")]
        if place + 1 == len(rows) or rows[place + 1][: len(key)] != key:
            table.writerow(results.mean(*key))
    return text.getvalue()


def as_markdown(results: Results | PairResults) -> str:
    """The protocol, and a table for every measure, or for every fusion."""
    tables = _of_rows(results) if isinstance(results, Results) else _of_pairs(results)
    return "\n\n".join([f"Protocol: {results.protocol}", *tables]) + "\n"


def _of_rows(results: Results) -> list[str]:
    means = {(row, method): results.mean(row, method) for row in results.degradations for method in results.methods}
    tables = []
    for title, cell in TABLES.items():
        lines = [[row, *(cell(means[row, each]) for each in results.methods)] for row in results.degradations]
        tables.append(table([title, *results.methods], lines))
    times = {each: [figures.ms for figures in results.rows if figures.method == each] for each in results.methods}
    medians = [f"{statistics.median(times[each]):.1f}" for each in results.methods]
    tables.append(table(["Time, ms", *results.methods], [["median of an image", *medians]]))
    if BEST in results.methods:
        lines = [[row, means[row, BEST].winner] for row in results.degradations]
        tables.append(table([BEST, "is"], lines))
    return tables


def _of_pairs(results: PairResults) -> list[str]:
    tables = []
    for how in results.fusions:
        for variant in VARIANTS:
            means = [results.mean(method, how, variant) for method in results.methods]
            lines = [[each.method, *(f"{getattr(each, name):.4f}" for name in MEASURES)] for each in means]
            tables.append(table([f"{how} fusion, {variant}", *MEASURES], lines))
    return tables


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown, its columns aligned for those who read it as it is.

    >>> print(table(["row", "PSNR"], [["clean", "42.10"]]))
    | row   |  PSNR |
    | ----- | ----: |
    | clean | 42.10 |
    """
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in (head, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def sheet(results: Results) -> Image.Image:
    """Clean, degraded and restored images beside each other, a strip for every row that is pictured and every image."""
    return stacked([_drawn(each) for each in results.strips])


def _drawn(shown: Strip) -> Image.Image:
    first = shown.figures[0]
    images, titles, notes = [shown.clean, shown.degraded], ["clean", first.row], [first.image, ""]
    for image, figures in zip(shown.restored, shown.figures, strict=True):
        if figures.method != "none":
            images.append(image)
            titles.append(figures.winner or figures.method)
            notes.append(f"{figures.psnr:.1f} dB, SSIM {figures.ssim:.3f}")
    return strip(images, titles, notes)
