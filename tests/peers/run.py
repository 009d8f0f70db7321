"""Runs a library's own tests with every neuron swapped when it is made: see the README beside it."""

import argparse
import functools
import importlib
from collections import Counter

import pytest

from deal_kernels.compat import swap
from deal_kernels.compat.fused import Fused
from deal_kernels.compat.swapping import ADAPTERS, LIBRARIES

calls: dict[str, Counter[str]] = {"fused": Counter(), "fell back": Counter(), "left": Counter()}


def known_classes(library):
    """The classes of an installed library that have a fused form."""
    for name in ADAPTERS:
        module, _, kind = name.rpartition(".")
        if module.startswith(library):
            yield getattr(importlib.import_module(module), kind)


def owner_of_forward(kind):
    return next(base for base in kind.__mro__ if "forward" in vars(base))


def swap_when_made(kind):
    made = kind.__init__

    @functools.wraps(made)
    def init(self, *args, **kwargs):
        made(self, *args, **kwargs)
        if type(self) is kind:
            swap(self)

    kind.__init__ = init


def count(owner, column):
    """Counts the calls of a class's own forward, in the column that `column` gives for the neuron."""
    forward = owner.forward

    @functools.wraps(forward)
    def counted(self, *args, **kwargs):
        calls[column(self)][type(self).__name__.removeprefix("Fused")] += 1
        return forward(self, *args, **kwargs)

    owner.forward = counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=sorted({each.__name__.split(".")[2] for each in LIBRARIES}))
    parser.add_argument("folder")
    arguments, others = parser.parse_known_args()

    kinds = list(known_classes(arguments.library))
    fused = {ADAPTERS[f"{kind.__module__}.{kind.__qualname__}"] for kind in kinds}
    for owner in {owner_of_forward(kind) for kind in kinds}:
        count(owner, lambda neuron: "fell back" if isinstance(neuron, Fused) else "left")
    for owner in {owner_of_forward(kind) for kind in fused}:
        count(owner, lambda _: "fused")
    for kind in kinds:
        swap_when_made(kind)

    code = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", arguments.folder, *others])
    calls["fused"].subtract(calls["fell back"])  # a fused neuron that falls back calls the library's forward
    for column, found in calls.items():
        print(f"{column:9} {found.total():5}  {', '.join(f'{kind} {n}' for kind, n in sorted(found.items()) if n)}")
    total = calls["fused"].total() + calls["fell back"].total()
    print(f"{calls['fell back'].total()} of {total} calls of swapped neurons fell back")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
