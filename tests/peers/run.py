"""Runs a library's own tests with every neuron swapped when it is made: see the README beside it."""

import argparse
import functools
import importlib
from collections import Counter

import pytest

from deal_kernels import lif, multistate, psn
from deal_kernels.compat import swap
from deal_kernels.compat.fused import Fused
from deal_kernels.compat.swapping import ADAPTERS, LIBRARIES

NAMES = {each.__name__.split(".")[2] for each in LIBRARIES}
KERNELS = {lif.lif, multistate.clif, multistate.cuba, multistate.lsnn, psn.psn, psn.sliding_psn}


class Calls:
    """The calls of neurons that returned: how many ran fused, fell back to the library's own step, or were left."""

    def __init__(self, kinds):
        self.kinds = tuple(kinds)
        self.counts = {column: Counter() for column in ("fused", "fell back", "left")}
        self.kernels = 0  # calls of them
        self.inside = False  # of a neuron: what it calls is part of its own call

    def counts_kernels(self, module):
        """Makes a module of the adapters count its calls of kernels."""
        for name, function in list(vars(module).items()):
            if callable(function) and getattr(function, "__hash__", None) and function in KERNELS:
                setattr(module, name, self.counted(function))

    def counted(self, function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            self.kernels += 1
            return function(*args, **kwargs)

        return counted

    def watch(self, owner):
        """Counts the calls of a class's own forward."""
        forward = owner.forward

        @functools.wraps(forward)
        def watched(neuron, *args, **kwargs):
            if self.inside or not isinstance(neuron, self.kinds):
                return forward(neuron, *args, **kwargs)
            self.inside, before = True, self.kernels
            try:
                result = forward(neuron, *args, **kwargs)
            finally:
                self.inside = False
            column = "fused" if self.kernels > before else "fell back" if isinstance(neuron, Fused) else "left"
            self.counts[column][type(neuron).__name__.removeprefix("Fused")] += 1
            return result

        owner.forward = watched


def installed(library):
    """The classes of a library that have a fused form, in the version that is installed."""
    found = {}
    for name in ADAPTERS:
        module, _, kind = name.rpartition(".")
        if module.startswith(library):
            try:
                found[getattr(importlib.import_module(module), kind)] = ADAPTERS[name]
            except (ImportError, AttributeError):
                continue
    return found


def owner_of_forward(kind):
    return next((base for base in kind.__mro__ if "forward" in vars(base)), None)


def swap_when_made(kind):
    made = kind.__init__

    @functools.wraps(made)
    def init(self, *args, **kwargs):
        made(self, *args, **kwargs)
        if type(self) is kind:
            swap(self)

    kind.__init__ = init


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=sorted(NAMES))
    parser.add_argument("folder")
    arguments, others = parser.parse_known_args()

    adapters = installed(arguments.library)
    calls = Calls(adapters)
    for module in LIBRARIES:
        calls.counts_kernels(module)
    for owner in {owner_of_forward(each) for each in (*adapters, *adapters.values())} - {None}:
        calls.watch(owner)
    for kind in adapters:
        swap_when_made(kind)

    code = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", arguments.folder, *others])
    for column, found in calls.counts.items():
        print(f"{column:9} {found.total():5}  {', '.join(f'{kind} {n}' for kind, n in sorted(found.items()))}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
