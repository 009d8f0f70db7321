"""Each step of the camera protocol, alone, against its definition in numpy."""

import math

import numpy
import pytest
import torch

from deal.evaluate.camera_protocol import HARD, NORMAL, Ranges, degrade
from deal.io.synthetic import thermal_scene

NOTHING = Ranges((0, 0), (0, 0), (0, 0), (1, 1), (0, 0), (0, 0), (0, 0), (0, 0))
X = (thermal_scene(48, 61, seed=1)[None] * 255).floor() / 255  # [1, 1, H, W]
COUNTS = (X[0, 0].double().numpy() * 255).round()


def found(ranges: Ranges, seed: int = 0) -> numpy.ndarray:
    return 255 * degrade(X.double(), ranges, torch.Generator().manual_seed(seed))[0, 0].numpy()


def whole(counts: numpy.ndarray) -> numpy.ndarray:
    return numpy.floor(numpy.clip(counts, 0, 255))


def same(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    """Whether counts agree, but for one where rounding decides whether a value has reached the next."""
    return bool((abs(a - b) < 1e-6).mean() > 0.999 and abs(a - b).max() < 1 + 1e-6)


def test_nothing():
    assert same(found(NOTHING), COUNTS)


def test_tone():
    assert same(found(NOTHING._replace(contrast=(-0.5, -0.5), brightness=(0.3, 0.3))), whole(COUNTS * 0.5 + 76.5))
    assert found(NOTHING._replace(brightness=(0.9, 0.9))).max() == pytest.approx(255)  # clipped


def test_blur():
    offsets = numpy.arange(-5, 6)
    taps = numpy.exp(-(offsets**2) / (2 * 1.7**2))
    window = numpy.outer(taps, taps) / taps.sum() ** 2
    padded = numpy.pad(COUNTS, 5, mode="reflect")
    expected = (numpy.lib.stride_tricks.sliding_window_view(padded, (11, 11)) * window).sum((2, 3))
    assert same(found(NOTHING._replace(radius=(5, 5), deviation=(1.7, 1.7))), whole(expected))


def test_glow_is_round_its_point_or_away_from_it():
    kinds = set()
    for seed in range(8):
        added = found(NOTHING._replace(glow=(60, 60)), seed) - COUNTS
        kept = COUNTS < 190  # elsewhere the sum may be clipped
        rows, columns = numpy.indices(COUNTS.shape)
        errors = {}
        for near in (True, False):
            for point in numpy.ndindex(COUNTS.shape):
                distance = numpy.hypot(rows - point[0], columns - point[1])
                share = numpy.cos(distance / distance.max() * math.pi / 2) ** 4
                expected = numpy.floor(60 * (share if near else 1 - share))
                errors[near, point] = abs(added - expected)[kept].max()
        near, _ = min(errors, key=errors.get)
        assert min(errors.values()) < 1 + 1e-6
        kinds.add(near)
    assert kinds == {True, False}


def test_stripes_are_of_columns_or_of_rows():
    kinds = set()
    for seed in range(8):
        flat = torch.full((1, 1, 400, 500), 100 / 255, dtype=torch.float64)
        y = 255 * degrade(flat, NOTHING._replace(gain=(0.05, 0.05)), torch.Generator().manual_seed(seed))[0, 0]
        axis = 0 if (y == y[:1]).all() else 1
        assert (y == y.narrow(axis, 0, 1)).all()
        line = y.select(axis, 0)
        assert abs(line.std() - 5) < 1 and abs(line.mean() - 99.5) < 1
        kinds.add(axis)
    assert kinds == {0, 1}


def test_offsets_and_noise_have_their_deviations():
    flat = torch.full((1, 1, 400, 500), 100 / 255, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    lines = 255 * degrade(flat, NOTHING._replace(offset=(4, 4)), random)
    noise = 255 * degrade(flat, NOTHING._replace(noise=(64, 64)), random)
    assert abs(torch.unique(lines, dim=2).std() - 4) < 0.6 or abs(torch.unique(lines, dim=3).std() - 4) < 0.6
    assert abs(noise.std() - 8) < 0.1 and abs(noise.mean() - 99.5) < 0.1


@pytest.mark.parametrize("ranges", [HARD, NORMAL])
def test_all_together(ranges):
    y = degrade(X, ranges, torch.Generator().manual_seed(3))
    assert y.dtype == X.dtype and y.shape == X.shape
    assert y.min() >= 0 and y.max() <= 1 and (y * 255 - (y * 255).round()).abs().max() < 1e-4
    assert torch.equal(y, degrade(X, ranges, torch.Generator().manual_seed(3)))
    assert (y - X).abs().mean() > 0.03
