"""What a check of a machine found, as text and as JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deal_kernels.check.runner import Figure, Result

SCHEMA = 1  # of the file; a change that readers notice increases it


def line(result: Result, width: int) -> str:
    """A row of the table."""
    return f"{result.part:10} {result.name:{width}} {result.result}  {result.detail}".rstrip()


def summary(results: Sequence[Result], seconds: float) -> str:
    counted = {kind: sum(result.result == kind for result in results) for kind in ("PASS", "FAIL", "SKIP")}
    passed, failed, skipped = counted.values()
    return f"{passed} passed, {failed} failed, {skipped} do not apply here; {seconds:.0f} s"


def figures_table(figures: Sequence[Figure]) -> list[str]:
    """Times, and beside them the rate of a copy in the same rounds."""
    names = [f"{figure.what}, {figure.target}" for figure in figures]
    width = max(map(len, names), default=0)
    rows = [f"{'':{width}}{'ms':>10}{'GB/s':>9}{'copy GB/s':>11}{'of copy':>9}"] if figures else []
    for name, figure in zip(names, figures, strict=True):
        row = f"{name:{width}}{figure.milliseconds:10.3f}"
        rate, copy = figure.gigabytes_per_second, figure.copy_gigabytes_per_second
        if rate is not None and copy is not None:
            row += f"{rate:9.1f}{copy:11.1f}{rate / copy:9.0%}"
        rows.append(row)
    return rows


def document(machine: dict[str, Any], results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """All of it, for a file."""
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "passed": not any(result.result == "FAIL" for result in results),
        "machine": machine,
        "results": [
            {
                "part": result.part, "name": result.name, "result": result.result, "detail": result.detail,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
        "figures": [figure._asdict() for result in results for figure in result.figures],
    }  # fmt: skip


def write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
