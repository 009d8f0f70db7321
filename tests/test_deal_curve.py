"""The curve of a training run: what it shows, and what it copes with."""

import csv
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from deal.io.axis import ticks
from deal.training import curve
from deal.training.curve import BLUE, PALE_BLUE, RED, Curve, thin
from deal.training.logging import Log


def drawn(rows):
    made = Curve()
    for step, values in rows:
        made.add(step, values)
    return numpy.asarray(made.draw()).astype(int)


def place(across, up, panel=0):
    """The pixel of a point, as shares of the axes from the left and from below."""
    left, right = curve.LEFT, curve.WIDTH - curve.RIGHT
    top, bottom = curve.TOP, curve.HEIGHT - curve.BOTTOM
    return round(bottom - up * (bottom - top)) + panel * curve.HEIGHT, round(left + across * (right - left))


def coloured(image, colour):
    """Whether pixels have a colour, [H, W]."""
    return (abs(image - numpy.array(colour)) < 30).all(-1)


def plot(image, panel=0):
    """The area between the axes of a panel."""
    (bottom, left), (top, right) = place(0, 0, panel), place(1, 1, panel)
    return image[top:bottom, left:right]


def test_lines_are_where_the_axes_say():
    """From 0 to 1 over 100 steps, and from 20 to 40 dB."""
    rows = [(step, {"loss": 1 - step / 100}) for step in (0, 100)]
    rows += [(step, {"validation_loss": step / 100, "validation_psnr": 20 + step / 5}) for step in (0, 100)]
    image = drawn(rows)
    for share in (0.0, 0.1, 0.25, 0.75, 0.9, 1.0):
        assert coloured(image, RED)[place(share, share)]
        assert coloured(image, RED)[place(share, share, panel=1)]
        assert coloured(image, PALE_BLUE)[place(share, 1 - share)]
        assert not coloured(image, RED)[place(share, share + 0.06 if share < 0.5 else share - 0.06)]


def test_axes_have_labels_and_a_legend(monkeypatch):
    said, draw = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, text, *rest: said.append(text) or draw(self, xy, text, *rest)
    )
    drawn((10 * k, {"loss": 1 / k, "validation_loss": 0.5, "validation_psnr": 20.0 + k}) for k in range(1, 201))
    assert {"loss", "PSNR, dB", "steps", "0.0", "0.2", "0.4", "500", "2000", "smoothed"} <= set(said)
    assert {"training images, last 0.005", "validation images, last 0.5", "validation images, last 220"} <= set(said)


def test_a_single_row_is_a_dot():
    image = drawn([(200, {"loss": 0.3, "validation_loss": 0.25, "validation_psnr": 22.4})])
    assert coloured(image, RED)[place(1, 0)] and coloured(image, RED)[place(1, 0.48, panel=1)]
    assert coloured(image, PALE_BLUE)[place(1, 1)]


def test_nothing_to_draw():
    image = drawn([(1, {"loss": math.nan, "validation_psnr": math.inf})])
    assert not coloured(plot(image), RED).any() and not coloured(plot(image, 1), RED).any()


def test_figures_that_are_missing_or_not_finite_are_left_out():
    rows = [(step, {"loss": 1 / step, "validation_psnr": float(step)}) for step in range(1, 50)]
    odd = [(step, {"loss": value}) for step, value in ((7, math.nan), (8, math.inf), (9, -math.inf))]
    assert numpy.array_equal(drawn([*rows[:9], *odd, (9, {}), *rows[9:]]), drawn(rows))


@pytest.mark.parametrize("outlier", [1e30, -1e30])
def test_an_outlier_does_not_flatten_the_rest(outlier):
    rows = [(step, {"loss": 0.1 + 0.2 * (step % 2)}) for step in range(1, 301)]
    image = drawn([*rows, (301, {"loss": outlier}), (302, {"loss": 0.1})])
    heights = coloured(plot(image)[:, :400], PALE_BLUE).any(1).nonzero()[0]
    assert numpy.ptp(heights) > 50


def test_a_short_log_is_shown_whole():
    image = drawn([(1, {"loss": 1.0}), (2, {"loss": 100.0}), (3, {"loss": 1.0})])
    assert coloured(image, PALE_BLUE)[place(2 / 3, 1)]


def test_a_million_rows():
    """Noise around a slope from 0.1 to 0.9; smoothed, it is the slope, and the axis goes from 0 to 1."""
    rows, made = 1_000_000, Curve()
    noise = numpy.random.default_rng(0).uniform(-0.2, 0.2, rows).tolist()
    for step in range(rows):
        made.add(step, {"loss": 0.1 + 0.8 * step / rows + noise[step]})
    image = numpy.asarray(made.draw()).astype(int)
    for share in (0.1, 0.5, 0.9):
        row, column = place(share, 0.1 + 0.8 * share)
        assert coloured(image, BLUE)[row - 1 : row + 2, column].any()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 101])
def test_thinning_keeps_the_mean(count):
    steps, values = numpy.arange(101.0), numpy.random.default_rng(count).random(101)
    x, y = thin((steps, values), count)
    assert len(x) == len(y) <= count and (numpy.diff(x) > 0).all()
    sizes = numpy.full(len(y), -(-101 // count))
    sizes[-1] = 101 - sizes[:-1].sum()
    assert (y * sizes).sum() == pytest.approx(values.sum()) and (x * sizes).sum() == pytest.approx(steps.sum())


@given(st.floats(-1e30, 1e30), st.floats(1e-5, 1e10))
def test_ticks_are_few_and_around_the_range(low, width):
    width *= max(1.0, abs(low))
    found = ticks(low, low + width)
    assert found[0] <= low + 1e-9 * width and found[-1] >= low + width * (1 - 1e-9) and 2 <= len(found) <= 8
    steps = numpy.diff(found)
    assert numpy.allclose(steps, steps[0]) and f"{steps[0]:.6e}"[:3] in ("1.0", "2.0", "5.0")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 0.1]))] * 3), min_size=1, max_size=5),
    st.integers(0, 10**7),
)
def test_any_figures_are_drawn(values, first):
    names = curve.SERIES
    rows = [
        (first + k, {name: each for name, each in zip(names, row, strict=True) if each is not None})
        for k, row in enumerate(values)
    ]
    assert drawn(rows).shape == (640, 960, 3)


def test_a_resumed_log_draws_the_whole_run(tmp_path):
    """From rows of which some are empty, cut short, or too late."""

    def rows(first, last):
        for step in range(first, last):
            validated = {"validation_loss": 0.25 / step, "validation_psnr": 20.0 + step} if step % 5 == 0 else {}
            yield step, {"loss": 0.5 / step, "seconds": 1.0, **validated}

    for name, stops in (("whole", (21,)), ("parts", (8, 21))):
        (tmp_path / name).mkdir()
        first = 1
        for stop in stops:
            with Log(tmp_path / name, first - 1, 20, bar=False) as log:
                for row in rows(first, stop):
                    log.write(*row)
            first = stop
            with open(tmp_path / name / "loss.csv", "a") as file:
                file.write(f"{stop},nan,7,7\n{stop + 1},0.")
    with Image.open(tmp_path / "whole" / "loss.png") as one, Image.open(tmp_path / "parts" / "loss.png") as other:
        assert numpy.array_equal(numpy.asarray(one), numpy.asarray(other))
    Log(tmp_path / "parts", 20, 20, bar=False)
    with open(tmp_path / "parts" / "loss.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 21))
