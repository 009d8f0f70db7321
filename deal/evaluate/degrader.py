"""Degradation of images by named operations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from deal.io.images import Frame
from deal.model.device import choose_device
from deal_kernels._common.checks import number
from deal_kernels.degradation import apply, sample_params
from deal_kernels.degradation.arguments import check_names
from deal_kernels.degradation.names import RANDOM


class Degrader:
    """Degrades images [B, C, H, W] in [0, 1].

    Args:
        ops: names of operations, applied in this order, see `deal_kernels.degradation`.
        deviation: standard deviation or strength of random operations, see `sample_params`; None draws it at random.
        device: of `degrade_frame`: "cpu", "cuda", ... or "auto".
    """

    def __init__(
        self, ops: Sequence[str], *, deviation: float | None = None, device: str | torch.device = "cpu"
    ) -> None:  # fmt: skip
        self.device = choose_device(device)
        self.ops = check_names(ops)
        self.deviation = None if deviation is None else number("deviation", deviation)

    def __call__(self, x: Tensor, seed: int = 0) -> Tensor:
        """The degraded images; the same seed gives the same random values."""
        random = torch.Generator().manual_seed(seed)
        for name in self.ops:
            ranges = {name: (self.deviation, self.deviation)} if name in RANDOM and self.deviation is not None else {}
            values = sample_params([name], x, 1, generator=random, **ranges).get(name)
            x = apply(name, x, None if values is None else values[:, 0])
        return x

    def degrade_frame(self, frame: Frame, seed: int) -> numpy.ndarray:
        """The degraded pixels, of the dtype of the frame."""
        x = frame.tensor(3 if frame.pixels.ndim == 3 else 1)
        return frame.to_pixels(frame.low + (frame.high - frame.low) * self(x[None].to(self.device), seed)[0].cpu())
