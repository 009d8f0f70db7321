"""The network at the start of a run, and which of its parameters are trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from deal.model.network import DEAL
from deal.training.settings import Settings

OUTPUT_RATE = 0.1  # share of the learning rate for the last two convolutions


def build_network(settings: Settings) -> DEAL:
    """A network that returns its input, or one with the weights that the settings name."""
    network = DEAL(
        settings.blocks, channels=settings.channels, width=settings.width, neuron=settings.neuron, norm=settings.norm,
        context=settings.context,
    )  # fmt: skip
    nn.init.zeros_(network.output_conv.weight)  # training starts from the unchanged image
    for file in [settings.weights] if isinstance(settings.weights, str) else settings.weights or []:
        start = DEAL.from_pretrained(file).with_channels(settings.channels)
        expected = {**network.config, "context": settings.context and start.context is not None}
        if start.config != expected:
            raise ValueError(f"weights {file} are of a network {start.config}; the settings ask for {network.config}")
        network.load_state_dict(start.state_dict(), strict=False)
    return network


def trainable_part(network: DEAL, trainable: str) -> nn.Module:
    """The module to run in training: the whole network, or its context alone. Gradients of the rest are disabled."""
    if trainable == "all" or network.context is None:
        return network
    only_context = trainable == "context"
    network.requires_grad_(not only_context)
    network.context.requires_grad_(only_context)
    return network.context if only_context else network


def parameter_groups(network: DEAL) -> list[dict[str, Any]]:
    """The trainable parameters for the optimiser, with their share of the learning rate.

    Steps of Adam have about the same size in all layers, but steps of the last two convolutions change the image
    directly. At the full rate, a few steps would permanently switch off most inputs of the last convolution.
    """
    output = {*network.refine_conv.parameters(), *network.output_conv.parameters()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter not in output]},
        {"params": [parameter for parameter in trainable if parameter in output], "share": OUTPUT_RATE},
    ]
