"""What a run shows and writes down as it goes, and when it is to be given up."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deal.checkpoint import atomically

COLUMNS = (
    "step", "seconds", "loss", "closeness", "contrast", "degraded_contrast", "learning_rate", "validation_loss",
    "validation_psnr",
)  # fmt: skip


class Log:
    """log.csv in a folder, TensorBoard's files beside it when that is installed, and a bar with the time that is left.

    Args:
        folder: of the run.
        step: at which the run goes on; rows of later ones are dropped, they come again.
        steps: at which it ends.
        bar: shows it. Where the error stream is no terminal it writes a line every half minute.
    """

    def __init__(self, folder: Path, step: int, steps: int, *, bar: bool) -> None:
        self.path = folder / "log.csv"
        _keep_rows(self.path, step)
        self._board = _board(folder, step)
        interval = 0.1 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=steps, initial=step, disable=not bar, unit="step", mininterval=interval, smoothing=0.05,
            dynamic_ncols=True,
        )  # fmt: skip

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def advance(self) -> None:
        self._bar.update()

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes a row. Figures that are not known are left out."""
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow({"step": step} | {k: f"{v:.6g}" for k, v in figures.items()})
        shown = {"loss": "loss", "contrast": "contrast", "validation_psnr": "PSNR"}
        self._bar.set_postfix(
            {label: f"{figures[name]:.3g}" for name, label in shown.items() if name in figures}, refresh=False
        )
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def say(self, message: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(message, file=sys.stderr)


def _keep_rows(path: Path, step: int) -> None:
    """The head of the table, and the rows up to a step."""
    rows = []
    if step and path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            # The last row may be half written.
            rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with atomically(path) as target:
        target.write(text.getvalue().encode())


def _board(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step or None)  # type: ignore[no-untyped-call]


class Collapsed(RuntimeError):
    """The network has stopped to enhance."""


class Watch:
    """Looks at the figures of a run for the ways in which it may fail.

    Args:
        steps: over which a collapse has to last; None looks for numbers alone that are none.

    >>> Watch(None).look(7, {"loss": float("nan")})
    Traceback (most recent call last):
    FloatingPointError: the loss is nan at step 7 or shortly before: ...
    """

    FLAT = 0.01  # of the contrast of clean images
    WORSE, MARGIN = 2.0, 0.5  # than the degraded images: that many times, and by so much beyond

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.recent: deque[tuple[int, Mapping[str, float]]] = deque()

    def look(self, step: int, figures: Mapping[str, float], since: int | None = None) -> None:
        """Raises when the run has failed.

        Args:
            step: the last one done.
            figures: their means since the last look.
            since: the step of that look.
        """
        wrong = [name for name, value in figures.items() if not math.isfinite(value)]
        if "loss" in wrong or "closeness" in wrong:
            name = "loss" if "loss" in wrong else "closeness"
            raise FloatingPointError(
                f"the {name} is {figures[name]} at step {step} or shortly before: the checkpoints are older and good. "
                "Resume with a lower learning_rate in a new folder, with clip=1, or with precision='fp32'; images with "
                "values that are no numbers do this, too"
            )
        if self.steps is None:
            return
        self.recent.append((step if since is None else since, figures))
        while len(self.recent) > 1 and self.recent[1][0] <= step - self.steps:
            self.recent.popleft()
        if self.recent[0][0] <= step - self.steps:
            self._judge(step)

    def _judge(self, step: int) -> None:
        recent = [figures for _, figures in self.recent]
        if all(each["contrast"] < self.FLAT for each in recent):
            raise Collapsed(
                f"for {self.steps} steps up to {step} the enhanced images have been flat, with less than "
                f"{self.FLAT:.0%} of the contrast of the clean ones: the network has collapsed. Start anew with a "
                "lower learning_rate, a longer warm_start, or another seed"
            )
        if all(each["loss"] > self.WORSE * each["closeness"] + self.MARGIN for each in recent):
            raise Collapsed(
                f"for {self.steps} steps up to {step} the enhanced images have been far worse than the degraded ones "
                f"(loss {recent[-1]['loss']:.3g} to {recent[-1]['closeness']:.3g}): the network diverges. Start anew "
                "with a lower learning_rate, or with clip=1"
            )
