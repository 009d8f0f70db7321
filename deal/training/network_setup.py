"""The network at the start of a run, and the shares of the learning rate of its parts."""

from __future__ import annotations

from typing import Any

from torch import nn

from deal.model.network import DEAL
from deal.model.pretrained import Network, from_file
from deal.model.separation import SIZES, DealU
from deal.training.settings import Settings

OUTPUT_RATE = 0.1  # share of the learning rate for the last two convolutions of a cascade
STATISTICS_RATE = 7.0  # share for the small networks behind statistics of whole images
SHADING_RATE = 1.5
STRIPS_SETTLE = 0.4  # of `settle_steps`; columns and rows have the fewest weights


def build_network(settings: Settings) -> Network:
    """A network that returns its input, or one with the weights that the settings name."""
    network = _new_network(settings)
    if settings.weights is not None:
        start = from_file(settings.weights)
        if start.config != network.config:
            raise ValueError(
                f"weights {settings.weights} are of a network {start.config}; the settings ask for {network.config}"
            )
        network.load_state_dict(start.state_dict())
    return network


def _new_network(settings: Settings) -> Network:
    if isinstance(settings.blocks, str) and settings.blocks in SIZES:
        if settings.channels != 1:
            raise ValueError(
                f"{settings.blocks} treats each channel alone and is trained with channels=1; got {settings.channels}"
            )
        return DealU(settings.blocks, neuron=settings.neuron, norm=settings.norm, strips=settings.strips)
    if settings.neuron == "none":
        raise ValueError(f"the neuron none is for deal-u only; got it with the blocks {settings.blocks}")
    network = DEAL(
        settings.blocks, channels=settings.channels, width=settings.width, neuron=settings.neuron, norm=settings.norm
    )
    nn.init.zeros_(network.output_conv.weight)  # training starts from the unchanged image
    return network


def parameter_groups(network: Network) -> list[dict[str, Any]]:
    """The parameters for the optimiser, with their share of the learning rate.

    Steps of Adam have about the same size in all layers, but steps of the last two convolutions of a cascade change the
    image directly. At the full rate, a few steps would permanently switch off most inputs of the last convolution.
    """
    special: list[tuple[nn.Module, dict[str, Any]]]
    if isinstance(network, DEAL):
        special = [(nn.ModuleList([network.refine_conv, network.output_conv]), {"share": OUTPUT_RATE})]
    else:
        strips = nn.ModuleList([network.columns, network.rows])
        special = [
            (strips, {"share": STATISTICS_RATE, "settles": STRIPS_SETTLE}),
            (network.tone, {"share": STATISTICS_RATE, "settles": 1.0}),
            (network.shading, {"share": SHADING_RATE, "settles": 1.0}),
        ]
    apart = {parameter for module, _ in special for parameter in module.parameters()}
    others = {"params": [parameter for parameter in network.parameters() if parameter not in apart]}
    return [others, *({"params": list(module.parameters()), **options} for module, options in special)]
