"""A plot of an ablation: for every variant the mean over seeds with its deviation, and each seed as a ring.

>>> drawn([("thermal, dB", {"random": {"mean": [30.1, 30.3]}, "policy": {"mean": [30.6, 30.2]}})]).size[0]
1000
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

from deal.ablation.tables import Spread
from deal.training.curve import texts, ticks

WIDTH, LINE, TOP, BOTTOM = 1000, 26, 56, 34  # pixels: of the sheet, for each variant, above and below the lines
LABELS, GAP = 190, 26  # for the names of variants, between panels
SCALE = 2  # drawn larger and reduced, for smooth edges
RING, DOT, CAP = 3, 5, 5  # radii of the marks, half the height of the ends of bars
GREY = 205

Figures = Mapping[str, Mapping[str, Sequence[float]]]  # by variant and column, a number for each seed


def drawn(blocks: Sequence[tuple[str, Figures]]) -> Image.Image:
    """Blocks of panels below each other, each with a title, a line for every variant and a panel for every column."""
    sheets = [_block(title, figures) for title, figures in blocks]
    sheet = Image.new("L", (SCALE * WIDTH, sum(each.height for each in sheets)), "white")
    top = 0
    for each in sheets:
        sheet.paste(each, (0, top))
        top += each.height
    return sheet.reduce(SCALE)


def _block(title: str, figures: Figures) -> Image.Image:
    columns = list(next(iter(figures.values())))
    sheet = Image.new("L", (SCALE * WIDTH, SCALE * (TOP + LINE * len(figures) + BOTTOM)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(SCALE * 14)
    draw.text((SCALE * 8, SCALE * 14), title, "black", font, "lm")
    for position, variant in enumerate(figures):
        draw.text((SCALE * (LABELS - 12), _middle(position)), variant, "black", font, "rm")
    width = (WIDTH - LABELS - GAP) // len(columns)
    for position, column in enumerate(columns):
        left = SCALE * (LABELS + position * width)
        values = [list(of_variant[column]) for of_variant in figures.values()]
        _panel(draw, column, values, left, left + SCALE * (width - GAP))
    return sheet


def _middle(position: int) -> float:
    return SCALE * (TOP + (position + 0.5) * LINE)


def _panel(draw: ImageDraw.ImageDraw, title: str, values: Sequence[Sequence[float]], left: int, right: int) -> None:
    font = ImageFont.load_default(SCALE * 13)
    top, bottom = SCALE * TOP, SCALE * (TOP + LINE * len(values))
    marks = ticks(*_limits(values))

    def place(value: float) -> float:
        return float(left + (value - marks[0]) / (marks[-1] - marks[0]) * (right - left))

    draw.text(((left + right) / 2, SCALE * (TOP - 14)), title, "black", font, "mm")
    shown = marks[:: max(1, len(marks) // 3)]
    for mark in marks:
        draw.line([(place(mark), top), (place(mark), bottom)], GREY, SCALE)
    for mark, text in zip(shown, texts(shown), strict=True):
        draw.text((place(mark), bottom + SCALE * 6), text, "black", font, "mt")
    for position, seeds in enumerate(values):
        _spread(draw, [place(seed) for seed in seeds], _middle(position))


def _spread(draw: ImageDraw.ImageDraw, places: Sequence[float], y: float) -> None:
    """The mean as a dot, a bar of one deviation to either side, and a ring for each seed."""
    mean, deviation = Spread.of(places)
    if len(places) > 1:
        ends = mean - deviation, mean + deviation
        draw.line([(ends[0], y), (ends[1], y)], 0, SCALE * 2)
        for end in ends:
            draw.line([(end, y - SCALE * CAP), (end, y + SCALE * CAP)], 0, SCALE * 2)
        for each in places:
            draw.circle((each, y), SCALE * RING, 255, 0, SCALE)
    draw.circle((mean, y), SCALE * DOT, 0)


def _limits(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The range of all seeds and of the bars of one deviation."""
    ends = [value for seeds in values for value in seeds]
    for mean, deviation in (Spread.of(seeds) for seeds in values if len(seeds) > 1):
        ends += [mean - deviation, mean + deviation]
    low, high = min(ends), max(ends)
    margin = 0.5 if numpy.isclose(low, high) else 0.0
    return low - margin, high + margin
