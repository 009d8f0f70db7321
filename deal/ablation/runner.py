"""Runs a plan: trains and measures what is not done yet.

The folder of a plan has a folder for each variant and seed: the training run, results-NAME.csv of every evaluation, and
run.json with the settings. It can be stopped at any point; the next call continues with the same numbers. The tables
are written again after every run.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deal.ablation import report
from deal.ablation.plan import Evaluation, Plan, Run
from deal.ablation.tables import Measured
from deal.evaluate.benchmark import run_benchmark
from deal.evaluate.report import as_csv, from_csv
from deal.evaluate.results import INPUT, Results
from deal.io.atomic import atomic_write
from deal.io.images import Location
from deal.training.loop import train
from deal.training.run_dir import LAST

RECORD = "run.json"
IGNORED = ("output", "resume", "device", "threads", "progress")  # settings that do not change the numbers


def run_plan(plan: Plan, output: Location, *, progress: bool = False) -> list[Measured]:
    """Trains and measures every variant with every seed, and returns all results.

    Args:
        plan: of the trainings and evaluations.
        output: the folder of the runs. What it already has is not done again.
        progress: shows the training in progress, and the time left.

    Raises:
        ValueError: if a folder has a run of other settings.
    """
    runs = plan.runs(output, progress=progress)
    for run in runs:
        _checked_record(run, plan)
    left = [run for run in runs if not _is_done(run, plan)]
    clock = _Clock(sum(run.settings.steps for run in left))
    for number, run in enumerate(left, 1):
        if progress:
            tqdm.write(f"run {number} of {len(left)}: {run.variant}, seed {run.seed}{clock}", file=sys.stderr)
        _do(run, plan)
        clock.advance(run.settings.steps)
        report.write(_measured(plan, runs), output)
    measured = _measured(plan, runs)
    report.write(measured, output)
    return measured


def _measured(plan: Plan, runs: Sequence[Run]) -> list[Measured]:
    """The results of the runs that are done."""
    done = [run for run in runs if _is_done(run, plan)]
    return [
        Measured(run.variant, run.seed, name, from_csv(_file(run, name).read_text()))
        for name in plan.evaluations
        for run in done
    ]


class _Clock:
    """The time left for all runs, from the steps that are done and to do."""

    def __init__(self, steps: int) -> None:
        self.start, self.steps, self.done = time.monotonic(), steps, 0

    def advance(self, steps: int) -> None:
        self.done += steps

    def __str__(self) -> str:
        if not self.done:
            return ""
        seconds = (time.monotonic() - self.start) / self.done * (self.steps - self.done)
        return f"; {tqdm.format_interval(seconds)} left for all"


def _do(run: Run, plan: Plan) -> None:
    folder = Path(run.settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    record = _checked_record(run, plan)
    with atomic_write(folder / RECORD) as file:
        file.write(json.dumps(record, indent=1).encode())
    train(run.settings)
    for name, evaluation in plan.evaluations.items():
        if not _file(run, name).exists():
            with atomic_write(_file(run, name)) as file:
                file.write(as_csv(_evaluate(run, evaluation)).encode())


def _evaluate(run: Run, evaluation: Evaluation) -> Results:
    return run_benchmark(
        evaluation.data, evaluation.suite, [INPUT, str(Path(run.settings.output) / LAST)], crop=evaluation.crop,
        seed=evaluation.seed, device=run.settings.device, progress=run.settings.progress,
    )  # fmt: skip


def _file(run: Run, evaluation: str) -> Path:
    return Path(run.settings.output) / f"results-{evaluation}.csv"


def _is_done(run: Run, plan: Plan) -> bool:
    return all(_file(run, name).exists() for name in plan.evaluations)


def _checked_record(run: Run, plan: Plan) -> dict[str, dict[str, Any]]:
    """The settings of a run and of all its evaluations, with those that its folder has from before.

    Raises:
        ValueError: if the folder has other settings, or an evaluation of the same name that is another one.
    """
    settings = {name: value for name, value in dataclasses.asdict(run.settings).items() if name not in IGNORED}
    evaluations = {name: dataclasses.asdict(evaluation) for name, evaluation in plan.evaluations.items()}
    record: dict[str, dict[str, Any]] = json.loads(json.dumps({"settings": settings, "evaluations": evaluations}))
    path = Path(run.settings.output) / RECORD
    if not path.exists():
        return record
    before = json.loads(path.read_text())
    differences = [
        f"{name} was {before[kind][name]!r} and is {value!r}"
        for kind, values in record.items()
        for name, value in values.items()
        if name in before[kind] and before[kind][name] != value
    ]
    if differences:
        raise ValueError(
            f"{path.parent} has a run of other settings: {'; '.join(differences)}. Choose another output, or delete "
            "that folder"
        )
    return {kind: {**before[kind], **values} for kind, values in record.items()}
