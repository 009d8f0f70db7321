"""The counts of each layer, their sums, and the energy."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Layer:
    """The counts of one layer: sums over steps, batch and passes."""

    name: str
    type: str
    spikes: int = 0  # that the neurons of this layer fired
    neuron_steps: int = 0  # neurons times steps
    input_spikes: int = 0  # in the spike trains that its products read
    inputs: int = 0  # elements of those
    accumulations: int = 0
    macs: int = 0
    dense: int = 0  # the MACs of the same products if nothing were spikes

    @property
    def rate(self) -> float | None:
        """Spikes per neuron and step; None for a layer without neurons."""
        return self.spikes / self.neuron_steps if self.neuron_steps else None

    @property
    def input_rate(self) -> float | None:
        """Spikes per element of what the layer reads; None if these are not spikes."""
        return self.input_spikes / self.inputs if self.inputs else None


class Report:
    """The layers in the order in which they first ran, and their sums. Prints as a table."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}

    @property
    def layers(self) -> list[Layer]:
        """Those that fired or computed a product."""
        return list(self._layers.values())

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name, "" for the model itself."""
        return self._layers[name]

    @property
    def accumulations(self) -> int:
        """Synaptic operations: additions that spikes cause."""
        return sum(layer.accumulations for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of what reads no spikes."""
        return sum(layer.macs for layer in self.layers)

    def energy(self, mac: float = 4.6, ac: float = 0.9) -> float:
        """E = ac * accumulations + mac * MACs, in the unit of the constants.

        The default is in picojoules, for 32-bit floating point in 45 nm (Horowitz, ISSCC 2014): 3.7 for a product and
        0.9 for a sum. It is the energy of all images of the batch, and of arithmetic alone: memory is not in it.
        """
        return ac * self.accumulations + mac * self.macs

    def layer(self, name: str, kind: str) -> Layer:
        """The layer to add to."""
        return self._layers.setdefault(name, Layer(name, kind))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("layer", "type", "firing rate", "input rate", "accumulations", "MACs", "dense MACs")
        ]
        for each in self.layers:
            rates = ("-" if rate is None else f"{rate:.3f}" for rate in (each.rate, each.input_rate))
            counts = (f"{count:,}" for count in (each.accumulations, each.macs, each.dense))
            rows.append((each.name or "(model)", each.type, *rates, *counts))
        dense = sum(each.dense for each in self.layers)
        rows.append(("total", "", "", "", f"{self.accumulations:,}", f"{self.macs:,}", f"{dense:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        form = "  ".join(f"{{:{'<' if column < 2 else '>'}{width}}}" for column, width in enumerate(widths))
        lines = [form.format(*row) for row in rows]
        return "\n".join([*lines, f"energy: {_joules(self.energy() * 1e-12)}"])


def _joules(energy: float) -> str:
    for prefix, size in (("m", 1e-3), ("u", 1e-6), ("n", 1e-9)):
        if energy >= 10 * size:
            return f"{energy / size:.1f} {prefix}J"
    return f"{energy * 1e12:.1f} pJ"
