"""Frames of one camera, one after the other."""

import math

import numpy
import pytest

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.io.images import UnusableImage
from deal.io.synthetic import SyntheticScenes
from deal.model.parts import Parts

HEIGHT, WIDTH = 96, 128


def pan(count, *, columns=200, seed=0):
    """Counts of a camera that pans over a scene, clean and with a pattern of columns."""
    random = numpy.random.default_rng(seed)
    scene = 7000 + 4000 * SyntheticScenes(1, HEIGHT + count, WIDTH + 2 * count, seed=seed)[0][0].numpy()
    clean = numpy.stack([scene[k : k + HEIGHT, 2 * k : 2 * k + WIDTH] for k in range(count)])
    return clean, (clean + columns * random.standard_normal(WIDTH)).round().astype(numpy.uint16)


def error(counts, clean):
    """The deviation of the error, as a mean over frames: the mean of a pattern cannot be known."""
    return (counts.astype(float) - clean).std((1, 2)).mean()


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer("deal-u", device="cpu")


def test_counts_of_a_sequence(enhancer):
    """While the window moves with the scene, the pattern stays in counts."""
    clean, degraded = pan(24)
    single = numpy.stack([enhancer(frame) for frame in degraded])
    steady = Sequence(enhancer)
    found = numpy.stack([steady(frame) for frame in degraded])
    assert found.dtype == numpy.uint16
    assert error(found[10:], clean[10:]) < 0.8 * error(single[10:], clean[10:])
    assert numpy.array_equal(Sequence(enhancer)(degraded), found)  # a stack is a sequence


def test_the_first_frame_is_that_of_a_single_image(enhancer):
    _, degraded = pan(1)
    assert numpy.array_equal(Sequence(enhancer)(degraded[0]), enhancer(degraded[0]))


def test_the_window_moves_slowly_and_jumps_to_another_scene(enhancer):
    _, degraded = pan(3)
    sequence = Sequence(enhancer)
    sequence(degraded[0], (7000, 11000))
    sequence(degraded[1], (7000, 12000))
    assert (sequence.window.low, sequence.window.high) == (7000, 11500)
    sequence(degraded[2], (20000, 21000))
    assert (sequence.window.low, sequence.window.high) == (20000, 21000)


def test_no_flicker(enhancer):
    """A hot object that comes and goes changes the range of each frame; the rest of the result stays as it is."""
    _, degraded = pan(1)
    frames = numpy.repeat(degraded, 24, 0)
    frames[::2, 30:36, 30:36] = 30000
    sequence = Sequence(enhancer)
    means = [sequence(frame)[50:].mean() for frame in frames]
    assert numpy.std(means[8:]) < 2


def test_a_frame_that_cannot_be_enhanced_spoils_no_other(enhancer, monkeypatch):
    _, degraded = pan(3)
    expected = Sequence(enhancer)(degraded[::2])
    sequence = Sequence(enhancer)
    sequence(degraded[0])
    separate = enhancer.separate
    monkeypatch.setattr(
        enhancer, "separate", lambda x, **given: Parts(*(math.nan * part for part in separate(x, **given)))
    )
    with pytest.raises(UnusableImage, match="not finite"):
        sequence(degraded[0])
    monkeypatch.undo()
    assert numpy.abs(sequence(degraded[2]).astype(int) - expected[1]).max() <= 2  # the window has seen one frame more
