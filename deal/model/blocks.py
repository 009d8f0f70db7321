"""The two kinds of blocks of the enhancement network, and the named cascades of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deal_kernels._common.checks import one_of
from deal_kernels.conv import Conv2d, conv2d
from deal_kernels.tdbn import SpikingConv, TDBatchNorm2d

Neuron = Literal["integer", "binary"]
Norm = Literal["bn", "tdbn"]

TIME_STEPS = 4
LEVELS: dict[Neuron, int] = {"integer": 4, "binary": 1}
NORM_FACTORS: dict[Norm, float | None] = {"bn": None, "tdbn": math.sqrt(0.5)}
RESIDUAL_SCALE = 0.5  # initial scale of convolutions that are added to a residual without a norm


class Block(NamedTuple):
    """The kind of one block, and the sizes of its last two convolutions."""

    kind: Literal["scale", "spike"]
    large: int  # kernel size of the third convolution
    small: int  # kernel size of the fourth convolution
    dilation: int = 1  # of the third convolution

    @property
    def reach(self) -> int:
        """The radius of its receptive field, in pixels."""
        return 2 + self.dilation * (self.large // 2) + self.small // 2


# The paper's cascades. It gives the kernel sizes that cascade3 adds, but neither their position nor their dilation.
PRESETS: dict[str, tuple[Block, ...]] = {
    "cascade1": (Block("spike", 11, 7, 2), Block("scale", 11, 5)),
    "cascade2": (Block("scale", 7, 5), Block("spike", 7, 5, 2), Block("spike", 11, 7, 2), Block("scale", 11, 5)),
    "cascade3": (
        Block("scale", 7, 5), Block("spike", 7, 5, 2), Block("spike", 11, 7, 2), Block("scale", 11, 5),
        Block("spike", 11, 7, 2), Block("scale", 11, 7),
    ),
}  # fmt: skip


def convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, relu: bool = False, scale: float = 1.0
) -> Conv2d:
    """A same-size convolution with the initialisation of He et al., times `scale`.

    With torch's default initialisation the signal would fade from layer to layer.
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

    In evaluation mode the norms are folded into the convolutions.
    """

    def __init__(self, width: int, large: int, small: int, dilation: int = 1) -> None:
        super().__init__()
        self.first_conv = convolution(width, width, 3)
        self.first_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.second_conv = convolution(width, width, 3)
        self.second_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.large_conv = convolution(width, width, large, dilation=dilation)
        self.large_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.small_conv = convolution(width, width, small)
        self.small_norm: TDBatchNorm2d | None = TDBatchNorm2d(width, alpha=None)
        self.scale: Tensor | None
        self.register_buffer("scale", None)  # of the residual of the second convolution, once its norm is folded

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """The new x [B, C, H, W], and the new residual that is carried from block to block."""
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
        """The residual of the second convolution. Its norm follows the addition, so it scales the residual as well."""
        scale = self.scale if self.second_norm is None else self.second_norm.folded()[0]
        return x if scale is None else x * scale.reshape(-1, 1, 1)

    @torch.no_grad()
    def fuse(self) -> ScaleTransform:
        """Folds the norms into the convolutions permanently."""
        if self.second_norm is None:
            return self
        scale, _ = self.second_norm.folded()
        for name in ("first", "second", "large", "small"):
            conv = getattr(self, f"{name}_conv")
            conv.weight, conv.bias = map(nn.Parameter, _folded(conv, getattr(self, f"{name}_norm")))
            setattr(self, f"{name}_norm", None)
        self.scale = scale
        if scale.min() > scale.max() / 100:
            # As relu(scale * y) equals scale * relu(y), the scale can move into the next convolution.
            assert self.second_conv.bias is not None
            self.second_conv.weight /= scale.reshape(-1, 1, 1, 1)
            self.second_conv.bias /= scale
            self.large_conv.weight *= scale.reshape(-1, 1, 1)
            self.scale = None
        return self


def _folded(conv: Conv2d, norm: TDBatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution with the norm folded in."""
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
    """The spiking-separation block: four convolutions, two residuals, and a spiking convolution at the end.

    The spiking neurons receive the same input at each of four time steps, and their mean output is passed on.
    """

    def __init__(
        self, width: int, large: int, small: int, dilation: int = 1, *, neuron: Neuron = "integer", norm: Norm = "bn"
    ) -> None:
        super().__init__()
        self.first_conv = convolution(width, width, 3, relu=True)
        self.second_conv = convolution(width, width, 3, relu=True, scale=RESIDUAL_SCALE)
        self.large_conv = convolution(width, width, large, dilation=dilation, relu=True, scale=RESIDUAL_SCALE)
        self.small_conv = convolution(width, width, small)
        self.spiking = SpikingConv(
            width, width, reduce="mean", alpha=NORM_FACTORS[norm], beta=0.25, levels=LEVELS[neuron], v_reset=None,
            detach_reset=True,
        )  # fmt: skip

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """The new x [B, C, H, W], and the new residual that is carried from block to block."""
        y = self.second_conv(self.first_conv(x), residual=x)
        carried = self.large_conv(y, residual=carried)
        return self.spiking(self.small_conv(carried), TIME_STEPS).add_(x).relu_(), carried

    def fuse(self) -> SpikingSeparation:
        """Folds the norm into the spiking convolution permanently."""
        self.spiking.fuse()
        return self


def parse_blocks(blocks: str | Sequence[Block | Sequence[Any]]) -> tuple[Block, ...]:
    """Blocks from the name of a preset or a list of values, checked."""
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
        raise ValueError(f"the kernel sizes and dilation of a block must be integers of at least 1; got {tuple(block)}")
    if block.large % 2 == 0 or block.small % 2 == 0:
        raise ValueError(f"the kernel sizes of a block must be odd; got {tuple(block)}")
    return block
