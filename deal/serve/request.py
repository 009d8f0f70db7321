"""What a request asks for.

>>> wanted({"parts": "columns,rows", "strength": "0.5", "radiometric": "no"})
Wanted(parts=('columns', 'rows'), strength=0.5, radiometric=False)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from deal.model.parts import check_strengths
from deal_kernels._common.checks import one_of

RADIOMETRIC = {"auto": None, "yes": True, "no": False}


class Wanted(NamedTuple):
    """How an image is to be restored, see `deal.inference.enhancer.Enhancer`."""

    parts: tuple[str, ...] | None = None
    strength: float = 1.0
    radiometric: bool | None = None


def wanted(query: Mapping[str, str]) -> Wanted:
    """Reads the parameters of a request. Raises ValueError for those that are wrong.

    Args:
        query: parts, names with commas between them, or nothing for none of them; strength, a number; radiometric, one
            of auto, yes and no.
    """
    for name in query:
        one_of("a parameter", name, Wanted._fields)
    radiometric = query.get("radiometric", "auto")
    one_of("radiometric", radiometric, tuple(RADIOMETRIC))
    parts = tuple(filter(None, query["parts"].split(","))) if "parts" in query else None
    strength = _number("strength", query.get("strength", "1"))
    check_strengths(parts, strength)
    return Wanted(parts, strength, RADIOMETRIC[radiometric])


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} must be a number; got {text!r}") from error
