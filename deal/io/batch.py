"""Batches of files: which are skipped, which fail, and a record of each; writing beside the computation of the next.

with Batch(jobs, manifest="out/manifest.csv") as batch:
    for job in batch:
        with batch.attempt(job):
            image = read_image(job.source)
            batch.save(job, image, enhancer(image.frame))
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import numpy
from tqdm import tqdm

from deal.io.images import Frame, ImageFile, Location, UnusableImage
from deal.io.manifest import Manifest
from deal.io.out_of_memory import is_out_of_memory
from deal.io.paths import Job
from deal.io.writers import write_image

# Errors of the system that concern a single file. After any other one, such as a full disk, no output could be written.
OF_ONE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOMEM)


class Tally(NamedTuple):
    """The number of files by status."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __str__(self) -> str:
        counts = zip(self._fields, self, strict=True)
        return ", ".join(f"{count} {name}" for name, count in counts if count or name == "done")


class _Writing(NamedTuple):
    """A job whose output another thread writes."""

    job: Job
    started: float
    notes: dict[str, Any]
    future: Future[None]
    source: object


class Batch:
    """The jobs of a batch: skips existing outputs, skips unusable sources, and records the status of every file.

    Args:
        jobs: see `plan_jobs`.
        skip_existing: skips jobs whose output exists. Outputs are written atomically, so an existing one is complete.
        keep_going: continues after a source that cannot be read or computed, also for want of memory. An error of the
            system that concerns all outputs, such as a full disk, always ends the batch.
        manifest: a CSV file to which one row per job is appended, as soon as the job is over.
        progress: shows a progress bar, if there are several jobs.
        workers: threads that write outputs while the next ones are computed. At most two outputs for each are in
            memory. What becomes of a job is then recorded a little later.
    """

    def __init__(
        self, jobs: Sequence[Job], *, skip_existing: bool = False, keep_going: bool = False,
        manifest: Location | None = None, progress: bool = False, workers: int = 0,
    ) -> None:  # fmt: skip
        self.jobs, self.skip_existing, self.keep_going = jobs, skip_existing, keep_going
        self.manifest, self.progress, self.workers = manifest, progress, workers
        self.tally, self.seconds = Tally(), 0.0
        self._started = self._job_started = 0.0
        self._writing: deque[_Writing] = deque()

    def __enter__(self) -> Batch:
        self._started = time.perf_counter()
        self._file = None if self.manifest is None else Manifest(Path(self.manifest))
        one = len(self.jobs) == 1  # a clip has a bar of its own
        self._bar = tqdm(self.jobs, unit="image", disable=one or not self.progress, file=sys.stderr)
        self._writers = ThreadPoolExecutor(self.workers, "deal-write") if self.workers else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writers is not None:
            self._writers.shutdown(cancel_futures=True)
            self._record_rest()
        self.seconds = time.perf_counter() - self._started
        self._bar.close()
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Job]:
        """The jobs that are not skipped."""
        for job in self._bar:
            self._settle(2 * self.workers)
            self._job_started = time.perf_counter()
            if job.problem:
                self._fail(job, UnusableImage(job.problem))
            elif self.skip_existing and os.path.exists(job.target):
                self._record(job, "skipped")
            else:
                yield job
        self._settle(0)

    @contextlib.contextmanager
    def attempt(self, job: Job) -> Iterator[None]:
        """Records a failure if the block raises because of this job, and raises UnusableImage unless `keep_going`.

        Readers of damaged files raise errors of any kind.
        """
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and error.errno not in OF_ONE_FILE:
                raise
            self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        message = _reason(job, error)
        self._record(job, "failed", message=message)
        if not self.keep_going:
            raise UnusableImage(message) from error
        self._bar.write(f"failed: {message}", file=sys.stderr)

    def save(self, job: Job, image: ImageFile, pixels: numpy.ndarray, source: object = None) -> None:
        """Writes the output of a job, with the metadata of its source, and records it.

        Args:
            source: is kept until the output is written, such as an open file that has the metadata.
        """
        notes = _notes(image.frame, pixels)
        if self._writers is not None:
            future = self._writers.submit(write_image, job.target, pixels, image.metadata)
            self._writing.append(_Writing(job, self._job_started, notes, future, source))
            return
        with _interrupt_delayed():
            write_image(job.target, pixels, image.metadata)
            self._record(job, "done", **notes)

    def _settle(self, most: int) -> None:
        """Records jobs whose output is written, and waits until at most so many are not."""
        while self._writing and (len(self._writing) > most or self._writing[0].future.done()):
            wait([self._writing[0].future])
            written = self._writing.popleft()
            self._job_started = written.started
            with self.attempt(written.job):
                written.future.result()
                self._record(written.job, "done", **written.notes)

    def _record_rest(self) -> None:
        """Records the outputs that were written before the batch ended early."""
        for job, started, notes, future, _ in self._writing:
            if not future.cancelled() and future.exception() is None:
                self._job_started = started
                self._record(job, "done", **notes)

    def record(self, job: Job, frame: Frame, pixels: numpy.ndarray, message: str = "") -> None:
        """Records a job whose output is written: one of its frames, and the enhanced pixels of this frame."""
        self._record(job, "done", **_notes(frame, pixels), message=message)

    def frames(self, job: Job, count: int | None) -> tqdm[NoReturn]:
        """A progress bar for the frames of a job. None is an unknown number."""
        return tqdm(
            total=count, desc=job.source.name, unit="frame", leave=False, disable=not self.progress, file=sys.stderr
        )  # fmt: skip

    def _record(self, job: Job, status: str, **notes: Any) -> None:
        self.tally = self.tally._replace(**{status: getattr(self.tally, status) + 1})
        if self._file is None:
            return
        when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        seconds = f"{time.perf_counter() - self._job_started:.3f}"
        row = {"when": when, "source": job.source, "target": job.target, "status": status, "seconds": seconds, **notes}
        self._file.write(row)


def _notes(frame: Frame, pixels: numpy.ndarray) -> dict[str, Any]:
    """What the manifest says of an output."""
    return {
        "height": pixels.shape[0], "width": pixels.shape[1], "type": str(pixels.dtype), "black": f"{frame.low:g}",
        "white": f"{frame.high:g}",
    }  # fmt: skip


def _reason(job: Job, error: Exception) -> str:
    """What became of a job, in one line that names its source."""
    if is_out_of_memory(error):
        return f"{job.source}: out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or job.source}: {error.strerror}"
    message = " ".join(str(error).split())
    if isinstance(error, (UnusableImage, FileNotFoundError)) and message:
        return message
    return f"{job.source}: {type(error).__name__}{': ' if message else ''}{message}"


@contextlib.contextmanager
def _interrupt_delayed() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block. Only the main thread receives it, so other threads need nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: received.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])
