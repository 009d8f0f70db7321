"""Argument checks that several packages share. Errors name the argument, the value, and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Size = int | tuple[int, int] | None


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raises ValueError unless the value is an integer of at least `minimum`; booleans are not integers here."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}")


def height_and_width(name: str, size: Size) -> tuple[int, int] | None:
    """A size as height and width. One number means a square, None means no limit.

    >>> height_and_width("crop", 128)
    (128, 128)
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f"{name} must be an integer of at least 1, a pair of them, or None; got {size!r}")
    return pair
