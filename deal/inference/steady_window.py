"""The values that mean black and white, as a moving average over the frames of a sequence.

>>> import numpy
>>> window, pixels = SteadyWindow(), numpy.zeros((2, 3), numpy.uint16)
>>> [window.of(Frame(pixels, 7000, high)).high for high in (9000, 10000, 50000)]
[9000.0, 9500.0, 50000.0]
"""

from __future__ import annotations

from deal.inference.fixed_pattern import HORIZON
from deal.io.images import Frame


class SteadyWindow:
    """The window of one sequence. It begins again where the scene is another one."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self._count = 0  # frames that these two are averages of

    def of(self, frame: Frame) -> Frame:
        """The next frame, in the steady window."""
        span = self.high - self.low
        if max(abs(frame.low - self.low), abs(frame.high - self.high)) > span / 2:  # another scene
            self._count = 0
        self._count += 1
        share = max(1 / self._count, 1 / HORIZON)
        self.low += share * (frame.low - self.low)
        self.high += share * (frame.high - self.high)
        return frame._replace(low=self.low, high=self.high)
