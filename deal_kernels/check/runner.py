"""Runs checks one after the other. One that fails does not stop the others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch


class Figure(NamedTuple):
    """How fast something ran; bytes and the copy are None where the least traffic is not known."""

    what: str
    target: str
    milliseconds: float
    gigabytes_per_second: float | None = None
    copy_gigabytes_per_second: float | None = None


class Outcome(NamedTuple):
    """What a check that passed has to tell."""

    detail: str
    figures: tuple[Figure, ...] = ()


@dataclasses.dataclass(frozen=True)
class Check:
    """A function that tells what it found, or raises: `NotApplicable` where it says nothing on this machine."""

    part: str
    name: str
    run: Callable[[], Outcome]


@dataclasses.dataclass(frozen=True)
class Result:
    part: str
    name: str
    result: str  # PASS, FAIL or SKIP
    detail: str
    seconds: float
    figures: tuple[Figure, ...] = ()


class NotApplicable(Exception):
    """Says why a check tells nothing on this machine."""


def run(checks: Iterable[Check]) -> Iterator[Result]:
    """Their results, each as soon as it is there."""
    lost = None
    for check in checks:
        start = time.perf_counter()
        if lost is None:
            result, outcome = attempted(check)
            if result == "FAIL" and not gpu_answers():
                lost = check.name
        else:
            result, outcome = "SKIP", Outcome(f"the GPU does not answer since {lost!r}")
        yield Result(check.part, check.name, result, outcome.detail, time.perf_counter() - start, outcome.figures)


def attempted(check: Check) -> tuple[str, Outcome]:
    try:
        outcome = check.run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the error of a kernel belongs to the check that launched it
        return "PASS", outcome
    except NotApplicable as reason:
        return "SKIP", Outcome(str(reason))
    except Exception as error:  # whatever it is, the other checks are to run
        return "FAIL", Outcome(first_line(error))


def first_line(error: Exception) -> str:
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return message if isinstance(error, AssertionError) and message else f"{type(error).__name__}: {message}"


def gpu_answers() -> bool:
    """False after an error that a process does not survive, such as an access outside memory."""
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
