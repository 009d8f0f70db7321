"""Writing of images with bit depth and metadata preserved, alone and in batches with a record of every file."""

from __future__ import annotations

import contextlib
import datetime
import errno
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import numpy
from PIL import Image
from tqdm import tqdm

from deal.io import tiff
from deal.io.atomic import atomic_write
from deal.io.images import SUFFIXES, Frame, ImageFile, Location, UnusableImage
from deal.io.manifest import Manifest
from deal.io.metadata import Metadata, save_options
from deal.io.out_of_memory import is_out_of_memory
from deal.io.paths import Job
from deal.io.values import TYPES

FORMATS = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".npy": "NPY",
    ".raw": "RAW",
}  # fmt: skip
FORMAT_DTYPES = {
    "PNG": ("uint8", "uint16"), "TIFF": TYPES, "JPEG": ("uint8",), "BMP": ("uint8",), "NPY": TYPES, "RAW": TYPES,
}  # fmt: skip
BY_PILLOW = ("uint8", "uint16", "float32")  # other types of TIFF are written by `deal.io.tiff`
# Errors of the system that concern a single file. After any other one, such as a full disk, no output could be written.
OF_ONE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOMEM)


def write_image(path: Location, pixels: numpy.ndarray, metadata: Metadata | None = None) -> None:
    """Writes an image file atomically. See `image_bytes`."""
    content = image_bytes(path, pixels, metadata)
    with atomic_write(path) as file:
        file.write(content)


def image_bytes(path: Location, pixels: numpy.ndarray, metadata: Metadata | None = None) -> bytes:
    """The content of an image file.

    Args:
        path: the ending sets the format. JPEG is written with quality 95, and .raw without a header.
        pixels: [H, W] of a type that the format stores, or [H, W, 3] of uint8.
        metadata: metadata of the source, to be kept.
    """
    metadata = Metadata() if metadata is None else metadata
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"the ending of {path} must be one of {', '.join(SUFFIXES)}")
    if str(pixels.dtype) not in FORMAT_DTYPES[kind]:
        stored = ", ".join(FORMAT_DTYPES[kind])
        raise UnusableImage(f"{path} cannot store {pixels.dtype}: {kind} stores {stored}, and TIFF every type")
    if pixels.ndim == 3 and pixels.dtype != numpy.uint8 and kind not in ("NPY", "RAW"):
        raise UnusableImage(f"{path} cannot store colours of {pixels.dtype}, only of uint8; .npy can")
    return _encoded_at_least_pixels(path, pixels, kind, metadata)


def _encoded_at_least_pixels(path: Location, pixels: numpy.ndarray, kind: str, metadata: Metadata) -> bytes:
    """The content of a file, without the metadata if it cannot be written. Pillow raises anything for such."""
    try:
        return _encoded(pixels, kind, metadata)
    except MemoryError:
        raise
    except Exception as error:
        reason = error
    try:
        content = _encoded(pixels, kind, Metadata(white_is_zero=metadata.white_is_zero, raw=metadata.raw))
    except OSError as error:
        raise UnusableImage(f"{path} cannot be written as {kind}: {error}") from error
    warnings.warn(f"{path} is without the metadata of its source, which cannot be written: {reason}", stacklevel=3)
    return content


def _encoded(pixels: numpy.ndarray, kind: str, metadata: Metadata) -> bytes:
    encoded = io.BytesIO()
    if kind == "NPY":
        numpy.save(encoded, pixels)
    elif kind == "RAW":
        big_endian = metadata.raw is not None and metadata.raw.dtype.byteorder == ">"
        encoded.write(pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).tobytes())
    elif kind == "TIFF" and (metadata.white_is_zero or str(pixels.dtype) not in BY_PILLOW):
        options = save_options(metadata, kind)
        return tiff.encoded(pixels, white_is_zero=metadata.white_is_zero, **options)
    else:
        options = save_options(metadata, kind)
        if kind == "JPEG":
            options |= {"quality": 95, "subsampling": 0}
        elif kind == "PNG":
            options["compress_level"] = 4  # a third of the time of Pillow's default, and the same size
        dark_is_zero = kind == "TIFF" or not metadata.white_is_zero
        shown = pixels if dark_is_zero else numpy.iinfo(pixels.dtype).max - pixels
        Image.fromarray(shown).save(encoded, kind, **options)
    return encoded.getvalue()


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
        keep_going: continues after a source that cannot be read or computed, also for want of memory. An error of the
            system that concerns all outputs, such as a full disk, always ends the batch.
        manifest: a CSV file to which one row per job is appended, as soon as the job is over.
        progress: shows a progress bar, if there are several jobs.
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
        self._file = None if self.manifest is None else Manifest(Path(self.manifest))
        one = len(self.jobs) == 1  # a clip has a bar of its own
        self._bar = tqdm(self.jobs, unit="image", disable=one or not self.progress, file=sys.stderr)
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
            if job.problem:
                self._fail(job, UnusableImage(job.problem))
            elif self.skip_existing and os.path.exists(job.target):
                self._record(job, "skipped")
            else:
                yield job

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

    def save(self, job: Job, image: ImageFile, pixels: numpy.ndarray) -> None:
        """Writes the output of a job, with the metadata of its source, and records it."""
        message = f"only the first of {image.pages} pages was read" if image.pages > 1 else ""
        with _interrupt_delayed():
            write_image(job.target, pixels, image.metadata)
            self.record(job, image.frame, pixels, message)

    def record(self, job: Job, frame: Frame, pixels: numpy.ndarray, message: str = "") -> None:
        """Records a job whose output is written: one of its frames, and the enhanced pixels of this frame."""
        self._record(
            job, "done", height=pixels.shape[0], width=pixels.shape[1], type=str(pixels.dtype),
            black=f"{frame.low:g}", white=f"{frame.high:g}", message=message,
        )  # fmt: skip

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
