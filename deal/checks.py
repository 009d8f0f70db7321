"""The check of sizes, for every package that takes some."""

from __future__ import annotations

from collections.abc import Sequence

from deal_kernels._common.checks import is_integer

Size = int | tuple[int, int] | None


def height_and_width(name: str, size: Size) -> tuple[int, int] | None:
    """A size as height and width. One number means a square, None means no limit.

    >>> height_and_width("crop", 128)
    (128, 128)
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(not is_integer(side) or side < 1 for side in pair):
        raise ValueError(f"{name} must be an integer of at least 1, a pair of them, or None; got {size!r}")
    return pair
