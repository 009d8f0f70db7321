"""The curve of a training run: loss and PSNR over its steps, drawn with Pillow."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy
from PIL import Image, ImageDraw, ImageFont

from deal.io.axis import texts, ticks

SERIES = ("loss", "validation_loss", "validation_psnr")
WIDTH, HEIGHT = 960, 320  # of a panel, in pixels
LEFT, TOP, RIGHT, BOTTOM = 80, 36, 40, 48  # margins of its plot
SCALE = 2  # drawn larger and reduced, for smooth edges
MEANS = 50  # points of the line that shows the mean of the noisy loss
DOTS, RADIUS = 60, 3  # a line of more points has no dots
OUTER = 0.02  # share of the values at each end that may be cut off if they lie far out
TINY, HUGE = 1e-100, 1e100  # a narrower range of values is widened; a larger value counts as not finite
GREY, BLUE, PALE_BLUE, RED = (222, 222, 222), (31, 90, 160), (165, 195, 225), (200, 60, 40)

Points = tuple[numpy.ndarray, numpy.ndarray]  # steps and values, [N] each


class Line(NamedTuple):
    """A line of a panel, and its entry in the legend."""

    label: str
    colour: tuple[int, int, int]
    points: Points
    smoothed: bool = False


class Curve:
    """The loss of the training images, and loss and PSNR of the validation images, by step.

    >>> curve = Curve()
    >>> curve.add(10, {"loss": 0.3})
    >>> curve.add(20, {"loss": 0.2, "validation_loss": 0.25, "validation_psnr": 24.1})
    >>> curve.draw().size
    (960, 640)
    """

    def __init__(self) -> None:
        self._points = {name: (array("d"), array("d")) for name in SERIES}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of a step that are in `SERIES`. Those that are not finite are left out."""
        for name, (steps, numbers) in self._points.items():
            value = values.get(name, math.nan)
            if abs(value) < HUGE:
                steps.append(step)
                numbers.append(value)

    def draw(self) -> Image.Image:
        """Two panels below each other: the losses, and the PSNR."""
        loss, validation, psnr = (_points(*self._points[name]) for name in SERIES)
        end = max([1.0, *(steps[-1] for steps, _ in (loss, validation, psnr) if len(steps))])
        losses = [_line_of("training images", PALE_BLUE, loss)]
        if len(loss[0]) >= 2 * MEANS:
            losses.append(Line("smoothed", BLUE, thin(loss, MEANS), smoothed=True))
        losses.append(_line_of("validation images", RED, validation))
        sheet = Image.new("RGB", (SCALE * WIDTH, 2 * SCALE * HEIGHT), "white")
        sheet.paste(_panel("loss", losses, end), (0, 0))
        sheet.paste(_panel("PSNR, dB", [_line_of("validation images", RED, psnr)], end), (0, SCALE * HEIGHT))
        return sheet.reduce(SCALE)


def thin(points: Points, count: int) -> Points:
    """At most `count` points: means of as many neighbours each.

    >>> thin((numpy.arange(5.0), numpy.array([0.0, 2.0, 4.0, 6.0, 9.0])), 3)
    (array([0.5, 2.5, 4. ]), array([1., 5., 9.]))
    """
    steps, values = points
    size = -(-len(steps) // count)
    if size <= 1:
        return points
    starts = numpy.arange(0, len(steps), size)
    counts = numpy.diff(starts, append=len(steps))
    return numpy.add.reduceat(steps, starts) / counts, numpy.add.reduceat(values, starts) / counts


def _points(steps: Sequence[float], values: Sequence[float]) -> Points:
    return numpy.array(steps), numpy.array(values)


def _line_of(images: str, colour: tuple[int, int, int], points: Points) -> Line:
    """With at most one point for each column of pixels."""
    last = f"last {points[1][-1]:.4g}" if len(points[1]) else "none yet"
    return Line(f"{images}, {last}", colour, thin(points, WIDTH - LEFT - RIGHT))


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """The range of the values, without those that would leave the others flat. A smoothed line has none of its own."""
    ranges = []
    for values in (line.points[1] for line in lines if len(line.points[1]) and not line.smoothed):
        ordered, cut = numpy.sort(values), int(OUTER * len(values))
        low, high = ordered[cut], ordered[-1 - cut]
        ranges.append((max(ordered[0], low - (high - low)), min(ordered[-1], high + (high - low))))
    if not ranges:
        return 0.0, 1.0
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-6 * largest, TINY):
        margin = max(0.1 * largest, TINY) if largest else 1.0
        low, high = low - margin, high + margin
    return float(low), float(high)


def _panel(title: str, lines: Sequence[Line], end: float) -> Image.Image:
    """A plot over the steps 0 to `end`, with axes, ticks, labels and a legend."""
    panel = Image.new("RGB", (SCALE * WIDTH, SCALE * HEIGHT), "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(SCALE * 14)
    left, top, right, bottom = SCALE * LEFT, SCALE * TOP, SCALE * (WIDTH - RIGHT), SCALE * (HEIGHT - BOTTOM)
    across, up = ticks(0, end), ticks(*_limits(lines))
    across = across[across <= end]
    columns = left + across / end * (right - left)
    rows = bottom - (up - up[0]) / (up[-1] - up[0]) * (bottom - top)
    for row, text in zip(rows, texts(up), strict=True):
        draw.line([(left, row), (right, row)], GREY, SCALE)
        draw.text((left - SCALE * 8, row), text, "black", font, "rm")
    for column, text in zip(columns, texts(across), strict=True):
        draw.line([(column, bottom), (column, bottom + SCALE * 5)], "black", SCALE)
        draw.text((column, bottom + SCALE * 8), text, "black", font, "mt")
    draw.text(((left + right) / 2, SCALE * (HEIGHT - 6)), "steps", "black", font, "mb")
    draw.text((SCALE * 8, top / 2), title, "black", font, "lm")
    _legend(draw, lines, left, top // 2)
    draw.line([(left, top), (left, bottom), (right, bottom)], "black", SCALE)
    edge = SCALE * RADIUS  # of dots on the border
    plot = panel.crop((left - edge, top - edge, right + edge, bottom + edge))
    for line in lines:
        _draw_line(plot, line, end, up[0], up[-1])
    panel.paste(plot, (left - edge, top - edge))
    return panel


def _legend(draw: ImageDraw.ImageDraw, lines: Sequence[Line], left: float, middle: float) -> None:
    font = ImageFont.load_default(SCALE * 14)
    for line in lines:
        draw.line([(left, middle), (left + SCALE * 24, middle)], line.colour, SCALE * 3)
        draw.text((left + SCALE * 30, middle), line.label, "black", font, "lm")
        left += SCALE * 54 + draw.textlength(line.label, font)


def _draw_line(plot: Image.Image, line: Line, end: float, low: float, high: float) -> None:
    """Draws the line on the area between the axes, with the radius of a dot around it. The rest is cut off."""
    steps, values = line.points
    edge = SCALE * RADIUS
    x = edge + steps / end * (plot.width - 2 * edge)
    y = edge + numpy.clip((high - values) / (high - low), -1, 2) * (plot.height - 2 * edge)
    places, draw = list(zip(x.tolist(), y.tolist(), strict=True)), ImageDraw.Draw(plot)
    if len(places) > 1:
        draw.line(places, line.colour, SCALE * 2, "curve")
    if not line.smoothed and len(places) <= DOTS:
        for place in places:
            draw.circle(place, SCALE * RADIUS, line.colour)
