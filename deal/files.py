"""Images written as the one they come from: its bits, its colours, its metadata. And a row of such files, with a record
of what became of each."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags
from tqdm import tqdm

from deal.checkpoint import atomically
from deal.data import SUFFIXES, Location, UnusableImage, find_images

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
HOLDS = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32"), "JPEG": ("uint8",), "BMP": ("uint8",)}
LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma")
# Tags that say how pixels are stored, which the writer of the new file knows itself.
STORAGE = {
    *range(254, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, 290, 291, 292, 293, 301, 317, 318, 319, 320,
    *range(322, 326), 330, 332, 333, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34675,
}  # fmt: skip
GROUPS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
COLUMNS = ("when", "source", "target", "status", "seconds", "height", "width", "type", "black", "white", "message")


def write_image(path: Location, pixels: numpy.ndarray, source: Location | None = None) -> None:
    """Writes [H, W] or [H, W, 3] of uint8, uint16 or float32, whole or not at all.

    Args:
        path: its ending names the format. JPEG is written at quality 95.
        pixels: those of more than 8 bits have one channel.
        source: an image file whose metadata is kept: EXIF with its GPS tags, TIFF tags, colour profile, resolution,
            texts. What a camera has put beside the image, such as the raw data in a JPEG, is not.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"the ending of {path} must be one of {', '.join(SUFFIXES)}")
    if str(pixels.dtype) not in HOLDS[kind]:
        raise UnusableImage(f"{path} cannot hold pixels of {pixels.dtype}: {kind} holds {', '.join(HOLDS[kind])}")
    image, encoded = Image.fromarray(pixels), io.BytesIO()
    options = {} if source is None else _metadata(source, kind)
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    image.save(encoded, kind, **options)
    with atomically(path) as file:
        file.write(encoded.getbuffer())


def _metadata(source: Location, kind: str) -> dict[str, Any]:
    with Image.open(source) as image:
        info = image.info
        options = {name: info[name] for name in ("dpi", "icc_profile") if info.get(name)}
        if kind == "BMP":
            return {name: value for name, value in options.items() if name == "dpi"}
        exif = image.getexif()
        groups: dict[int, dict[int, Any]] = {tag: dict(exif.get_ifd(tag)) for tag in GROUPS if exif.get_ifd(tag)}
        dropped = STORAGE
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            dropped = STORAGE | {ExifTags.Base.Orientation}  # Pillow turns a TIFF's pixels as it reads them
        if kind == "TIFF":
            if not groups:  # which Pillow cannot write beside compressed pixels
                compression = info.get("compression")
                options["compression"] = compression if compression in LOSSLESS else "tiff_adobe_deflate"
            tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else exif
            return {**options, "tiffinfo": _tags(tags, groups, dropped)}
        for tag in dropped.intersection(exif):
            del exif[tag]
        if len(exif) or groups:
            options["exif"] = exif.tobytes()
        if kind == "PNG" and isinstance(image, PngImagePlugin.PngImageFile):
            options["pnginfo"] = _texts(image)
        elif kind == "JPEG" and "comment" in info:
            options["comment"] = info["comment"]
        return options


def _tags(tags: Any, groups: dict[int, dict[int, Any]], dropped: set[int]) -> TiffImagePlugin.ImageFileDirectory_v2:
    kept = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in tags:
        if tag not in dropped and tag not in TiffTags.TAGS_V2_GROUPS:
            if isinstance(tags, TiffImagePlugin.ImageFileDirectory_v2):
                kept.tagtype[tag] = tags.tagtype[tag]
            kept[tag] = tags[tag]
    for tag, group in groups.items():
        kept[tag] = group
    return kept


def _texts(image: PngImagePlugin.PngImageFile) -> PngImagePlugin.PngInfo:
    kept = PngImagePlugin.PngInfo()
    for name, text in image.text.items():
        kept.add_itxt(name, str(text))
    return kept


class Job(NamedTuple):
    """One file to make from another."""

    source: Path
    target: Path


class Made(NamedTuple):
    """What becomes of a source."""

    pixels: numpy.ndarray
    notes: dict[str, Any]  # for the manifest's columns


