"""The command: which parts there are, what it prints and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deal_kernels.check import report, runner
from deal_kernels.check.agreement import agreement, far, repeats
from deal_kernels.check.cases import Target, live_targets
from deal_kernels.check.machine import description, machine
from deal_kernels.check.runner import Check
from deal_kernels.check.sanitizer import sanitizer, tiny
from deal_kernels.check.speed import speed
from deal_kernels.check.streams import devices, graphs, streams
from deal_kernels.check.training import training

PARTS: dict[str, Callable[[list[Target]], list[Check]]] = {
    "machine": lambda targets: machine(),
    "agreement": agreement,
    "far": far,
    "streams": streams,
    "devices": devices,
    "graphs": graphs,
    "repeats": repeats,
    "sanitizer": sanitizer,
    "training": training,
    "speed": speed,
    "tiny": tiny,
}
USUAL = tuple(part for part in PARTS if part != "tiny")  # which is what the sanitizer runs


def check(parts: Sequence[str] = USUAL, file: Path | None = None) -> bool:
    """Runs parts of the check, prints a row for each result and writes the file. True if nothing failed."""
    start, targets = time.perf_counter(), live_targets()
    checks = [each for part in PARTS if part in parts for each in PARTS[part](targets)]
    width = max((len(each.name) for each in checks), default=0)
    results = []
    for result in runner.run(checks):
        results.append(result)
        print(report.line(result, width), flush=True)
    figures = [figure for result in results for figure in result.figures]
    print("", *report.figures_table(figures), sep="\n")
    seconds = time.perf_counter() - start
    print("", report.summary(results, seconds), sep="\n")
    found = report.document(description(), results, seconds)
    if file is not None:
        report.write(file, found)
    return found["passed"]
