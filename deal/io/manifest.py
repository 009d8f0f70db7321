"""The record of a batch: a CSV file with a row for every image, to which several runs may append."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = ("when", "source", "target", "status", "seconds", "height", "width", "type", "black", "white", "message")
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # the name of a file need not be UTF-8


class Manifest:
    """Appends rows to a manifest, which is created if it does not exist. Each row is written at once and as a whole."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        if self._file.seekable() and self._file.tell() == 0:  # an empty file, or a file system without links
            self._file.write(_line(COLUMNS))

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row. Columns without a value stay empty."""
        self._file.write(_line(row.get(name, "") for name in COLUMNS))

    def close(self) -> None:
        self._file.close()


def written_by(path: Path) -> set[str]:
    """The absolute paths of the outputs that a manifest records; none if it does not exist or is no manifest."""
    try:
        with open(path, newline="", **ENCODING) as file:  # type: ignore[call-overload]
            rows = csv.DictReader(file)
            return {os.path.abspath(row["target"]) for row in rows if row.get("status") == "done" and row.get("target")}
    except (OSError, csv.Error):
        return set()


def _create(path: Path) -> None:
    """Another run may do the same at this moment, so the file appears with its header or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(_line(COLUMNS))
        with contextlib.suppress(OSError):  # it exists, or the file system has no links
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)
    return text.getvalue().encode(**ENCODING)
