"""Temperatures survive: frames in centikelvin with the faults of real cameras, through the bundled weights."""

import numpy
import pytest
import torch

from deal.inference.enhancer import Enhancer
from deal.io.images import to_frame
from deal.io.scene import scene_range, scene_rows, without_dead_pixels
from deal.io.synthetic import thermal_scene

HEIGHT, WIDTH = 200, 256
TARGET = slice(90, 122), slice(60, 92)


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer()


@pytest.fixture
def random():
    return numpy.random.default_rng(0)


def clean() -> numpy.ndarray:
    """290 to 315 K, in centikelvin, [H, W]."""
    return 29000 + 2500 * thermal_scene(HEIGHT, WIDTH, seed=4)[0].numpy().astype(numpy.float64)


def striped(scene: numpy.ndarray, random: numpy.random.Generator) -> numpy.ndarray:
    return scene + random.normal(0, 120, WIDTH) + random.normal(0, 5, scene.shape)


def counts(values: numpy.ndarray) -> numpy.ndarray:
    return values.round().clip(0, 65535).astype(numpy.uint16)


def error(result: numpy.ndarray, expected: numpy.ndarray, of: numpy.ndarray | None = None) -> float:
    difference = result.astype(numpy.float64) - expected
    difference = difference if of is None else difference[of]
    return float(numpy.sqrt((difference**2).mean()))


@pytest.mark.parametrize("fault", ["telemetry", "dead pixels", "dead column", "hot spot", "bar"])
def test_a_fault_does_not_disturb_the_others(enhancer, random, fault):
    scene = clean()
    frame = striped(scene, random)
    without = error(enhancer(counts(frame)), scene)
    faulty = numpy.zeros(scene.shape, bool)
    if fault == "telemetry":
        faulty[:2] = True
        frame[:2] = random.integers(0, 65536, (2, WIDTH))
    elif fault == "dead pixels":
        faulty = random.random(scene.shape) < 0.005
        frame[faulty] = random.choice([0, 65535], faulty.sum())
    elif fault == "dead column":
        faulty[:, 77] = True
        frame[faulty] = 0
    elif fault == "hot spot":  # 3 % of the frame
        for each in (scene, frame):
            each[100:140, 100:138] += 20000
    else:
        faulty[30:90, -12:] = True
        frame[faulty] = 65535
    assert without < 30
    assert error(enhancer(counts(frame)), scene, ~faulty) <= 1.5 * without


def test_telemetry_is_not_touched(enhancer, random):
    frame = counts(striped(clean(), random))
    frame[:2], frame[-1] = random.integers(0, 65536, (2, WIDTH)), 0
    result = enhancer(frame)
    assert numpy.array_equal(result[:2], frame[:2]) and numpy.array_equal(result[-1], frame[-1])
    assert not numpy.array_equal(result[2:-1], frame[2:-1])


def test_a_cold_sky_is_no_telemetry(enhancer, random):
    scene = clean()
    scene[:30] = 23000
    assert error(enhancer(counts(striped(scene, random))), scene) < 30


def test_a_uniform_scene_stays_uniform(enhancer, random):
    frame = counts(striped(numpy.full((HEIGHT, WIDTH), 30000.0), random))
    assert frame.std() > 100
    assert enhancer(frame).std() < 25


def test_the_mean_stays(enhancer, random):
    frame = counts(striped(clean(), random))
    assert abs(enhancer(frame).mean() - frame.mean()) < 0.5


def test_a_target_keeps_its_temperature(enhancer):
    scene = clean()
    scene[TARGET] += 700
    frame = counts(scene)
    assert abs(enhancer(frame)[TARGET].mean() - frame[TARGET].mean()) <= 5  # 0.05 K


def test_which_images_are_radiometric(enhancer, random):
    frame = counts(striped(clean(), random))
    chosen = {each: Enhancer(radiometric=each) for each in (True, False)}
    assert numpy.array_equal(enhancer(frame), chosen[True](frame))
    assert not numpy.array_equal(chosen[True](frame), chosen[False](frame))
    degrees = (frame / 100 - 273.15).astype(numpy.float32)
    assert numpy.array_equal(enhancer(degrees), chosen[True](degrees))
    eight = (thermal_scene(HEIGHT, WIDTH, seed=4)[0] * 150).to(torch.uint8).numpy()
    assert numpy.array_equal(enhancer(eight), chosen[False](eight))
    with pytest.raises(ValueError, match="radiometric must be one of None, False, True; got 'yes'"):
        Enhancer(radiometric="yes")


def test_enlarged_frames_keep_telemetry_in_place(random):
    frame = counts(striped(clean(), random))
    frame[:2] = 0
    assert Enhancer(scale=2)(frame).shape == (2 * HEIGHT, 2 * WIDTH)


def test_range_is_that_of_percentiles_where_nothing_is_wrong():
    frame = to_frame(numpy.random.default_rng(0).integers(29000, 31000, (HEIGHT, WIDTH), numpy.uint16))
    assert (frame.low, frame.high) == tuple(numpy.percentile(frame.pixels, (0.1, 99.9)))


def test_a_frame_with_one_value():
    pixels = torch.full((20, 30), 7.0)
    assert scene_range(pixels) == (7.0, 8.0)
    assert scene_rows(pixels) == slice(0, 20)
    assert torch.equal(without_dead_pixels(pixels), pixels)
