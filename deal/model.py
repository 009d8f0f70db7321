"""N_E, the enhancement network: convolutions, and two kinds of dual-residual blocks.

>>> import torch
>>> network = DEAL().eval()
>>> with torch.no_grad():
...     network(torch.rand(1, 1, 60, 80)).shape  # [B, C, H, W]
torch.Size([1, 1, 60, 80])
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deal import checkpoint
from deal.context import LEAST_SIZE, Context
from deal_kernels.conv import Conv2d, conv2d
from deal_kernels.lif.arguments import one_of
from deal_kernels.tdbn import SpikingConv, TDBatchNorm2d

Neuron = Literal["integer", "binary"]
Norm = Literal["bn", "tdbn"]

STEPS = 4
LEVELS = {"integer": 4, "binary": 1}
NORMS = {"bn": None, "tdbn": math.sqrt(0.5)}  # the factor beside the threshold
METADATA = "deal.config"
RESIDUAL = 0.5  # of what is added to a residual without a norm, at first
REFINED = 0.3  # of what the last convolution reads, at first


class Block(NamedTuple):
    """One block of the network: the scale-transform block or the spiking-separation block."""

    kind: Literal["scale", "spike"]
    large: int  # the kernel of its third convolution
    small: int  # of its fourth
    dilation: int = 1  # of the third

    @property
    def reach(self) -> int:
        """How many pixels to each side its result depends on."""
        return 2 + self.dilation * (self.large // 2) + self.small // 2


# The paper's cascades. Of the third only the parameters are known: which kernels it adds, but not where nor dilated.
PRESETS: dict[str, tuple[Block, ...]] = {
    "cascade1": (Block("spike", 11, 7, 2), Block("scale", 11, 5)),
    "cascade2": (Block("scale", 7, 5), Block("spike", 7, 5, 2), Block("spike", 11, 7, 2), Block("scale", 11, 5)),
    "cascade3": (
        Block("scale", 7, 5), Block("spike", 7, 5, 2), Block("spike", 11, 7, 2), Block("scale", 11, 5),
        Block("spike", 11, 7, 2), Block("scale", 11, 7),
    ),
}  # fmt: skip


def _convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, relu: bool = False, scale: float = 1.0
) -> Conv2d:
    """Whose results vary at first as much as what it reads does (He et al.), or by a scale of that.

    Under torch's own weights they would vary less from layer to layer, until next to nothing is left of an image.
    """
    conv = Conv2d(
        inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, padding_mode="reflect",
        activation="relu" if relu else None,
    )  # fmt: skip
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if relu else "linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        conv.weight *= scale
    return conv


class ScaleTransform(nn.Module):
    """The scale-transform block: four convolutions, each with a batch norm, and two residuals.

    In evaluation the norms are folded into the convolutions.
    """

    def __init__(self, width: int, large: int, small: int, dilation: int = 1) -> None:
        super().__init__()
        self.first_conv = _convolution(width, width, 3)
        self.first_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.second_conv = _convolution(width, width, 3)
        self.second_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.large_conv = _convolution(width, width, large, dilation=dilation)
        self.large_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.small_conv = _convolution(width, width, small)
        self.small_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.scale: Tensor | None
        self.register_buffer("scale", None)  # of what the second convolution adds, once its norm is gone

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] and the residual that goes from block to block; both anew."""
        if not self.training or self.first_norm is None:
            return self._folded_forward(x, carried)
        assert self.second_norm is not None and self.large_norm is not None and self.small_norm is not None
        y = self.first_norm(self.first_conv(x)).relu_()
        y = self.second_norm(self.second_conv(y, residual=x)).relu_()
        carried = self.large_norm(self.large_conv(y)).add_(carried).relu_()
        return self.small_norm(self.small_conv(carried)).add_(x).relu_(), carried

    def _folded_forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        y = _folded_conv(self.first_conv, self.first_norm, x)
        y = _folded_conv(self.second_conv, self.second_norm, y, self._scaled(x))
        carried = _folded_conv(self.large_conv, self.large_norm, y, carried)
        return _folded_conv(self.small_conv, self.small_norm, carried, x), carried

    def _scaled(self, x: Tensor) -> Tensor:
        """What the second convolution adds: its norm stands behind the addition, and scales that, too."""
        scale = self.scale if self.second_norm is None else self.second_norm.folded()[0]
        return x if scale is None else x * scale.reshape(-1, 1, 1)

    @torch.no_grad()
    def fuse(self) -> ScaleTransform:
        """Folds the norms into the convolutions for good."""
        if self.second_norm is None:
            return self
        scale, _ = self.second_norm.folded()
        for name in ("first", "second", "large", "small"):
            conv = getattr(self, f"{name}_conv")
            conv.weight, conv.bias = map(nn.Parameter, _folded(conv, getattr(self, f"{name}_norm")))
            setattr(self, f"{name}_norm", None)
        self.scale = scale
        if scale.min() > scale.max() / 100:
            # relu(scale * y) is scale * relu(y): the convolution that reads it scales instead.
            assert self.second_conv.bias is not None
            self.second_conv.weight /= scale.reshape(-1, 1, 1, 1)
            self.second_conv.bias /= scale
            self.large_conv.weight *= scale.reshape(-1, 1, 1)
            self.scale = None
        return self


