"""What container a clip is, and whether it ends before its headers say: decoders take the end of a file for its end.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "a.avi"
>>> _ = path.write_bytes(b"RIFF" + (100).to_bytes(4, "little") + bytes(60))
>>> is_cut(path)
True
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

BOXES = tuple(b"ftyp moov mdat free wide skip pnot styp moof".split())  # with which MP4 and MOV begin
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # elements of Matroska
TAIL = 64  # bytes in which the end of a picture is looked for


def container_of(path: str | os.PathLike[str]) -> str | None:
    """The kind of container, by its first bytes, with FFmpeg's name; None if it is none of ours."""
    with open(path, "rb") as file:
        first = file.read(8)
    if first[4:] in BOXES:
        return "mov"
    known = {EBML: "matroska", b"RIFF": "avi", b"\xff\xd8": "mjpeg"}
    return next((name for start, name in known.items() if first.startswith(start)), None)


def is_cut(path: str | os.PathLike[str]) -> bool:
    """Whether bytes are missing at the end. False if the headers do not tell, as those of unfinished recordings."""
    length, container = Path(path).stat().st_size, container_of(path)
    with open(path, "rb") as file:
        if container == "mov":
            return _end_of_boxes(file, length) > length
        if container == "matroska":
            return _end_of_segment(file) > length
        if container == "avi":
            return _end_of_riff(file, length) > length
        file.seek(max(0, length - TAIL))
        return b"\xff\xd9" not in file.read()


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    place = 0
    while place + 8 <= length:
        file.seek(place)
        size = int.from_bytes(file.read(4), "big")
        if size == 1:
            file.seek(place + 8)
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0 means to the end of the file
            return place
        place += size
    return place


def _end_of_riff(file: BinaryIO, length: int) -> int:
    """Long AVI files are several chunks."""
    place = 0
    while place + 8 <= length:
        file.seek(place)
        kind, size = file.read(4), int.from_bytes(file.read(4), "little")
        if kind != b"RIFF" or not size:
            return place
        place += 8 + size
    return place


def _end_of_segment(file: BinaryIO) -> int:
    file.seek(4)
    header = _vint(file)
    file.seek(file.tell() + (header or 0))
    if file.read(4) != SEGMENT:
        return 0
    size = _vint(file)
    return 0 if size is None else file.tell() + size


def _vint(file: BinaryIO) -> int | None:
    """An integer of 1 to 8 bytes, as many as the first one has zeros in front, and one; None if it means unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    rest = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - rest)) - 1)]) + file.read(rest), "big")
    return None if value == (1 << 7 * (rest + 1)) - 1 else value
