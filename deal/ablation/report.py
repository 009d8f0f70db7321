"""The files of an ablation: tables, one line per network and row, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deal.ablation import tables
from deal.ablation.tables import Measured, Spread
from deal.io.atomic import atomic_write
from deal.io.images import Location
from deal.io.plot import Block, Mark, drawn


def write(measured: Sequence[Measured], folder: Location) -> list[Path]:
    """Writes table.md, results.csv and plot.png, each atomically; returns their paths."""
    blocks = [_block(measured, name) for name in dict.fromkeys(each.evaluation for each in measured)]
    files = {
        "table.md": tables.as_markdown(measured).encode(), "results.csv": tables.as_csv(measured).encode(),
        "plot.png": drawn(blocks),
    }  # fmt: skip
    for name, content in files.items():
        with atomic_write(Path(folder) / name) as file:
            file.write(content)
    return [Path(folder) / name for name in files]


def _block(measured: Sequence[Measured], evaluation: str) -> Block:
    """A line for each variant; a single seed has no rings."""
    found = tables.summaries([each for each in measured if each.evaluation == evaluation], "affine_psnr")
    lines = {
        variant: {name: Mark(*Spread.of(seeds), seeds if len(seeds) > 1 else ()) for name, seeds in figures.items()}
        for variant, figures in found.items()
    }
    return Block(f"{evaluation}, {tables.METRICS['affine_psnr']}", lines)
