"""The parts of the frames of one camera, averaged over time: what a camera adds is the same in all of them.

Patterns of columns and rows, shading and tone are means over the frames. So is the detail, whose mean has the fixed
noise of the pixels; a share of the difference from the mean is added for each frame. It is noise where it is as large
as the differences between frames say, and else structure of the scene that was taken for noise.

>>> parts = Parts(*(torch.zeros(1, 1, 16, 24) for _ in range(4)), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
>>> pattern = FixedPattern()
>>> steady = pattern.update(torch.rand(1, 1, 16, 24), parts._replace(columns=torch.full((1, 1, 16, 24), 0.1)))
>>> steady = pattern.update(torch.rand(1, 1, 16, 24), parts._replace(columns=torch.full((1, 1, 16, 24), 0.3)))
>>> round(steady.columns.mean().item(), 3)
0.2
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from deal.model.parts import SUBTRACTED, Parts
from deal.model.strips import noise_of

HORIZON = 32  # frames that a mean remembers
SETTLED = 8  # frames after which lines and shading are found in every fourth frame only
EVERY = 4
PATCH = 8  # side of the patches in which differences of the detail are compared with the noise
CHANGED = 0.5  # a frame with less of the pattern than this share of what is usual has another pattern
WEAK = 0.2  # of a pattern that is usually less than this share of what is found in a frame, no frame tells that


class FixedPattern:
    """The means of the parts of a sequence of frames [1, C, H, W].

    They begin again when the pattern changes, as at a shutter, and when the size of the frames does.
    """

    def __init__(self) -> None:
        self._unit = 1.0  # of the frames
        self._restart()

    def _restart(self) -> None:
        self.count = 0
        self._mean: Parts | None = None
        self._usual: float | None = None  # share of the pattern that frames have
        self._previous: Tensor | None = None
        self._noise = 0.0  # variance of the noise of single frames
        self._compared = 0  # pairs of frames that tell it

    def measure_in(self, unit: float) -> None:
        """From now on frames are given in this unit, such as the counts between black and white."""
        factor = self._unit / unit
        if self._mean is not None and self._previous is not None and factor != 1:
            self._mean = self._mean._replace(**{name: factor * getattr(self._mean, name) for name in SUBTRACTED})
            self._previous, self._noise = factor * self._previous, factor**2 * self._noise
        self._unit = unit

    def lines(self, x: Tensor) -> tuple[Tensor, ...] | None:
        """Columns, rows and shading, where they need not be found in the next frame, x."""
        if self._mean is None or self._mean.detail.shape != x.shape or self.count < SETTLED or self.count % EVERY == 0:
            return None
        return self._mean.columns, self._mean.rows, self._mean.shading

    def update(self, x: Tensor, parts: Parts) -> Parts:
        """The parts of the frame x, in which single frames count little. `parts` were found in x, with `lines(x)`."""
        if self._mean is not None and self.lines(x) is None and self._has_changed(parts):
            self._restart()
        self.count += 1
        share = max(1 / self.count, 1 / HORIZON)
        if self._mean is None:
            self._mean = parts
        else:
            self._mean = Parts(*(mean.lerp(new, share) for mean, new in zip(self._mean, parts, strict=True)))
        self._compare(x)
        detail = self._mean.detail + self._noise_in(parts.detail - self._mean.detail)
        return self._mean._replace(detail=detail)

    def _has_changed(self, parts: Parts) -> bool:
        assert self._mean is not None
        if parts.detail.shape != self._mean.detail.shape:
            return True
        found, mean = (each.columns + each.rows + each.detail for each in (parts, self._mean))
        found, mean = found - found.mean(), mean - mean.mean()
        share = ((found * mean).sum() / mean.square().sum().clamp_min(torch.finfo(mean.dtype).tiny)).item()
        if self._usual is not None and self._usual > WEAK and share < CHANGED * self._usual:
            return True
        self._usual = share if self._usual is None else self._usual + (share - self._usual) / HORIZON
        return False

    def _compare(self, x: Tensor) -> None:
        """Learns the noise of single frames from the difference between two, which has no fixed pattern."""
        if self._previous is not None:
            self._compared += 1
            difference = x - self._previous
            variance = 0.25 * noise_of(difference.flatten(0, 1)).square().mean().item()
            self._noise += (variance - self._noise) * max(1 / self._compared, 1 / HORIZON)
        self._previous = x

    def _noise_in(self, difference: Tensor) -> Tensor:
        """What of a difference between a frame's detail and the mean is noise, after Wiener."""
        power = functional.avg_pool2d(difference.square(), PATCH, ceil_mode=True, count_include_pad=False)
        share = (self._noise / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp_max(1)
        return difference * functional.interpolate(share, difference.shape[2:], mode="bilinear")
