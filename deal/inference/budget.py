"""The largest bundled network that is fast enough, and how long frames take.

>>> import numpy
>>> from deal.io.images import to_frame
>>> counts = numpy.random.default_rng(0).integers(7000, 9000, (48, 64), numpy.uint16)
>>> choice = largest_within(60_000, to_frame(counts))
>>> choice.name, choice.holds, choice.enhancer(counts).shape
('deal-u', True, (48, 64))
"""

from __future__ import annotations

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.io.images import Frame
from deal.model.pretrained import bundled_networks
from deal_kernels._common.checks import number

WARM, RUNS = 2, 10  # runs of a network on the frame: those that are not timed, and those that are
LATE = 1  # of the runs may exceed the budget, and no more: every fourth frame of a sequence takes longer than others
RESOLUTION = 1.01  # ratio of the latencies that count as equal
SHORTEST = 1e-6  # seconds

Clock = Callable[[], float]  # in seconds


class Choice(NamedTuple):
    """A network, and how fast it is."""

    name: str
    enhancer: Enhancer
    milliseconds: float  # that nine of ten frames take at most
    holds: bool  # the budget


def largest_within(
    milliseconds: float, frame: Frame, make: Callable[[str], Enhancer] = Enhancer, *, sequence: bool = False,
    names: Iterable[str] | None = None, clock: Clock = time.perf_counter,
) -> Choice:  # fmt: skip
    """The largest network that enhances nine of ten frames such as this one in time; the fastest one if none does.

    Args:
        milliseconds: the time for a frame.
        frame: the networks are timed on it, each after two runs without a clock.
        make: an enhancer from the name of a network.
        sequence: whether frames are enhanced one after the other by `deal.inference.sequence.Sequence`.
        names: the networks, the largest first; None takes the bundled ones.
        clock: the time in seconds.
    """
    if number("milliseconds", milliseconds) <= 0:
        raise ValueError(f"milliseconds must be more than 0; got {milliseconds}")
    tried = []
    for name in bundled_networks() if names is None else names:
        enhancer = make(name)
        run = Sequence(enhancer).next_frame if sequence else enhancer.enhance_frame
        taken = 1000 * _usual_time(run, frame, milliseconds / 1000, clock)
        tried.append(Choice(name, enhancer, taken, taken <= milliseconds))
        if tried[-1].holds:
            return tried[-1]
    if not tried:
        raise ValueError("names must have at least one network; got none")
    return min(tried, key=lambda choice: choice.milliseconds)


def _usual_time(run: Callable[[Frame], object], frame: Frame, limit: float, clock: Clock) -> float:
    """The seconds that all runs but the slowest take at most. When too many exceed the limit, no more are made."""
    for _ in range(WARM):
        run(frame)
    taken: list[float] = []
    while len(taken) < RUNS and sum(each > limit for each in taken) <= LATE:
        begin = clock()
        run(frame)
        taken.append(clock() - begin)
    return sorted(taken)[-1 - LATE]


class Latencies:
    """How long frames take, in memory that does not grow with their number: percentiles are exact to one in a hundred.

    >>> latencies = Latencies(clock=iter([0.0, 0.03, 0.1, 0.15]).__next__)
    >>> for frame in ("first", "second"):
    ...     with latencies.frame():
    ...         pass
    >>> print(latencies)
    2 frames, 13.3 frames a second; latency 30 ms (50 %), 50 ms (90 %), 50 ms (99 %), 50 ms (largest)
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.count, self.largest = 0, 0.0
        self._clock = clock
        self._begin = self._end = 0.0  # of all frames
        self._found: collections.Counter[int] = collections.Counter()  # by the logarithm

    @contextlib.contextmanager
    def frame(self) -> Iterator[None]:
        """Times the block, unless it raises."""
        begin = self._clock()
        yield
        self._end = self._clock()
        if not self.count:
            self._begin = begin
        self.count += 1
        taken = self._end - begin
        self.largest = max(self.largest, taken)
        self._found[round(math.log(max(taken, SHORTEST), RESOLUTION))] += 1

    def percentile(self, percent: float) -> float:
        """The seconds that so many percent of the frames take at most."""
        rank, seen = math.ceil(percent / 100 * self.count), 0
        for logarithm, count in sorted(self._found.items()):
            seen += count
            if seen >= rank:
                return min(float(RESOLUTION**logarithm), self.largest)
        raise ValueError("there are no latencies of no frames")

    @property
    def rate(self) -> float:
        """Frames a second, from the begin of the first to the end of the last."""
        return self.count / max(self._end - self._begin, SHORTEST)

    def __str__(self) -> str:
        if not self.count:
            return "0 frames"
        found = [(self.percentile(percent), f"{percent} %") for percent in (50, 90, 99)]
        shown = ", ".join(f"{in_milliseconds(taken)} ({name})" for taken, name in [*found, (self.largest, "largest")])
        frames = "1 frame" if self.count == 1 else f"{self.count} frames"
        return f"{frames}, {self.rate:.1f} frames a second; latency {shown}"


def in_milliseconds(seconds: float) -> str:
    """
    >>> in_milliseconds(0.0012345), in_milliseconds(1.2345)
    ('1.2 ms', '1234 ms')
    """
    value = 1000 * seconds
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
