"""Short names of files and folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from deal.io.images import Location


def short_names(paths: Sequence[Location], taken: Collection[str] = ()) -> list[str]:
    """The last part of each path, with as many of the folders above it as tell all of them and `taken` apart.

    >>> short_names(["runs/a/best.safetensors", "runs/b/best.safetensors"])
    ['a/best.safetensors', 'b/best.safetensors']
    """
    parts = [Path(path).absolute().parts for path in paths]
    names: list[str] = []
    for count in range(1, 1 + max(map(len, parts), default=0)):
        names = ["/".join(each[-count:]) for each in parts]
        if len({*names, *taken}) == len(names) + len(taken):
            break
    return names
