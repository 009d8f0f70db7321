"""Detection of a training run that has diverged or collapsed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

ADVICE = "Train again with a lower learning_rate, with gradient_clip=1, or with precision='fp32'"


class Collapsed(RuntimeError):
    """The network has stopped enhancing."""


class CollapseDetector:
    """Raises when the averages of a run show that training has failed.

    Args:
        window: steps that a collapse must last; None checks only that losses are finite.
        comparable: whether "loss" and "fidelity" are the same loss, of the restored and of the degraded images.

    >>> CollapseDetector(None).check(7, {"loss": float("nan")})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FloatingPointError: the loss is nan at or shortly before step 7: ...
    """

    FLAT = 0.01  # share of the contrast of clean images
    WORSE, MARGIN = 2.0, 0.5  # factor and offset of the loss over that of the degraded images

    def __init__(self, window: int | None, comparable: bool = True) -> None:
        self.window, self.comparable = window, comparable
        self.recent: deque[tuple[int, Mapping[str, float]]] = deque()

    def check(self, step: int, averages: Mapping[str, float], since: int | None = None) -> None:
        """Checks the averages of the steps from `since`, the step of the last check, to `step`.

        Raises:
            FloatingPointError: if a loss is not finite.
            Collapsed: if the network has not enhanced for `window` steps.
        """
        for name in ("loss", "fidelity"):
            if not math.isfinite(averages.get(name, 0.0)):
                raise FloatingPointError(
                    f"the {name} is {averages[name]} at or shortly before step {step}: the checkpoints are from before "
                    f"and are valid. {ADVICE}. Images with values that are not finite are another possible cause"
                )
        if self.window is None:
            return
        self.recent.append((step if since is None else since, averages))
        while len(self.recent) > 1 and self.recent[1][0] <= step - self.window:
            self.recent.popleft()
        if self.recent[0][0] <= step - self.window:
            self._check_collapse(step)

    def _check_collapse(self, step: int) -> None:
        recent = [averages for _, averages in self.recent]
        if all(each["contrast"] < self.FLAT for each in recent):
            raise Collapsed(
                f"for {self.window} steps up to step {step} the enhanced images were flat, with less than "
                f"{self.FLAT:.0%} of the contrast of the clean images: the network has collapsed. Train again with a "
                "lower learning_rate, a later adversary_start, or another seed"
            )
        if self.comparable and all(each["loss"] > self.WORSE * each["fidelity"] + self.MARGIN for each in recent):
            raise Collapsed(
                f"for {self.window} steps up to step {step} the enhanced images were far worse than the degraded "
                f"images (loss {recent[-1]['loss']:.3g}, degraded {recent[-1]['fidelity']:.3g}): training diverges. "
                "Train again with a lower learning_rate, or with gradient_clip=1"
            )
