"""What `swap` did, as a table."""

from __future__ import annotations

from typing import NamedTuple

from deal_kernels.compat.deferred import Uses


class Layer(NamedTuple):
    """A neuron of the network."""

    name: str
    kind: str  # the name of its class before the swap
    note: str  # how it runs now, or why it was left


class Norm(NamedTuple):
    """A batch norm of the network that is fused into the neuron behind it, if there is one."""

    name: str
    kind: str
    uses: Uses  # counts its calls, and prints as text


class Report(NamedTuple):
    """The neurons that run fused now, and those that were left as they are.

    >>> print(Report([Layer("conv1.neuron", "LIFNode", "")], [Layer("head", "QIFNode", "no fused form")]))
    1 of 2 neurons replaced
    replaced  conv1.neuron  LIFNode
    left      head          QIFNode  no fused form
    """

    replaced: list[Layer]
    left: list[Layer]
    norms: tuple[Norm, ...] = ()  # with norms=True; what they count goes on after the swap

    def __str__(self) -> str:
        rows = [("replaced", *each) for each in self.replaced] + [("left", *each) for each in self.left]
        title = f"{len(self.replaced)} of {len(rows)} neurons replaced"
        if self.norms:
            title += f", {sum(each.uses.fused > 0 for each in self.norms)} of {len(self.norms)} norms fused so far"
        rows += [("norm", name, kind, str(uses)) for name, kind, uses in self.norms]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([title, *table])