def _folded(conv: Conv2d, norm: TDBatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution with the norm in it."""
    assert conv.bias is not None
    if norm is None:
        return conv.weight, conv.bias
    scale, shift = norm.folded()
    return conv.weight * scale.reshape(-1, 1, 1, 1), conv.bias * scale + shift


def _folded_conv(conv: Conv2d, norm: TDBatchNorm2d | None, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """relu(norm(conv(x)) + residual)."""
    return conv2d(
        x, *_folded(conv, norm), padding=conv.padding, padding_mode="reflect", dilation=conv.dilation,  # type: ignore[arg-type]
        activation="relu", residual=residual,
    )  # fmt: skip


class SpikingSeparation(nn.Module):
    """The spiking-separation block: four convolutions, two residuals, and a spiking convolution before the last one.

    The spiking neurons see the same image at each of four steps. In evaluation they fire their mean at once.
    """

    def __init__(
        self, width: int, large: int, small: int, dilation: int = 1, *, neuron: Neuron = "integer", norm: Norm = "bn"
    ) -> None:
        super().__init__()
        self.first_conv = _convolution(width, width, 3, relu=True)
        self.second_conv = _convolution(width, width, 3, relu=True, scale=RESIDUAL)
        self.large_conv = _convolution(width, width, large, dilation=dilation, relu=True, scale=RESIDUAL)
        self.small_conv = _convolution(width, width, small)
        self.spiking = SpikingConv(
            width, width, reduce="mean", alpha=NORMS[norm], leak=0.25, levels=LEVELS[neuron], v_reset=None,
            detach_reset=True,
        )  # fmt: skip

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] and the residual that goes from block to block; both anew."""
        y = self.second_conv(self.first_conv(x), residual=x)
        carried = self.large_conv(y, residual=carried)
        return self.spiking(self.small_conv(carried), STEPS).add_(x).relu_(), carried

    def fuse(self) -> SpikingSeparation:
        """Folds the norm into the spiking convolution for good."""
        self.spiking.fuse()
        return self


class DEAL(nn.Module):
    """The enhancement network: images [B, C, H, W] in [0, 1] to images of their size, which may go beyond that range.

    Args:
        blocks: "cascade1", "cascade2" (that of the released weights) or "cascade3", or a list of blocks, each a `Block`
            or its values: ("scale" or "spike", kernel, kernel, dilation).
        channels: of the images, 1 or 3.
        width: channels inside.
        neuron: "integer" fires whole numbers from 0 to 4 and passes gradients straight through; "binary" fires 0 or 1.
        norm: of the spiking convolutions: "bn", or "tdbn" with its factor for a branch that is added to another one,
            the root of 1/2. Those of the scale-transform blocks are batch norm in either case.
        context: puts `deal.context` in front, which sees whole columns and the whole image. The paper's network has
            none.

    >>> network = DEAL("cascade1", channels=3)
    >>> sum(parameter.numel() for parameter in network.parameters())
    382307
    >>> DEAL([("scale", 5, 3), ("spike", 7, 5, 2)], width=16).reach
    19
    """

    def __init__(
        self, blocks: str | Sequence[Block | Sequence[Any]] = "cascade2", *, channels: int = 1, width: int = 32,
        neuron: Neuron = "integer", norm: Norm = "bn", context: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        one_of("channels", channels, (1, 3))
        one_of("neuron", neuron, tuple(LEVELS))
        one_of("norm", norm, tuple(NORMS))
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a whole number of at least 1; got {width!r}")
        self.plan = _planned(blocks)
        self.channels, self.width, self.neuron, self.norm = channels, width, neuron, norm
        self.context = Context() if context else None
        self.input_conv = _convolution(channels, width, 3, relu=True)
        self.feature_conv = _convolution(width, width, 3, relu=True)
        self.blocks = nn.ModuleList(
            ScaleTransform(width, *sizes) if kind == "scale"
            else SpikingSeparation(width, *sizes, neuron=neuron, norm=norm)
            for kind, *sizes in self.plan
        )  # fmt: skip
        self.refine_conv = _convolution(width, width, 3, relu=True, scale=REFINED)
        self.output_conv = _convolution(width, channels, 3)
        self.idle = False  # once fused: whether the convolutions add nothing, and need not run

    def forward(self, x: Tensor) -> Tensor:
        """The enhanced images of x [B, C, H, W]. Where they are to be shown, clamp them to [0, 1]."""
        if x.dim() != 4 or x.shape[1] != self.channels or min(x.shape[2:]) < self.least_size:
            raise ValueError(
                f"x must be [B, {self.channels}, H, W] of {self.least_size} x {self.least_size} pixels or more; "
                f"got the shape {tuple(x.shape)}"
            )
        return self.restored(x if self.context is None else self.context(x))

    def restored(self, x: Tensor) -> Tensor:
        """What the convolutions make of x, which its context has seen: what is left of the network for one who computes
        a large image in parts."""
        if self.idle:
            return x
        image = _channels_last(x) if x.is_cpu else x  # as the convolutions compute there
        y = carried = self.feature_conv(self.input_conv(image))
        for block in self.blocks:
            y, carried = block(y, carried)
        return x + torch.tanh(self.output_conv(self.refine_conv(y)))

    @property
    def reach(self) -> int:
        """How many pixels to each side a pixel of `restored` depends on, in evaluation."""
        return 4 + sum(block.reach for block in self.plan)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions for a pixel; a spiking one counts at each step, as in the paper."""
        spiking = {module.conv for module in self.modules() if isinstance(module, SpikingConv)}
        convolutions = (module for module in self.modules() if isinstance(module, nn.Conv2d))
        return sum(each.weight.numel() * (STEPS if each in spiking else 1) for each in convolutions)

    @property
    def least_size(self) -> int:
        """The height and width that images have to have: more than is reflected at an edge, what the context needs."""
        reflected = max(1, *(max(block.dilation * (block.large // 2), block.small // 2) for block in self.plan))
        return max(reflected + 1, 0 if self.context is None else LEAST_SIZE)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a network like this one."""
        blocks = [list(block) for block in self.plan]
        return {
            "blocks": blocks, "channels": self.channels, "width": self.width, "neuron": self.neuron, "norm": self.norm,
            "context": self.context is not None,
        }  # fmt: skip

    @property
    def fused(self) -> bool:
        """Whether the norms are gone."""
        return not any(isinstance(module, TDBatchNorm2d) for module in self.modules())

    def fuse(self) -> DEAL:
        """Folds the norms into the convolutions for good, for inference: every call then finds the weights ready. What
        adds nothing is left out, as the convolutions of a network of which only the context has learned.

        A fused network computes what this one computes in evaluation. It cannot be saved, nor trained as before.
        """
        for block in self.blocks:
            block.fuse()  # type: ignore[operator]
        self.idle = not any(parameter.any() for parameter in self.output_conv.parameters())
        return self

    def with_channels(self, channels: int) -> DEAL:
        """This network for images of one channel, or of three, with weights of its own.

        From three channels to one it gives, on a grey image, the mean of the three channels that this one gives on
        three copies of it, up to the curvature of the tanh over their differences, and exactly where they are equal.
        From one to three all three channels are what this one gives.
        """
        if self.fused:
            raise ValueError("a fused network keeps its channels: change them before fuse()")
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
        """Writes weights and config to one safetensors file, with notes in its metadata, such as what it was trained
        on. A file that is there is replaced at the end, as a whole."""
        if self.fused:
            raise ValueError("a fused network has lost its norms: save it before fuse()")
        checkpoint.save_tensors(path, self.state_dict(), {**notes, METADATA: json.dumps(self.config)})

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> DEAL:
        """The network of a file that `save_pretrained` wrote, on the CPU and in evaluation."""
        tensors, metadata = checkpoint.load_tensors(path)
        if METADATA not in metadata:
            raise ValueError(f"{path} has no {METADATA!r} in its metadata: it is not a network of save_pretrained")
        try:
            config = json.loads(metadata[METADATA])
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} does not fit the network: its config is not JSON: {error}") from error
        return cls._of(path, config, tensors)

    @classmethod
    def from_released(cls, path: str | os.PathLike[str]) -> DEAL:
        """The network of a checkpoint of the released code: a cascade2 of three channels, in evaluation."""
        return cls._of(path, {"blocks": "cascade2", "channels": 3}, checkpoint.load_released(path))

    @classmethod
    def _of(cls, path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DEAL:
        if not isinstance(config, Mapping):
            raise ValueError(f"{path} does not fit the network: its config must be a mapping; got {config!r}")
        try:
            network = cls(**config)
            if "input_conv.weight" in tensors:
                network.to(tensors["input_conv.weight"].dtype)
            network.load_state_dict(tensors)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit the network: {error}") from error
        return network.eval()


def _channels_last(x: Tensor) -> Tensor:
    """x [B, C, H, W] in that layout, and with its strides even if C is 1, where any would do."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).flatten().view(batch, height, width, channels).permute(0, 3, 1, 2)


def _planned(blocks: str | Sequence[Block | Sequence[Any]]) -> tuple[Block, ...]:
    """The blocks, once they are checked."""
    if isinstance(blocks, str):
        one_of("blocks", blocks, tuple(PRESETS))
        return PRESETS[blocks]
    if not isinstance(blocks, Sequence) or not blocks:
        raise ValueError(f"blocks must be the name of a preset or a list of at least one block; got {blocks!r}")
    return tuple(map(_block, blocks))


def _block(values: Block | Sequence[Any]) -> Block:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) not in (3, 4):
        raise ValueError(f"a block must be ('scale' or 'spike', kernel, kernel, dilation); got {values!r}")
    block = Block(*values)
    one_of("the kind of a block", block.kind, ("scale", "spike"))
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in block[1:]):
        raise ValueError(f"kernels and dilation of a block must be whole numbers of at least 1; got {tuple(block)}")
    if block.large % 2 == 0 or block.small % 2 == 0:
        raise ValueError(f"kernels of a block must be odd; got {tuple(block)}")
    return block
