"""The option --budget: the network that holds it, and what is said of it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from deal.cli import options

if TYPE_CHECKING:
    from deal.inference.budget import Latencies
    from deal.inference.enhancer import Enhancer
    from deal.io.images import Frame
    from deal.io.paths import Job


def check(parsed: Namespace) -> None:
    """Raises ValueError unless the option fits the others."""
    if parsed.budget is None:
        return
    if parsed.model is not None:
        raise ValueError("--budget picks a network, and --model names one: give one of them")
    if not parsed.budget > 0:
        raise ValueError(f"budget must be more than 0 milliseconds; got {parsed.budget:g}")


def first_frame(jobs: Iterable[Job], read: Callable[[Path], Frame]) -> Frame | None:
    """The frame of the first job that can be read; why others cannot is said when their turn comes."""
    for job in jobs:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(job.source)
    return None


def enhancer_for(parsed: Namespace, frame: Frame, make: Callable[[str], Enhancer]) -> Enhancer:
    """The enhancer of the largest bundled network that holds the budget for this frame, or of the fastest one."""
    from deal.inference.budget import in_milliseconds, largest_within

    choice = largest_within(parsed.budget, frame, make, sequence=bool(parsed.sequence))
    height, width = frame.pixels.shape[:2]
    taken = f"{in_milliseconds(choice.milliseconds / 1000)} a frame of {width} x {height}"
    if not choice.holds:
        message = f"no bundled network holds {parsed.budget:g} ms: {choice.name}, the fastest, takes {taken}"
        warnings.warn(message, stacklevel=2)
    elif not parsed.quiet:
        say(f"{choice.name} takes {taken}, within {parsed.budget:g} ms")
    return choice.enhancer


def report(latencies: Latencies, quiet: bool) -> None:
    """Says how long frames took, if there were any."""
    if latencies.count and not quiet:
        say(str(latencies))


def say(message: str) -> None:
    """Prints a line on standard error."""
    print(options.printable(message), file=sys.stderr, flush=True)
