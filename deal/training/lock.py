"""A lock on the folder of a run, so that no two trainings write to it."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
FAR = 1 << 30  # Windows does not let others read a locked byte, so the one that is locked is behind the text


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates the folder and holds its lock. The system releases it when the process ends, in whatever way.

    Raises:
        RuntimeError: if another training holds the lock. The message names the folder and the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        if not _acquire(file.fileno(), folder):
            file.seek(0)
            raise RuntimeError(
                f"{folder} is in use by another training, process {file.read() or 'unknown'}: wait until it ends, or "
                "choose another output"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _acquire(file: int, folder: Path) -> bool:
    """Locks the open file unless another process has; returns whether the training may go on."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"{folder} cannot be locked, so start no second training in it: {error}", stacklevel=4)
    return True
