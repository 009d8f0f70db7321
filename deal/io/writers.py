"""Writing of images with bit depth and metadata preserved, alone and in batches with a record of every file."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy
from PIL import Image
from tqdm import tqdm

from deal.io.atomic import atomic_write
from deal.io.images import SUFFIXES, ImageFile, Location, UnusableImage
from deal.io.metadata import Metadata, save_options
from deal.io.paths import Job

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
FORMAT_DTYPES = {
    "PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32"), "JPEG": ("uint8",), "BMP": ("uint8",),
}  # fmt: skip
COLUMNS = ("when", "source", "target", "status", "seconds", "height", "width", "type", "black", "white", "message")


def write_image(path: Location, pixels: numpy.ndarray, metadata: Metadata | None = None) -> None:
    """Writes an image file atomically.

    Args:
        path: the ending sets the format. JPEG is written with quality 95.
        pixels: [H, W] of uint8, uint16 or float32, or [H, W, 3] of uint8.
        metadata: metadata of the source, to be kept.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"the ending of {path} must be one of {', '.join(SUFFIXES)}")
    if str(pixels.dtype) not in FORMAT_DTYPES[kind]:
        raise UnusableImage(f"{path} cannot store {pixels.dtype}: {kind} stores {', '.join(FORMAT_DTYPES[kind])}")
    options = {} if metadata is None else save_options(metadata, kind)
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    with atomic_write(path) as file:
        file.write(encoded.getbuffer())


class Tally(NamedTuple):
    """The number of files by status."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __str__(self) -> str:
        counts = zip(self._fields, self, strict=True)
        return ", ".join(f"{count} {name}" for name, count in counts if count or name == "done")


class Batch:
    """The jobs of a batch: skips existing outputs, skips unusable sources, and records the status of every file.

        with Batch(jobs, manifest="out/manifest.csv") as batch:
            for job in batch:
                with batch.attempt(job):
                    image = read_image(job.source)
                    batch.save(job, image, enhancer(image.frame))

    Args:
        jobs: see `plan_jobs`.
        skip_existing: skips jobs whose output exists. Outputs are written atomically, so an existing one is complete.
        keep_going: continues after a source that cannot be used. An output that cannot be written always ends the
            batch.
        manifest: a CSV file to which one row per job is appended, as soon as the job is over.
        progress: shows a progress bar.
    """

    def __init__(
        self, jobs: Sequence[Job], *, skip_existing: bool = False, keep_going: bool = False,
        manifest: Location | None = None, progress: bool = False,
    ) -> None:  # fmt: skip
        self.jobs, self.skip_existing, self.keep_going = jobs, skip_existing, keep_going
        self.manifest, self.progress = manifest, progress
        self.tally, self.seconds = Tally(), 0.0
        self._started = self._job_started = 0.0

    def __enter__(self) -> Batch:
        self._started = time.perf_counter()
        self._file = _open_manifest(self.manifest)
        self._bar = tqdm(self.jobs, unit="image", disable=not self.progress, file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self._bar.close()
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Job]:
        """The jobs that are not skipped."""
        for job in self._bar:
            self._job_started = time.perf_counter()
            if self.skip_existing and job.target.exists():
                self._record(job, "skipped")
            else:
                yield job

    @contextlib.contextmanager
    def attempt(self, job: Job) -> Iterator[None]:
        """Records a failure if the block raises because the source cannot be used, and raises it unless
        `keep_going`."""
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            yield
        except (UnusableImage, FileNotFoundError) as error:
            self._record(job, "failed", message=str(error))
            if not self.keep_going:
                raise
            self._bar.write(f"failed: {error}", file=sys.stderr)

    def save(self, job: Job, image: ImageFile, pixels: numpy.ndarray) -> None:
        """Writes the output of a job, with the metadata of its source, and records it."""
        notes = {
            "height": pixels.shape[0], "width": pixels.shape[1], "type": str(pixels.dtype),
            "black": f"{image.frame.low:g}", "white": f"{image.frame.high:g}",
            "message": f"only the first of {image.pages} pages was read" if image.pages > 1 else "",
        }  # fmt: skip
        with _interrupt_delayed():
            write_image(job.target, pixels, image.metadata)
            self._record(job, "done", **notes)

    def _record(self, job: Job, status: str, **notes: Any) -> None:
        self.tally = self.tally._replace(**{status: getattr(self.tally, status) + 1})
        if self._file is None:
            return
        when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        seconds = f"{time.perf_counter() - self._job_started:.3f}"
        row = {"when": when, "source": job.source, "target": job.target, "status": status, "seconds": seconds, **notes}
        csv.DictWriter(self._file, COLUMNS).writerow(row)
        self._file.flush()


def _open_manifest(manifest: Location | None) -> Any:
    if manifest is None:
        return None
    path = Path(manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 (the batch closes it)
    if file.tell() == 0:
        csv.DictWriter(file, COLUMNS).writeheader()
    return file


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
