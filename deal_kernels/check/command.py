"""The command: which parts there are, what it prints and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from deal_kernels.check import report, runner
from deal_kernels.check.agreement import agreement, far, repeats
from deal_kernels.check.cases import Target, live_targets
from deal_kernels.check.machine import description, machine
from deal_kernels.check.runner import Check, Outcome
from deal_kernels.check.sanitizer import sanitizer, tiny
from deal_kernels.check.speed import speed
from deal_kernels.check.streams import devices, graphs, streams
from deal_kernels.check.training import training

Part = Callable[[list[Target]], list[Check]]

OWN: dict[str, Part] = {
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
ON_REQUEST = "tiny"  # which is what the sanitizer runs
GROUP = "deal_kernels.check"  # of entry points: parts that other packages add


def parts() -> dict[str, Part]:
    """The functions that give the checks of each part. One of another package is imported when it is called."""
    return OWN | {entry.name: partial(added, entry) for entry in entry_points(group=GROUP)}


def added(entry: EntryPoint, targets: list[Target]) -> list[Check]:
    try:
        return entry.load()(targets)
    except Exception as error:  # a package that is broken is a finding
        return [Check(entry.name, entry.value, partial(raises, error))]


def raises(error: Exception) -> Outcome:
    raise error


def check(only: Sequence[str] = (), file: Path | None = None) -> bool:
    """Runs parts of the check, prints a row for each result and writes the file. True if nothing failed.

    Args:
        only: the names of parts; without any all but those on request.
    """
    start, targets, on = time.perf_counter(), live_targets(), description()
    checks = [
        each
        for name, part in parts().items()
        if (name in only if only else name != ON_REQUEST)
        for each in part(targets)
    ]
    width = max((len(each.name) for each in checks), default=0)
    results = []
    for result in runner.run(checks):
        results.append(result)
        print(report.line(result, width), flush=True)
    figures = [figure for result in results for figure in result.figures]
    print("", *report.figures_table(figures), sep="\n")
    seconds = time.perf_counter() - start
    print("", report.summary(results, seconds), sep="\n")
    if file is not None:
        report.write(file, report.document(on, results, seconds))
    return not any(result.result == "FAIL" for result in results)
