"""The largest network that is fast enough, and how long frames take."""

import re
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image

from deal import cli
from deal.inference import budget
from deal.inference.budget import LATE, RUNS, WARM, Latencies, largest_within
from deal.io.images import to_frame
from deal.model.pretrained import bundled_networks

FRAME = to_frame(numpy.arange(7000, 7000 + 48 * 64, dtype=numpy.uint16).reshape(48, 64))


class Clock:
    """A clock that only networks move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Network:
    """An enhancer that takes the given times, in milliseconds, and the last of them ever after."""

    reference = None

    def __init__(self, clock, times):
        self.clock, self.times, self.runs = clock, times, 0

    def enhance_frame(self, frame, pattern=None):
        self.clock.now += self.times[min(self.runs, len(self.times) - 1)] / 1000
        self.runs += 1
        return frame.pixels


def choose(milliseconds, times, **more):
    clock = Clock()
    networks = {name: Network(clock, each if isinstance(each, list) else [each]) for name, each in times.items()}
    found = largest_within(milliseconds, FRAME, networks.__getitem__, names=times, clock=clock, **more)
    assert found.enhancer is networks[found.name]
    return found, {name: network.runs for name, network in networks.items()}


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(
    ("limit", "name", "taken", "holds"),
    [(90, "large", 80, True), (80, "large", 80, True), (79, "middle", 40, True), (20, "small", 25, False)],
)
def test_choice(limit, name, taken, holds, sequence):
    found, runs = choose(limit + 1e-6, {"large": 80, "middle": 40, "small": 25}, sequence=sequence)
    assert (found.name, found.holds) == (name, holds) and found.milliseconds == pytest.approx(taken)
    assert runs[name] == (WARM + RUNS if holds else WARM + LATE + 1)


def test_the_fastest_need_not_be_the_smallest():
    assert choose(10, {"large": 30, "small": 40})[0].name == "large"


def test_no_time_is_lost_on_networks_that_are_too_slow_or_not_needed():
    _, runs = choose(40, {"large": 80, "middle": 30, "small": 10})
    assert runs == {"large": WARM + LATE + 1, "middle": WARM + RUNS, "small": 0}


def test_warm_runs_do_not_count_and_one_may_be_late():
    warm = [500] * WARM
    assert choose(40, {"large": [*warm, 30, 500, 30], "small": 5})[0].name == "large"
    assert choose(40, {"large": [*warm, 30, 500, 30, 500, 30], "small": 5})[0].name == "small"
    assert choose(40, {"large": [*warm, *[30] * (RUNS - 2), 50, 50], "small": 5})[0].name == "small"


@pytest.mark.parametrize(
    ("milliseconds", "names", "error", "message"),
    [
        (0, ("a",), ValueError, "milliseconds must be more than 0; got 0"),
        (float("nan"), ("a",), ValueError, "milliseconds must be finite"),
        ("40", ("a",), TypeError, "milliseconds must be a number; got str"),
        (40, (), ValueError, "names must have at least one network"),
    ],
)
def test_wrong_arguments(milliseconds, names, error, message):
    with pytest.raises(error, match=message):
        largest_within(milliseconds, FRAME, names=names)


def test_bundled_networks():
    assert bundled_networks() == ["deal-u", "deal-u-small"]


def test_percentiles():
    """Of a million latencies they are near those of numpy, and memory does not grow."""
    clock, latencies = Clock(), None
    latencies = Latencies(clock)
    taken = numpy.random.default_rng(0).lognormal(-3.5, 0.4, 20_000)
    for seconds in taken:
        clock.now += 0.001  # between frames
        with latencies.frame():
            clock.now += seconds
    for percent in (50, 90, 99):
        assert latencies.percentile(percent) == pytest.approx(numpy.percentile(taken, percent), rel=0.01)
    assert latencies.largest == pytest.approx(taken.max()) and latencies.count == len(taken)
    assert latencies.rate == pytest.approx(1 / (taken.mean() + 0.001), rel=1e-3)
    assert len(latencies._found) < 500


def test_a_frame_that_fails_has_no_latency():
    latencies = Latencies(Clock())
    with pytest.raises(ValueError, match="damaged"), latencies.frame():
        raise ValueError("damaged")
    assert latencies.count == 0 and str(latencies) == "0 frames"


def enhance(*arguments):
    return cli.main(["enhance", *arguments, "--threads", str(torch.get_num_threads())])


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_text("no image")
    for name in ("b.png", "c.png"):
        Image.fromarray(FRAME.pixels).save(folder / name)
    return folder


def test_files(images, tmp_path, capsys):
    """The first readable image decides. The results are those of the network that is named."""
    arguments = ("-i", str(images), "--keep-going")
    assert enhance(*arguments, "-o", str(tmp_path / "out"), "--budget", "60000") == 1
    said = capsys.readouterr().err
    assert re.search(r"^deal-u takes [\d.]+ ms a frame of 64 x 48, within 60000 ms$", said, re.MULTILINE)
    assert re.search(r"^2 frames, [\d.]+ frames a second; latency .* \(50 %\), .* \(largest\)$", said, re.MULTILINE)
    assert enhance(*arguments, "-o", str(tmp_path / "named"), "-m", "deal-u", "--quiet") == 1
    assert (tmp_path / "out" / "b.png").read_bytes() == (tmp_path / "named" / "b.png").read_bytes()


def test_a_budget_that_nothing_holds_in_a_pipe():
    """A real run: the fastest network is taken, with a warning, even if nothing else is said."""
    given = FRAME.pixels.tobytes()
    call = [sys.executable, "-m", "deal", "enhance", "--raw", "64x48:y16le", "-i", "-", "-o", "-", "--budget", "0.01"]
    done = subprocess.run([*call, "--quiet"], input=given * 2, capture_output=True, check=True, timeout=120)
    said = done.stderr.decode()
    assert len(done.stdout) == 2 * len(given) and said.count("\n") == 1
    assert re.match(r"deal: warning: no bundled network holds 0\.01 ms: deal-u(-small)?, the fastest, takes ", said)


def test_no_image_can_be_read(images, tmp_path, capsys):
    arguments = ("-i", str(images / "a.png"), "-o", str(tmp_path / "out"), "--budget", "40")
    assert enhance(*arguments, "--keep-going") == 1
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "40", "-m", "deal-u"), "--budget picks a network, and --model names one"),
        (("--budget", "0"), "budget must be more than 0 milliseconds; got 0"),
        (("--budget", "-3"), "budget must be more than 0 milliseconds; got -3"),
    ],
)
def test_wrong_options(options, message, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(budget, "largest_within", None)  # it is not reached
    assert enhance("-i", str(images), "-o", str(tmp_path / "out"), *options) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
