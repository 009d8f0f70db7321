"""The log of a training run: a CSV file, TensorBoard, and a progress bar."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deal.io.atomic import atomic_write

COLUMNS = (
    "step", "seconds", "loss", "fidelity", "divergence", "contrast", "degraded_contrast", "learning_rate", "validation_loss",
    "validation_psnr",
)  # fmt: skip


class Log:
    """Writes log.csv, writes TensorBoard files if TensorBoard is installed, and shows a bar with the remaining time.

    Args:
        folder: of the run.
        step: the step that the run resumes from; later rows of an existing log are removed.
        steps: the last step.
        bar: shows the progress bar. If standard error is not a terminal, it prints a line every 30 seconds.
    """

    def __init__(self, folder: Path, step: int, steps: int, *, bar: bool) -> None:
        self.path = folder / "log.csv"
        _truncate(self.path, step)
        self._board = _tensorboard(folder, step)
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
        """Moves the bar by one step."""
        self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row. Columns without a value stay empty."""
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow({"step": step} | {k: f"{v:.6g}" for k, v in values.items()})
        shown = {"loss": "loss", "contrast": "contrast", "validation_psnr": "PSNR"}
        self._bar.set_postfix(
            {label: f"{values[name]:.3g}" for name, label in shown.items() if name in values}, refresh=False
        )
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def _truncate(path: Path, step: int) -> None:
    """Keeps the header and the rows up to a step."""
    rows = []
    if step and path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            # The last row of an interrupted run may be incomplete.
            rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as target:
        target.write(text.getvalue().encode())


def _tensorboard(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step or None)  # type: ignore[no-untyped-call]
