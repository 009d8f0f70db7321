"""The files of an ablation: tables, one line per network and row, and a plot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from deal.ablation import tables
from deal.ablation.plot import drawn
from deal.ablation.tables import Measured
from deal.io.atomic import atomic_write
from deal.io.images import Location


def write(measured: Sequence[Measured], folder: Location) -> list[Path]:
    """Writes table.md, results.csv and plot.png, each atomically; returns their paths."""
    picture = io.BytesIO()
    evaluations = dict.fromkeys(each.evaluation for each in measured)
    title = tables.METRICS["affine_psnr"]
    drawn(
        [
            (f"{name}, {title}", tables.summaries([one for one in measured if one.evaluation == name], "affine_psnr"))
            for name in evaluations
        ]
    ).save(picture, "PNG")
    files = {
        "table.md": tables.as_markdown(measured).encode(), "results.csv": tables.as_csv(measured).encode(),
        "plot.png": picture.getvalue(),
    }  # fmt: skip
    for name, content in files.items():
        with atomic_write(Path(folder) / name) as file:
            file.write(content)
    return [Path(folder) / name for name in files]
