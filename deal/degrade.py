"""Images degraded on purpose, with operations of `deal_kernels.degradation` one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from deal.data import Location, Window, read_frame
from deal.files import Made
from deal_kernels.degradation import apply, sample_params
from deal_kernels.degradation.arguments import check_names
from deal_kernels.degradation.names import RANDOM
from deal_kernels.lif.arguments import number


class Degrader:
    """Degrades images [B, C, H, W] in [0, 1].

    Args:
        ops: names of operations, applied in their order, see `deal_kernels.degradation`.
        deviation: of the random ones; None draws it, too.
    """

    def __init__(self, ops: Sequence[str], *, deviation: float | None = None) -> None:
        self.ops = check_names(ops)
        self.deviation = None if deviation is None else number("deviation", deviation)

    def __call__(self, x: Tensor, seed: int = 0) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        for name in self.ops:
            ranges = {name: (self.deviation, self.deviation)} if name in RANDOM and self.deviation is not None else {}
            values = sample_params([name], x, 1, generator=random, **ranges).get(name)
            x = apply(name, x, None if values is None else values[:, 0])
        return x


def degrade_file(degrader: Degrader, source: Location, seed: int, window: Window = "auto") -> Made:
    """What becomes of an image file, with its bits."""
    frame = read_frame(source, window)
    x = frame.tensor(3 if frame.pixels.ndim == 3 else 1)
    values = (frame.low + (frame.high - frame.low) * degrader(x[None], seed)[0]).permute(1, 2, 0).numpy()
    if frame.pixels.dtype != numpy.float32:
        values = values.round().clip(0, numpy.iinfo(frame.pixels.dtype).max)
    pixels = numpy.ascontiguousarray(values.astype(frame.pixels.dtype).reshape(frame.pixels.shape))
    height, width = pixels.shape[:2]
    notes = {"height": height, "width": width, "type": str(pixels.dtype), "black": frame.low, "white": frame.high}
    return Made(pixels, notes)
