"""Enhancement of the frames of one camera in their order.

>>> from deal.inference.enhancer import Enhancer
>>> from deal.model.separation import DealU
>>> sequence = Sequence(Enhancer(DealU("deal-u-small")))
>>> counts = numpy.random.default_rng(0).integers(7000, 9000, (3, 40, 60), numpy.uint16)
>>> enhanced = [sequence(frame) for frame in counts]
>>> enhanced[2].shape, enhanced[2].dtype
((40, 60), dtype('uint16'))
"""

from __future__ import annotations

from typing import Any

import numpy

from deal.inference.enhancer import Enhancer
from deal.inference.fixed_pattern import FixedPattern
from deal.inference.kinds import AnyImage, unpack
from deal.inference.steady_window import SteadyWindow
from deal.io.images import Frame, Window


class Sequence:
    """Enhances frames one after the other, with what it knows from those before.

    What a camera adds to all its frames is found better from several of them, and the values that mean black and white
    are moving averages: results do not flicker. After a shutter, the pattern is learnt again.

    Args:
        enhancer: its settings hold for all frames.
    """

    def __init__(self, enhancer: Enhancer) -> None:
        self.enhancer, self.pattern, self.window = enhancer, FixedPattern(), SteadyWindow()

    def __call__(self, image: AnyImage, window: Window = "auto") -> Any:
        """Enhances the next frame, or the frames of a stack one after the other; as of `Enhancer`."""
        unpacked = unpack(image, window, self.enhancer.reference)
        return unpacked.image([self.next_frame(frame) for frame in unpacked.frames])

    def next_frame(self, frame: Frame) -> numpy.ndarray:
        """The enhanced pixels of a frame."""
        return self.enhancer.enhance_frame(self.window.of(frame), self.pattern)
