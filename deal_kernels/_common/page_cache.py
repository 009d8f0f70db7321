"""A cache of memory pages for large results on a CPU.

The first touch of a fresh page costs more than most kernels. So the pages of a tensor that is freed are kept for the
next one, up to DEAL_KERNELS_KEEP_MB megabytes (256; 0 keeps none).
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

LARGE = 4 << 20
HUGE_PAGE = 2 << 20
KEEP = int(os.environ.get("DEAL_KERNELS_KEEP_MB") or 256) << 20

# Threads change these by single, atomic calls only.
_kept: list[mmap.mmap] = []  # the oldest first
_lent: dict[int, tuple[weakref.ref[memoryview], mmap.mmap]] = {}  # by the id of the reference


def empty(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype, size: int) -> Tensor:
    """An uninitialised CPU tensor of `size` bytes."""
    pages = _taken(size) or _fresh(size)
    view = memoryview(pages)
    # A tensor holds its view. This costs half of weakref.finalize, and what a small layer computes is not much more.
    reference = weakref.ref(view, _give_back)
    _lent[id(reference)] = reference, pages
    # In place: for autograd the result is then no view.
    return torch.frombuffer(view, dtype=dtype, count=size // dtype.itemsize).as_strided_(shape, strides)


def release() -> None:
    """Returns all kept memory to the system."""
    _kept.clear()


def _fresh(size: int) -> mmap.mmap:
    # Private, so that a forked child does not write into its parent's results.
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    pages = mmap.mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE, **own)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _taken(size: int) -> mmap.mmap | None:
    """Kept pages that are large enough, by a quarter at most."""
    for pages in reversed(_kept.copy()):
        if size <= len(pages) <= size + size // 4 + HUGE_PAGE:
            try:
                _kept.remove(pages)
            except ValueError:  # another thread was quicker
                continue
            return pages
    return None


def _give_back(reference: weakref.ref[memoryview]) -> None:
    _kept.append(_lent.pop(id(reference))[1])
    while sum(map(len, _kept.copy())) > KEEP:
        try:
            _kept.pop(0)
        except IndexError:
            return
