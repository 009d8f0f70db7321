"""Which images are read, and where their results are written."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from deal.io.images import SUFFIXES, Location

T = TypeVar("T")


def find_images(sources: Location | Sequence[Location], *, recursive: bool = False) -> list[Path]:
    """The image files that the sources name, without repetition; those of a folder or pattern are sorted by name.

    Args:
        sources: one or several of: an image file; a folder; a pattern such as "flights/*/ir_*.png"; a .txt file with
            one source per line, relative to the folder of the .txt file.
        recursive: includes the subfolders of folders.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    found = [path for place in places for path in _images_of(Path(place), recursive)]
    return list(dict.fromkeys(found))


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without the ending. Files of two folders with the same name are partners."""
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise ValueError(f"{named[path.stem]} and {path} have the same name: partners are found by their names")
        named[path.stem] = path
    return named


def _images_of(place: Path, recursive: bool) -> list[Path]:
    if place.is_dir():
        inside = place.rglob("*") if recursive else place.iterdir()
        return _not_empty(_only_images(inside), f"{place} has no images ({', '.join(SUFFIXES)})")
    if place.suffix.lower() == ".txt" and place.is_file():
        lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
        listed = [path for line in lines if line for path in _images_of(place.parent / line, recursive)]
        return _not_empty(listed, f"{place} lists no images")
    if place.is_file():
        return [place]
    if glob.has_magic(str(place)):
        matches = map(Path, glob.glob(str(place), recursive=True))
        return _not_empty(_only_images(matches), f"no images match {place}")
    raise FileNotFoundError(f"{place} does not exist")


def _only_images(paths: Iterable[Path]) -> list[Path]:
    """Names that start with a dot are temporary files, or notes of another system."""
    return sorted(
        path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _not_empty(found: list[T], message: str) -> list[T]:
    if not found:
        raise FileNotFoundError(message)
    return found


class Job(NamedTuple):
    """An image file to read, and the file to write its result to."""

    source: Path
    target: Path


def plan_jobs(
    sources: Location | Sequence[Location], output: Location, *, recursive: bool = False, suffix: str = "",
    ending: str | None = None,
) -> list[Job]:  # fmt: skip
    """The jobs for these sources. No job overwrites a source, and no two jobs write the same file.

    Args:
        sources: see `find_images`.
        output: a folder, in which results keep the names of their sources, with the subfolders of source folders; or an
            image file, for a single source.
        recursive: includes the subfolders of folders.
        suffix: added to each name before the ending.
        ending: the ending of all results, such as ".tif"; None keeps that of each source.
    """
    places = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    output = Path(output)
    jobs: dict[Path, Job] = {}
    for place in map(Path, places):
        for source in find_images(place, recursive=recursive):
            inside = source.relative_to(place) if place.is_dir() else Path(source.name)
            if place.is_dir() and source.is_relative_to(output) and output != place:
                continue  # the result of an earlier run, in an output folder inside of the source folder
            name = inside.stem + suffix + (ending or inside.suffix)
            jobs.setdefault(source, Job(source, output / inside.with_name(name)))
    found = _not_empty(list(jobs.values()), f"all images are in the output folder {output}: choose another output")
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        if len(found) != 1:
            raise ValueError(f"output must be a folder for {len(found)} images; got {output}")
        found = [Job(found[0].source, output)]
    _check_targets(found)
    return found


def _check_targets(jobs: Iterable[Job]) -> None:
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() == source.resolve():
            raise ValueError(f"{source} would be overwritten: choose another output or add a suffix")
        if target in taken:
            raise ValueError(f"{taken[target]} and {source} would both be written to {target}")
        taken[target] = source
