"""What a user would run instead of `deal`: the network in plain torch, layer by layer, and its training against a
generator that degrades image by image; and torch.compile of the network."""

from __future__ import annotations

import torch
from degradation_rivals import image_by_image
from ssim_rivals import FiveConvolutions
from tdbn_rivals import EagerConv
from torch import Tensor, nn

from deal.model.blocks import TIME_STEPS
from deal.model.generator import Generator
from deal.model.network import DEAL
from deal.training.settings import Settings


class Reflected(nn.Conv2d):
    """A convolution behind a reflecting edge."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, dilation=dilation)
        self.edge = nn.ReflectionPad2d(dilation * (kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.edge(x))


class Convolutions(nn.Module):
    """The four that either block has, under our names."""

    def __init__(self, width: int, large: int, small: int, dilation: int) -> None:
        super().__init__()
        self.first_conv, self.second_conv = Reflected(width, width, 3), Reflected(width, width, 3)
        self.large_conv, self.small_conv = Reflected(width, width, large, dilation), Reflected(width, width, small)


class Scale(Convolutions):
    def __init__(self, width: int, *sizes: int) -> None:
        super().__init__(width, *sizes)
        self.first_norm, self.second_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.large_norm, self.small_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.first_norm(self.first_conv(x)))
        y = torch.relu(self.second_norm(self.second_conv(y) + x))
        carried = torch.relu(self.large_norm(self.large_conv(y)) + carried)
        return torch.relu(self.small_norm(self.small_conv(carried)) + x), carried


class Spike(Convolutions):
    def __init__(self, width: int, *sizes: int) -> None:
        super().__init__(width, *sizes)
        self.spiking = EagerConv(width, 1, TIME_STEPS)

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.first_conv(x))
        y = torch.relu(self.second_conv(y) + x)
        carried = torch.relu(self.large_conv(y) + carried)
        return torch.relu(self.spiking(self.small_conv(carried)) + x), carried


class Plain(nn.Module):
    """The network, with the weights of ours."""

    def __init__(self, ours: DEAL) -> None:
        super().__init__()
        channels, width = ours.channels, ours.width
        self.input_conv, self.feature_conv = Reflected(channels, width, 3), Reflected(width, width, 3)
        kinds = {"scale": Scale, "spike": Spike}
        self.blocks = nn.ModuleList(kinds[kind](width, *sizes) for kind, *sizes in ours.plan)
        self.refine_conv, self.output_conv = Reflected(width, width, 3), Reflected(width, channels, 3)
        self.load_state_dict(ours.state_dict())
        self.to(ours.input_conv.weight).train(ours.training)

    def forward(self, x: Tensor) -> Tensor:
        y = carried = torch.relu(self.feature_conv(torch.relu(self.input_conv(x))))
        for block in self.blocks:
            y, carried = block(y, carried)
        return torch.tanh(self.output_conv(torch.relu(self.refine_conv(y)))) + x


class PlainGame:
    """A step of either player as it is usually written: the mixture image by image, each pass for itself."""

    def __init__(self, network: nn.Module, generator: Generator, settings: Settings, like: Tensor) -> None:
        self.network, self.generator, self.settings = network, generator, settings
        self.similarity = FiveConvolutions(like)
        self.network_optimiser = torch.optim.Adam(network.parameters(), settings.learning_rate)
        self.generator_optimiser = torch.optim.SGD(
            generator.parameters(), settings.generator_rate, settings.momentum, weight_decay=settings.weight_decay
        )

    def loss(self, y: Tensor, x: Tensor) -> Tensor:
        return self.settings.l1_weight * (y - x).abs().mean() + self.settings.ssim_weight * (1 - self.similarity(y, x))

    def step(self, x: Tensor, params: dict[str, Tensor], adversary: bool) -> Tensor:
        self.network_optimiser.zero_grad()
        with torch.set_grad_enabled(adversary):
            weights = self.generator.weights(x)
            x_hat = image_by_image(x, weights, params["gaussian_blur"], params["stripe"])
        loss = self.loss(self.network(x_hat.detach()), x)
        loss.backward()
        self.network_optimiser.step()
        if adversary:
            self.generator_optimiser.zero_grad()
            fidelity = self.loss(x_hat, x)
            (self.settings.fidelity_weight * fidelity - self.loss(self.network(x_hat), x)).backward()
            self.generator_optimiser.step()
        return loss.detach()
