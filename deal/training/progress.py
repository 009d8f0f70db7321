"""The progress bar of a training run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {rate_noinv_fmt}, {left} left{postfix}"
SHOWN = {"loss": ("loss", "{:.4g}"), "validation_psnr": ("PSNR", "{:.2f} dB")}  # label and format by figure


class ProgressBar(tqdm):  # type: ignore[type-arg]
    """A bar with steps per second, the remaining time, and the last loss and PSNR.

    Args:
        step: the step that the run starts from.
        steps: the last step.
        seconds: after which the run ends earlier.
        visible: if standard error is not a terminal, a visible bar is a line every 30 seconds.
    """

    def __init__(self, step: int, steps: int, *, seconds: float = math.inf, visible: bool = True) -> None:
        self._end, self._texts = time.monotonic() + seconds, dict[str, str]()
        super().__init__(
            total=steps, initial=step, disable=not visible, unit=" steps", bar_format=FORMAT, smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else 30.0, dynamic_ncols=True,
        )  # fmt: skip

    @property
    def format_dict(self) -> dict[str, Any]:
        found = dict(super().format_dict)
        rate = found["rate"] or (found["n"] - found["initial"]) / max(found["elapsed"], 1e-9)
        steps = (found["total"] - found["n"]) / rate if rate else math.inf
        left = max(0.0, min(steps, self._end - time.monotonic()))
        return found | {"left": self.format_interval(left) if math.isfinite(left) else "?"}

    def show(self, values: Mapping[str, float]) -> None:
        """Shows the figures that are in `SHOWN`, until newer ones come."""
        self._texts |= {label: text.format(values[name]) for name, (label, text) in SHOWN.items() if name in values}
        self.set_postfix(self._texts, refresh=False)
