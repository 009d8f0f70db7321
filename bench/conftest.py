"""Options, timing and the report of the benchmarks.

`pytest bench/` runs each once, small and untimed: a smoke test. `pytest bench/ --benchmark` times them and prints the
tables; with `--report` it also writes them to bench/results/<machine>.md.
"""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import deal_kernels

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode hides the modules next to a bench
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TURN_SECONDS = 2e-3
ROUNDS = (8, 26, 200)
SLOW, SLOW_EVERY = 8, 5
LOADS = [os.getloadavg()[0]] if hasattr(os, "getloadavg") else []

Call = Callable[[], object]


def pytest_addoption(parser):
    parser.addoption("--benchmark", action="store_true", help="time the kernels (default: run each once, untimed)")
    parser.addoption("--report", action="store_true", help="with --benchmark: write bench/results/<machine>.md")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its own options
def pytest_configure(config):
    option = config.option
    option.benchmark = option.benchmark or option.benchmark_only or option.benchmark_enable
    option.benchmark_disable = option.benchmark_disable or not option.benchmark


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["deal_kernels"] = deal_kernels.info()


@pytest.fixture
def timed(request) -> bool:
    return request.config.option.benchmark and not request.config.option.benchmark_disable


class Race:
    """Seconds per call of contestants that took turns: for each name, by round."""

    def __init__(self, times: dict[str, dict[int, float]]) -> None:
        self.times = times

    def rounds(self, name: str) -> int:
        return len(self.times[name])

    def seconds(self, name: str) -> float:
        return statistics.median(self.times[name].values())

    def ratio(self, name: str, to: str) -> float:
        """How many times `to` the contestant takes: the median over their rounds, as noise hits neighbours alike."""
        mine, theirs = self.times[name], self.times[to]
        return statistics.median(mine[i] / theirs[i] for i in mine.keys() & theirs.keys())

    def best(self, name: str) -> float:
        """The quickest round: what remains of a shared machine's noise."""
        return min(self.times[name].values())

    def spread(self, name: str) -> float:
        """The interquartile range over the median."""
        low, middle, high = statistics.quantiles(self.times[name].values(), n=4)
        return (high - low) / middle


def seconds_of(call: Call, calls: int) -> float:
    """Seconds per call. Results are dropped at once, as a network drops what it no longer needs."""
    if DEVICE == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls / 1e3


def enough(rounds: int, seconds: float, budget: float) -> bool:
    """Whether to end a race: after its budget if it had many rounds, or after three if its calls are so slow."""
    few, many, most = ROUNDS
    return rounds >= most or (rounds >= many and seconds > budget) or (rounds >= few and seconds > 3 * budget)


def run_race(contestants: dict[str, Call], budget: float) -> Race:
    """Round-robin; the order shifts every round, so that no contestant always follows the same one.

    A contestant far slower than the quickest sits out most rounds, which leaves time for many.
    """
    calls, turns = {}, {}
    for name, call in contestants.items():
        seconds_of(call, 1)
        once = seconds_of(call, 1)
        calls[name] = max(1, round(TURN_SECONDS / max(once, 1e-7)))
        turns[name] = calls[name] * once
    every = {name: SLOW_EVERY if turn > SLOW * min(turns.values()) else 1 for name, turn in turns.items()}
    times: dict[str, dict[int, float]] = {name: {} for name in contestants}
    names = list(contestants)
    start, done = time.perf_counter(), 0
    gc.collect()
    gc.disable()
    try:
        while not enough(done, time.perf_counter() - start, budget):
            shift = done % len(names)
            for name in names[shift:] + names[:shift]:
                if done % every[name] == 0:
                    times[name][done] = seconds_of(contestants[name], calls[name])
            done += 1
    finally:
        gc.enable()
    return Race(times)


@pytest.fixture
def race(timed) -> Callable[..., Race | None]:
    """Races contestants for about `budget` seconds; without --benchmark runs each once and returns None."""

    def start(contestants: dict[str, Call], budget: float = 4.0) -> Race | None:
        if timed:
            return run_race(contestants, budget)
        for call in contestants.values():
            call()
        return None

    return start


class Report:
    """Tables in the order in which their first rows came."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, str]]] = {}

    def add(self, title: str, **row: str) -> None:
        self.tables.setdefault(title, []).append(row)

    def text(self) -> str:
        return "\n\n".join(f"### {title}\n\n{aligned(rows)}" for title, rows in self.tables.items())


def aligned(rows: Sequence[dict[str, str]]) -> str:
    """Rows as a Markdown table that also reads well in a terminal."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[column.replace("_", " ") for column in columns]]
    cells += [[row.get(column, "") for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


REPORT = Report()


@pytest.fixture
def report() -> Report:
    return REPORT


def processor() -> str:
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    described = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", described.read_text()) if described.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def machine_line() -> str:
    live = deal_kernels.info()
    parts = [processor(), f"{live['threads']} threads", f"isa {live['isa']}", f"torch {live['torch']}"]
    if DEVICE == "cuda":
        parts.append(f"CUDA {torch.version.cuda}")
    elif LOADS:
        parts.append(f"load {LOADS[0]:.1f} before and {os.getloadavg()[0]:.1f} after on {os.cpu_count()} cores")
    parts += [f"deal_kernels {live['deal_kernels']}", version("spikingjelly"), version("snntorch")]
    return "Machine: " + ", ".join([*parts, datetime.date.today().isoformat()])


def results_file() -> Path:
    words = re.sub(r"\((r|tm)\)", "", processor().lower())
    name = "-".join(re.findall(r"[a-z0-9.]+", words))
    threads = f"-{torch.get_num_threads()}-threads" if DEVICE == "cpu" else ""
    return Path(__file__).parent / "results" / f"{name}{threads}.md"


def pytest_terminal_summary(terminalreporter, config):
    if not REPORT.tables:
        return
    command = shlex.join(["pytest", *config.invocation_params.args])
    text = f"{machine_line()}\n\nCommand: `{command}`\n\n{REPORT.text()}\n"
    terminalreporter.write_line("\n" + text)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line("No report is written: a benchmark failed.")
    elif config.option.report:
        results_file().parent.mkdir(exist_ok=True)
        results_file().write_text(f"# {processor()}\n\n{text}")
        terminalreporter.write_line(f"Written: bench/results/{results_file().name}")
