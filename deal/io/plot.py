"""A plot of means with their errors, in black and white.

>>> plot = drawn([Block("Car", {"none": {"hard": Mark(0.01, 0.002)}, "deal": {"hard": Mark(0.44, 0.03)}})])
>>> Image.open(io.BytesIO(plot)).width
1000
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy
from PIL import Image, ImageDraw, ImageFont

from deal.io.axis import texts, ticks

WIDTH, LINE, TOP, BOTTOM = 1000, 26, 56, 34  # pixels: of the sheet, for each line, above and below the lines
GAP = 40  # beside panels
SCALE = 2  # drawn larger and reduced, for smooth edges
RING, DOT, CAP = 3, 5, 5  # radii of the marks, half the height of the ends of bars
GREY = 205


class Mark(NamedTuple):
    """A mean, drawn as a dot with a bar of one error to either side, and a ring for each of the values behind it.

    A mean that is NaN is not drawn.
    """

    mean: float
    error: float = math.nan
    values: Sequence[float] = ()

    def extent(self) -> list[float]:
        """All that is drawn."""
        found = [*self.values, self.mean, self.mean - self.error, self.mean + self.error]
        return [value for value in found if not math.isnan(value)]


class Block(NamedTuple):
    """Panels beside each other, one for each column of `lines`: the marks by the name of the line and the column."""

    title: str
    lines: Mapping[str, Mapping[str, Mark]]


def drawn(blocks: Sequence[Block]) -> bytes:
    """A PNG file with the blocks below each other."""
    sheets = [_block(each) for each in blocks]
    sheet = Image.new("L", (SCALE * WIDTH, sum(each.height for each in sheets)), "white")
    top = 0
    for each in sheets:
        sheet.paste(each, (0, top))
        top += each.height
    file = io.BytesIO()
    sheet.reduce(SCALE).save(file, "PNG")
    return file.getvalue()


def _block(block: Block) -> Image.Image:
    columns = list(next(iter(block.lines.values())))
    sheet = Image.new("L", (SCALE * WIDTH, SCALE * (TOP + LINE * len(block.lines) + BOTTOM)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(SCALE * 14)
    draw.text((SCALE * 8, SCALE * 14), block.title, "black", font, "lm")
    labels = max(draw.textlength(name, font) for name in block.lines) + SCALE * 2 * GAP
    for position, name in enumerate(block.lines):
        draw.text((labels - SCALE * GAP / 2, _middle(position)), name, "black", font, "rm")
    width = (SCALE * WIDTH - labels) / len(columns)
    for position, column in enumerate(columns):
        left = labels + position * width
        _panel(draw, column, [line[column] for line in block.lines.values()], left, left + width - SCALE * GAP)
    return sheet


def _middle(position: int) -> float:
    return SCALE * (TOP + (position + 0.5) * LINE)


def _panel(draw: ImageDraw.ImageDraw, title: str, marks: Sequence[Mark], left: float, right: float) -> None:
    font = ImageFont.load_default(SCALE * 13)
    top, bottom = SCALE * TOP, SCALE * (TOP + LINE * len(marks))
    scale = ticks(*_limits(marks))

    def place(value: float) -> float:
        return float(left + (value - scale[0]) / (scale[-1] - scale[0]) * (right - left))

    draw.text(((left + right) / 2, SCALE * (TOP - 14)), title, "black", font, "mm")
    apart = max(1, len(scale) // 3)
    for value in scale:
        draw.line([(place(value), top), (place(value), bottom)], GREY, SCALE)
    for value, text in zip(scale[::apart], texts(scale)[::apart], strict=True):
        draw.text((place(value), bottom + SCALE * 6), text, "black", font, "mt")
    for position, mark in enumerate(marks):
        y = _middle(position)
        if not math.isnan(mark.error):
            _bar(draw, place(mark.mean - mark.error), place(mark.mean + mark.error), y)
        for value in mark.values:
            draw.circle((place(value), y), SCALE * RING, 255, 0, SCALE)
        if not math.isnan(mark.mean):
            draw.circle((place(mark.mean), y), SCALE * DOT, 0)


def _bar(draw: ImageDraw.ImageDraw, left: float, right: float, y: float) -> None:
    draw.line([(left, y), (right, y)], 0, SCALE * 2)
    for end in (left, right):
        draw.line([(end, y - SCALE * CAP), (end, y + SCALE * CAP)], 0, SCALE * 2)


def _limits(marks: Sequence[Mark]) -> tuple[float, float]:
    values = [value for mark in marks for value in mark.extent()]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.5 if numpy.isclose(low, high) else 0.0
    return low - margin, high + margin
