"""Which images are read, and where their results are written."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from PIL import Image

from deal.io import video
from deal.io.images import SUFFIXES, Location

T = TypeVar("T")
Problem = Callable[[Path, str], None]  # is told of a place that cannot be read, and why


def find_images(
    sources: Location | Sequence[Location], *, recursive: bool = False, problem: Problem | None = None,
    clips: bool = False,
) -> list[Path]:  # fmt: skip
    """The image files that the sources name, without repetition; those of a folder or pattern are sorted by name.

    Args:
        sources: one or several of: an image file; a folder; a pattern such as "flights/*/ir_*.png"; a .txt file with
            one source per line, relative to the folder of the .txt file.
        recursive: includes the subfolders of folders.
        problem: is called with each source or subfolder that cannot be read, and a message; None raises instead.
        clips: finds clips, too.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    wanted = _Wanted(recursive, problem or _raise, (*SUFFIXES, *video.SUFFIXES) if clips else SUFFIXES)
    found = [path for place in places for path in _images_of(Path(place), wanted)]
    return list(dict.fromkeys(found))


class _Wanted(NamedTuple):
    recursive: bool
    problem: Problem
    endings: tuple[str, ...]


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without the ending. Files of two folders with the same name are partners."""
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise ValueError(f"{named[path.stem]} and {path} have the same name: partners are found by their names")
        named[path.stem] = path
    return named


def _raise(place: Path, message: str) -> NoReturn:
    raise FileNotFoundError(message)


def _images_of(place: Path, wanted: _Wanted) -> list[Path]:
    # os.path calls names absent that are too long or no names, where those of pathlib raise.
    problem = wanted.problem
    if os.path.isdir(place):
        inside = _only_images(_files_in(place, wanted), wanted)
        return _not_empty(inside, f"{place} has no images ({', '.join(wanted.endings)})", place, problem)
    if place.suffix.lower() == ".txt" and os.path.isfile(place):
        text = place.read_text(encoding="utf-8-sig", errors="surrogateescape")  # a name of a file need not be UTF-8
        lines = list(filter(None, map(str.strip, text.splitlines())))
        _not_empty(lines, f"{place} lists no images", place, problem)
        return [path for line in lines for path in _images_of(place.parent / line, wanted)]
    if os.path.isfile(place):
        return [place]
    if glob.has_magic(str(place)):
        matches = map(Path, glob.glob(str(place), recursive=True))
        return _not_empty(_only_images(matches, wanted), f"no images match {place}", place, problem)
    problem(place, f"{place} does not exist")
    return []


def _files_in(folder: Path, wanted: _Wanted) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        wanted.problem(Path(error.filename), f"{error.filename} cannot be read: {error.strerror}")

    for root, folders, files in os.walk(folder, onerror=unreadable):
        yield from (Path(root, name) for name in files)
        if not wanted.recursive:
            folders.clear()


def _only_images(paths: Iterable[Path], wanted: _Wanted) -> list[Path]:
    """Names that start with a dot are temporary files, or notes of another system."""
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in wanted.endings and not path.name.startswith(".") and os.path.isfile(path)
    )


def _not_empty(found: list[T], message: str, place: Path, problem: Problem) -> list[T]:
    if not found:
        problem(place, message)
    return found


class Job(NamedTuple):
    """An image file to read, and the file to write its result to."""

    source: Path
    target: Path
    problem: str = ""  # why the source cannot be read, if that is known


def plan_jobs(
    sources: Location | Sequence[Location], output: Location, *, recursive: bool = False, suffix: str = "",
    ending: str | None = None, keep_going: bool = False, earlier: Collection[str] = (), clips: bool = False,
) -> list[Job]:  # fmt: skip
    """The jobs for these sources. No job overwrites a source, and no two jobs write the same file.

    Args:
        sources: see `find_images`.
        output: a folder, in which results keep the names of their sources, with the subfolders of source folders; or an
            image file, for a single source.
        recursive: includes the subfolders of folders.
        suffix: added to each name before the ending.
        ending: the ending of the results of images, such as ".tif"; None keeps that of each source.
        keep_going: a source that cannot be read becomes a job with a problem, before the others, instead of an error.
        earlier: absolute paths of files that earlier runs wrote, see `deal.io.manifest`. They are no sources where the
            result of another source would replace them.
        clips: clips are sources, too. Their results keep the ending.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    output = Path(output)
    jobs: dict[Path, Job] = {}

    def problem(place: Path, message: str) -> None:
        jobs.setdefault(place, Job(place, output / place.name, message))

    for place in map(Path, places):
        is_folder = place.is_dir()
        report = problem if keep_going else None
        for source in find_images(place, recursive=recursive, problem=report, clips=clips):
            inside = source.relative_to(place) if is_folder else Path(source.name)
            if is_folder and source.is_relative_to(output) and output != place:
                continue  # the result of an earlier run, in an output folder inside of the source folder
            its_own = inside.suffix if clips and video.is_clip(inside) else ending or inside.suffix
            name = inside.stem + suffix + its_own
            jobs.setdefault(source, Job(source, output / inside.with_name(name)))
    found = list(jobs.values())
    if not found:
        raise FileNotFoundError(f"all images are in the output folder {output}: choose another output")
    if not output.is_dir() and _is_file_name(output, clips):
        return [_into_file(found, output, suffix, ending)]
    return _without_collisions(found, set(earlier))


def _is_file_name(output: Path, clips: bool) -> bool:
    """Whether an output that is no folder names an image file."""
    ending = output.suffix.lower()
    if ending in SUFFIXES or (clips and ending in video.SUFFIXES):
        return True
    if ending in Image.registered_extensions():
        raise ValueError(f"output must be a folder or an image file, {', '.join(SUFFIXES)}; got {output}")
    return False


def _into_file(jobs: list[Job], output: Path, suffix: str, ending: str | None) -> Job:
    if len(jobs) != 1:
        raise ValueError(f"output must be a folder for {len(jobs)} images; got {output}")
    if suffix or (ending and output.suffix.lower() != ending):
        given = f"the suffix {suffix}" if suffix else f"the format {ending}"
        raise ValueError(f"output must be a folder where {given} is given; got the file {output}")
    [job] = _without_collisions([jobs[0]._replace(target=output)], set())
    return job


def _without_collisions(jobs: list[Job], earlier: set[str]) -> list[Job]:
    """The jobs without those whose source is the result of an earlier run for another one of the sources.

    Raises:
        ValueError: if a job would overwrite a source or the result of another job.
    """
    targets = {os.path.realpath(job.target) for job in jobs if not job.problem}
    results = targets.intersection(map(os.path.realpath, earlier))
    kept = [job for job in jobs if job.problem or os.path.realpath(job.source) not in results]
    readable = [job for job in kept if not job.problem]
    sources = {os.path.realpath(job.source): job.source for job in readable}
    writers: dict[str, Path] = {}
    for source, target, _ in readable:
        path = os.path.realpath(target)
        if path in sources:
            raise ValueError(f"{sources[path]} would be overwritten: choose another output or another suffix")
        if path in writers:
            raise ValueError(f"{writers[path]} and {source} would both be written to {target}")
        writers[path] = source
    return kept
