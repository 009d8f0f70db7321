"""The convolution in plain torch: the specification of the engine, and the fallback where the engine cannot run.

    y = activation(conv(padded(x), weight) + bias + residual)

Images are [B, C, H, W]. The engine computes half types in float32 and rounds once; torch's rounding differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deal_kernels._common.types import no_autocast
from deal_kernels.pad import op as pad
from deal_kernels.pad.reference import Border

MODES = ("zeros", "reflect", "replicate")

_aten = torch.ops.aten


class Geometry(NamedTuple):
    """Padding and dilation: which pixels of the image a pixel of the result depends on."""

    padding: tuple[int, int, int, int]  # pixels above, below, to the left and to the right
    padding_mode: str
    dilation: tuple[int, int]

    def size_of_result(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Height and width of the result, from those of the image."""
        height, width = self._less(kernel)
        return size[0] - height, size[1] - width

    def size_of_image(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Height and width of the image, from those of the result."""
        height, width = self._less(kernel)
        return size[0] + height, size[1] + width

    def _less(self, kernel: Sequence[int]) -> tuple[int, int]:
        """The height and width of the image minus those of the result."""
        above, below, left, right = self.padding
        down, across = self.dilation
        return (kernel[0] - 1) * down - above - below, (kernel[1] - 1) * across - left - right


def _own_border(x: Tensor, g: Geometry) -> Border | None:
    """What `deal_kernels.pad` is to add: on a GPU, where torch's gradients of such padding differ from run to run."""
    above, below, left, right = g.padding
    return None if x.is_cpu or g.padding_mode == "zeros" else Border((left, right, above, below), g.padding_mode)


def padded(x: Tensor, g: Geometry) -> Tensor:
    if not any(g.padding):
        return x
    if own := _own_border(x, g):
        return pad.pad2d(x, own)
    above, below, left, right = g.padding
    mode = "constant" if g.padding_mode == "zeros" else g.padding_mode
    with no_autocast(x.device.type):  # which would pad in float32
        return functional.pad(x, (left, right, above, below), mode)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, g: Geometry, relu: bool) -> Tensor:
    above, below, left, right = g.padding
    around = 0, 0
    if g.padding_mode == "zeros" and above == below and left == right:
        around = above, left  # torch's convolution adds zeros itself
    else:
        x = padded(x, g)
    bias = None if bias is None else bias.to(x.dtype)
    y = functional.conv2d(x, weight.to(x.dtype), bias, padding=around, dilation=g.dilation)
    return finished(y, residual, relu)


def finished(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias as far as they are wanted, from the gradient before the activation."""
    of_padded, of_weight, of_bias = _aten.convolution_backward(
        grad, padded(x, g), weight.to(x.dtype), [len(weight)], (1, 1), (0, 0), g.dilation, False, (0, 0), 1, wanted
    )
    return unpadded(of_padded, x, g) if wanted[0] else None, of_weight, of_bias


def unpadded(grad: Tensor, x: Tensor, g: Geometry) -> Tensor:
    """The gradient of x from that of the padded x."""
    above, _, left, _ = g.padding
    if not any(g.padding):
        return grad
    if own := _own_border(x, g):
        return pad.unpad2d(grad, own)
    if g.padding_mode == "zeros":
        return grad[..., above : above + x.shape[-2], left : left + x.shape[-1]]
    fold = _aten.reflection_pad2d_backward if g.padding_mode == "reflect" else _aten.replication_pad2d_backward
    return fold(grad, x, (left, g.padding[3], above, g.padding[1]))


def before_activation(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient before a ReLU with the result y. Where y is NaN it passes, as in torch."""
    return torch.where(y <= 0, 0, grad)
