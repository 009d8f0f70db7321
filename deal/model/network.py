"""The enhancement network N_E: convolutions and two kinds of dual-residual blocks.

>>> import torch
>>> network = DEAL().eval()
>>> with torch.no_grad():
...     network(torch.rand(1, 1, 60, 80)).shape  # [B, C, H, W]
torch.Size([1, 1, 60, 80])
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deal.model import weight_files
from deal.model.blocks import (
    LEVELS,
    NORM_FACTORS,
    TIME_STEPS,
    Block,
    Neuron,
    Norm,
    ScaleTransform,
    SpikingSeparation,
    convolution,
    parse_blocks,
)
from deal.model.parts import Parts, Runner, only_detail
from deal.model.saved import SavedNetwork
from deal_kernels._common.checks import check_integer, one_of
from deal_kernels.tdbn import SpikingConv, TDBatchNorm2d

REFINE_SCALE = 0.3  # initial scale of the convolution before the last one


class DEAL(SavedNetwork):
    """The enhancement network. It maps images [B, C, H, W] in [0, 1] to images of the same size.

    Args:
        blocks: "cascade1", "cascade2" (used by the released weights) or "cascade3", or a list of blocks, each a `Block`
            or its values: ("scale" or "spike", kernel size, kernel size, dilation).
        channels: of the images, 1 or 3.
        width: number of hidden channels.
        neuron: "integer" fires integers from 0 to 4 with a straight-through gradient; "binary" fires 0 or 1.
        norm: norm of the spiking convolutions: batch norm, or threshold-dependent batch norm with the factor sqrt(1/2)
            for a residual branch. The scale-transform blocks always use batch norm.

    >>> network = DEAL("cascade1", channels=3)
    >>> sum(parameter.numel() for parameter in network.parameters())
    382307
    >>> DEAL([("scale", 5, 3), ("spike", 7, 5, 2)], width=16).reach
    19
    """

    METADATA = "deal.config"
    stride = 1  # any size of image is accepted
    radiometric_parts = ("detail",)

    def __init__(
        self, blocks: str | Sequence[Block | Sequence[Any]] = "cascade2", *, channels: int = 1, width: int = 32,
        neuron: Neuron = "integer", norm: Norm = "bn",
    ) -> None:  # fmt: skip
        super().__init__()
        one_of("channels", channels, (1, 3))
        one_of("neuron", neuron, tuple(LEVELS))
        one_of("norm", norm, tuple(NORM_FACTORS))
        check_integer("width", width, 1)
        self.plan = parse_blocks(blocks)
        self.channels, self.width, self.neuron, self.norm = channels, width, neuron, norm
        self.input_conv = convolution(channels, width, 3, relu=True)
        self.feature_conv = convolution(width, width, 3, relu=True)
        self.blocks = nn.ModuleList(
            ScaleTransform(width, *sizes) if kind == "scale"
            else SpikingSeparation(width, *sizes, neuron=neuron, norm=norm)
            for kind, *sizes in self.plan
        )  # fmt: skip
        self.refine_conv = convolution(width, width, 3, relu=True, scale=REFINE_SCALE)
        self.output_conv = convolution(width, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Enhanced images of x [B, C, H, W]. Values may leave [0, 1]: clamp them for display."""
        if x.dim() != 4 or x.shape[1] != self.channels or x.shape[2] < self.min_size or x.shape[3] < self.min_size:
            raise ValueError(
                f"x must be [B, {self.channels}, H, W] of {self.min_size} x {self.min_size} pixels or more; "
                f"got the shape {tuple(x.shape)}"
            )
        return self.restored(x)

    def separate(self, x: Tensor, run: Runner | None = None) -> Parts:
        """The parts of x [B, C, H, W]: all that changes is detail.

        Args:
            run: calls the network, such as `run(network, image)`, for instance tile by tile.
        """
        y = self.restored(x) if run is None else run(self.restored, x)
        return only_detail(x - y)

    def restored(self, x: Tensor) -> Tensor:
        """Enhanced images of x. Tiled inference runs it tile by tile."""
        image = _channels_last(x) if x.is_cpu else x  # as the convolutions compute there
        y = carried = self.feature_conv(self.input_conv(image))
        for block in self.blocks:
            y, carried = block(y, carried)
        return x + torch.tanh(self.output_conv(self.refine_conv(y)))

    @property
    def reach(self) -> int:
        """The receptive radius of `restored` in evaluation mode, in pixels."""
        return 4 + sum(block.reach for block in self.plan)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions per pixel; spiking ones count once per time step, as in the
        paper."""
        spiking = {module.conv for module in self.modules() if isinstance(module, SpikingConv)}
        convolutions = (module for module in self.modules() if isinstance(module, nn.Conv2d))
        return sum(each.weight.numel() * (TIME_STEPS if each in spiking else 1) for each in convolutions)

    @property
    def min_size(self) -> int:
        """The least height and width of an image, given by the reflection padding."""
        reflected = max(1, *(max(block.dilation * (block.large // 2), block.small // 2) for block in self.plan))
        return reflected + 1

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments of this network."""
        blocks = [list(block) for block in self.plan]
        return {
            "blocks": blocks, "channels": self.channels, "width": self.width, "neuron": self.neuron, "norm": self.norm,
        }  # fmt: skip

    @property
    def fused(self) -> bool:
        """Whether the norms are folded into the convolutions."""
        return not any(isinstance(module, TDBatchNorm2d) for module in self.modules())

    def fuse(self) -> DEAL:
        """Folds the norms into the convolutions permanently, so that inference does not repeat it on every call.

        The results are those of evaluation mode. A fused network cannot be saved or trained.
        """
        for block in self.blocks:
            block.fuse()  # type: ignore[operator]
        return self

    def prepared(self, channels: int) -> DEAL:
        """A fused copy in evaluation mode, for images with this many channels."""
        return self.with_channels(channels).eval().fuse()

    def with_channels(self, channels: int) -> DEAL:
        """A copy of this network for images with one or three channels.

        From three channels to one: the result for a grey image is the mean of the three channels that this network
        gives for three copies of it, exactly if they are equal, and else up to the curvature of the tanh.
        From one channel to three: each channel of the result is the result of this network.
        """
        if self.fused:
            raise ValueError("the channels of a fused network cannot change: call with_channels() before fuse()")
        other = DEAL(**{**self.config, "channels": channels}).to(self.input_conv.weight)
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        if channels != self.channels:
            seen = state["input_conv.weight"].sum(1, keepdim=True) / channels
            state["input_conv.weight"] = seen.repeat_interleave(channels, 1)
            for name in ("output_conv.weight", "output_conv.bias"):
                state[name] = state[name].mean(0, keepdim=True).repeat_interleave(channels, 0)
        other.load_state_dict(state)
        return other.train(self.training)

    def save_pretrained(self, path: str | os.PathLike[str], **notes: str) -> None:
        if self.fused:
            raise ValueError("a fused network cannot be saved: call save_pretrained() before fuse()")
        super().save_pretrained(path, **notes)

    @classmethod
    def from_released(cls, path: str | os.PathLike[str]) -> DEAL:
        """Loads a checkpoint of the released code: a three-channel cascade2, in evaluation mode."""
        config = json.dumps({"blocks": "cascade2", "channels": 3})
        return cls.from_tensors(path, config, weight_files.load_released(path))


def _channels_last(x: Tensor) -> Tensor:
    """x [B, C, H, W] in channels-last memory, with its strides even if C is 1, where torch accepts any strides."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).flatten().view(batch, height, width, channels).permute(0, 3, 1, 2)
