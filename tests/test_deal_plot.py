"""Plots of means with their errors: what is where."""

import io
import math

import numpy
from PIL import Image, ImageDraw

from deal.io import plot
from deal.io.plot import Block, Mark


def dark(lines):
    """Where each line of a block with one panel is dark, in pixels from the left, without its name."""
    image = Image.open(io.BytesIO(plot.drawn([Block("title", {name: {"mean": mark} for name, mark in lines.items()})])))
    pixels = numpy.asarray(image)[:, 2 * plot.GAP - 5 :]  # without the names of one letter
    rows = (pixels[plot.TOP + k * plot.LINE :][: plot.LINE] for k in range(len(lines)))
    return [numpy.flatnonzero((row < 64).any(0)) for row in rows]


def test_a_bar_is_as_long_as_the_error_and_a_dot_is_at_the_mean():
    single, alone = dark({"a": Mark(2.0, 1.0, (1.0, 3.0)), "b": Mark(2.0)})
    assert len(single) > 3 * len(alone) > 0
    assert abs((single[0] + single[-1]) / 2 - alone.mean()) < 3
    left, middle, right = (each.mean() for each in dark({"a": Mark(0.0), "b": Mark(1.0), "c": Mark(4.0)}))
    assert abs((middle - left) / (right - left) - 0.25) < 0.01


def test_numbers_below_ticks_that_are_left_out_keep_their_decimals(monkeypatch):
    shown, write = [], ImageDraw.ImageDraw.text

    def text(self, place, what, *font):
        shown.append(what)
        write(self, place, what, *font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    dark({"a": Mark(0.12), "b": Mark(0.53)})  # ticks at 0.1, 0.2, ..., 0.6
    assert [float(each) for each in shown if each[0] == "0"] == [0.1, 0.3, 0.5]
    shown.clear()
    dark({"a": Mark(0.12), "b": Mark(0.37)})  # ticks at 0.10, 0.15, ..., 0.40
    assert [float(each) for each in shown if each[0] == "0"] == [0.1, 0.2, 0.3, 0.4]


def test_what_is_not_known_is_not_drawn():
    unknown, known = dark({"a": Mark(math.nan), "b": Mark(1.0, math.nan)})
    assert len(unknown) == 0 < len(known)
    assert len(dark({"a": Mark(math.nan)})[0]) == 0
