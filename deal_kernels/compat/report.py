"""What `swap` did, as a table."""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """A neuron of the network."""

    name: str
    kind: str  # the name of its class before the swap
    note: str  # how it runs now, or why it was left


class Report(NamedTuple):
    """The neurons that run fused now, and those that were left as they are.

    >>> print(Report([Layer("conv1.neuron", "LIFNode", "")], [Layer("head", "QIFNode", "no fused form")]))
    1 of 2 neurons replaced
    replaced  conv1.neuron  LIFNode
    left      head          QIFNode  no fused form
    """

    replaced: list[Layer]
    left: list[Layer]

    def __str__(self) -> str:
        rows = [("replaced", *each) for each in self.replaced] + [("left", *each) for each in self.left]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([f"{len(self.replaced)} of {len(rows)} neurons replaced", *table])
