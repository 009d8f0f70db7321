"""The log of a training run: a CSV file, its curve, TensorBoard, and a progress bar."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy

from deal.io.atomic import atomic_write
from deal.io.writers import write_image
from deal.training.curve import SERIES, Curve
from deal.training.progress import ProgressBar
from deal.training.run_dir import CURVE, LOG

COLUMNS = (
    "step", "seconds", "loss", "fidelity", "divergence", "contrast", "degraded_contrast", "learning_rate",
    "validation_loss", "validation_psnr",
)  # fmt: skip


class Log:
    """Writes loss.csv, draws loss.png, writes TensorBoard files if TensorBoard is installed, and shows a progress bar.

    Args:
        folder: of the run.
        step: the step that the run resumes from; later rows of an existing log are removed.
        steps: the last step.
        bar: shows the progress bar.
        seconds: after which the run ends earlier.
    """

    def __init__(self, folder: Path, step: int, steps: int, *, bar: bool, seconds: float = math.inf) -> None:
        self.folder = folder
        self._curve = Curve()
        self._board = _tensorboard(folder, step)
        self._bar = ProgressBar(step, steps, seconds=seconds, visible=bar)
        self._resume(step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row. Columns without a value stay empty. A row of a validation draws the curve anew."""
        with open(self.folder / LOG, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow({"step": step} | {k: f"{v:.6g}" for k, v in values.items()})
        self._curve.add(step, values)
        self._bar.show(values)
        if "validation_loss" in values:
            write_image(self.folder / CURVE, numpy.asarray(self._curve.draw()))
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _resume(self, step: int) -> None:
        """Keeps the header of loss.csv and the rows up to a step, and shows them."""
        last: dict[str, float] = {}
        with atomic_write(self.folder / LOG) as target:
            text = io.TextIOWrapper(target, encoding="utf-8", newline="")
            writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            for row in _rows(self.folder / LOG, step):
                writer.writerow(row)
                values = _numbers(row)
                self._curve.add(int(row["step"]), values)
                last |= values
            text.detach()  # flushes, and leaves the file open
        self._bar.show(last)


def _rows(path: Path, step: int) -> Iterator[dict[str, str]]:
    """The rows of a log up to a step."""
    if not step or not path.exists():
        return
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # The last row of an interrupted run may be incomplete.
            if (row["step"] or "").isdigit() and int(row["step"]) <= step:
                yield row


def _numbers(row: Mapping[str, str | None]) -> dict[str, float]:
    """The figures to draw that the row has."""
    found = {}
    for name in SERIES:
        with contextlib.suppress(TypeError, ValueError):
            found[name] = float(row[name])  # type: ignore[arg-type]
    return found


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer of TensorBoard files; None without TensorBoard, which is an option, and so worth a line only where it
    is installed, or where the folder has such files of an earlier start."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if importlib.util.find_spec("tensorboard") or any(folder.glob("events.out.tfevents.*")):
            warnings.warn(
                f"no TensorBoard files are written, as it cannot be imported ({error}); {LOG} and {CURVE} have the "
                "same figures",
                stacklevel=2,
            )
        return None
    return SummaryWriter(str(folder), purge_step=step or None)  # type: ignore[no-untyped-call]