def planned(
    sources: Location | Sequence[Location], output: Location, *, recursive: bool = False, suffix: str = "",
    ending: str | None = None,
) -> list[Job]:  # fmt: skip
    """Which files are made from which.

    Args:
        sources: see `find_images`.
        output: a folder, which gets the names that the sources have, those of a folder's images as seen from that
            folder; or a file, its ending that of an image, for a single source.
        recursive: goes into the folders of a folder.
        suffix: stands behind each name, before the ending.
        ending: such as ".tif", for all files; None keeps that of each.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    output = Path(output)
    jobs: dict[Path, Job] = {}
    for place in map(Path, places):
        for source in find_images(place, recursive=recursive):
            inside = source.relative_to(place) if place.is_dir() else Path(source.name)
            if place.is_dir() and source.is_relative_to(output) and output != place:
                continue  # what an earlier run has put into a folder of its source
            jobs.setdefault(source, Job(source, output / inside.with_name(_named(inside, suffix, ending))))
    found = list(jobs.values())
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        if len(found) != 1:
            raise ValueError(f"the output for {len(found)} images must be a folder; got {output}")
        found = [Job(found[0].source, output)]
    _check_targets(found)
    return found


def _named(path: Path, suffix: str, ending: str | None) -> str:
    return path.stem + suffix + (ending or path.suffix)


def _check_targets(jobs: Iterable[Job]) -> None:
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() == source.resolve():
            raise ValueError(f"{source} would be written over: name another output, or a suffix")
        if target in taken:
            raise ValueError(f"{taken[target]} and {source} would both become {target}")
        taken[target] = source


class Tally(NamedTuple):
    """How many files came to what, and where each is recorded."""

    done: int
    skipped: int
    failed: int

    def __str__(self) -> str:
        counts = zip(("done", "skipped", "failed"), self, strict=True)
        return ", ".join(f"{count} {name}" for name, count in counts if count or name == "done")


def run(
    jobs: Sequence[Job], work: Callable[[Path], Made], *, skip_existing: bool = False, keep_going: bool = False,
    manifest: Location | None = None, progress: bool = False,
) -> Tally:  # fmt: skip
    """Makes the target of every job, with the metadata of its source, and records it.

    Args:
        work: makes of a source what the target will be.
        skip_existing: leaves out jobs whose target is there. As files are written as a whole, it is a whole one.
        keep_going: goes on behind sources that cannot be used. An output that cannot be written ends the run anyway.
        manifest: a CSV file that gets a line for every job as soon as it is over. What is in it stays.
        progress: shows a bar.
    """
    counts = dict.fromkeys(("done", "skipped", "failed"), 0)
    with _recorder(manifest) as record, tqdm(jobs, unit="image", disable=not progress, file=sys.stderr) as bar:
        for job in bar:
            start = time.perf_counter()
            if skip_existing and job.target.exists():
                status = "skipped"
                record(job, status, start, {})
            else:
                try:
                    job.target.parent.mkdir(parents=True, exist_ok=True)
                    made, status = work(job.source), "done"
                    with _uninterrupted():
                        write_image(job.target, made.pixels, job.source)
                        record(job, status, start, made.notes)
                except (UnusableImage, FileNotFoundError) as error:
                    status = "failed"
                    record(job, status, start, {"message": str(error)})
                    if not keep_going:
                        raise
                    bar.write(f"failed: {error}", file=sys.stderr)
            counts[status] += 1
    return Tally(**counts)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block. No thread but the main one hears of it anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *received: heard.append(received))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard and callable(before):
            before(*heard[0])


Record = Callable[[Job, str, float, dict[str, Any]], None]


@contextlib.contextmanager
def _recorder(manifest: Location | None) -> Iterator[Record]:
    if manifest is None:
        yield lambda *_: None
        return
    path = Path(manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            table.writeheader()

        def record(job: Job, status: str, start: float, notes: dict[str, Any]) -> None:
            seconds = time.perf_counter() - start
            when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            row = {"when": when, "source": job.source, "target": job.target, "status": status}
            table.writerow({**row, "seconds": f"{seconds:.3f}", **notes})
            file.flush()

        yield record
