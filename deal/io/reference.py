"""The fixed pattern of a camera, from frames of a target that has one temperature, such as its shutter.

>>> frames = [numpy.array([[7000, 7010], [6990, 7000]], numpy.uint16)]
>>> pattern = Reference.of(frames)
>>> pattern.subtracted_from(frames[0] + numpy.array([[0, 0], [500, 500]], numpy.uint16))
array([[7000, 7000],
       [7500, 7500]], dtype=uint16)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch

from deal.io import values
from deal.io.scene import scene_rows


class Reference(NamedTuple):
    """How far the pixels of a camera are from their mean, when all see the same."""

    offsets: numpy.ndarray  # [H, W] or [H, W, 3], float64, with the mean 0; 0 in rows of telemetry
    dtype: numpy.dtype[Any]  # of the frames

    @classmethod
    def of(cls, frames: Sequence[numpy.ndarray]) -> Reference:
        """The pattern in frames of one size and type: more of them average more noise away."""
        if not len(frames):
            raise ValueError("a reference must have at least one frame; got none")
        first = frames[0]
        total = numpy.zeros(first.shape)
        for frame in frames:
            if (frame.shape, frame.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"the frames of a reference must be alike; got {_kind(first.shape, first.dtype)} and "
                    f"{_kind(frame.shape, frame.dtype)}"
                )
            total += frame
        mean = total / len(frames)
        if not numpy.isfinite(mean).all():
            raise ValueError("a reference must have finite values")
        rows = scene_rows(torch.from_numpy(mean if mean.ndim == 2 else mean.transpose(2, 0, 1).copy()))
        offsets = numpy.zeros_like(mean)
        offsets[rows] = mean[rows] - mean[rows].mean((0, 1))
        return cls(offsets, first.dtype)

    def subtracted_from(self, pixels: numpy.ndarray, name: str = "the image") -> numpy.ndarray:
        """Pixels without the pattern, of the same type; their mean stays."""
        if (pixels.shape, pixels.dtype) != (self.offsets.shape, self.dtype):
            ours = _kind(self.offsets.shape, self.dtype)
            raise values.UnusableImage(f"{name} has {_kind(pixels.shape, pixels.dtype)}, and the reference {ours}")
        return values.within(pixels - self.offsets, self.dtype)


def _kind(shape: tuple[int, ...], dtype: numpy.dtype[Any]) -> str:
    return f"{' x '.join(map(str, shape))} pixels of {dtype}"
