"""A network that fuses an infrared with a visible image, in the style of ReCo, and its loss.

The fused image starts as the maximum of both images. In every iteration, each source is weighted by an attention map
that is computed from the source and the current fused image; these three images pass through parallel dilated
convolutions, which give the next fused image. All iterations share their weights.

>>> fuser = Fuser().eval()
>>> infrared, visible = torch.rand(2, 1, 1, 45, 60)  # [B, 1, H, W] each
>>> with torch.no_grad():
...     fuser(infrared, visible).shape
torch.Size([1, 1, 45, 60])
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from deal.io.images import Location, UnusableImage, to_uint8
from deal.model import weight_files
from deal.model.saved import within_size_of
from deal_kernels._common.checks import check_integer
from deal_kernels.conv import Conv2d
from deal_kernels.ssim import ssim_map
from deal_kernels.tdbn import TDBatchNorm2d

METADATA = "deal.fuser"
DILATIONS = (1, 2, 3)
MIN_SIZE = max(DILATIONS) + 1  # more than the reflection padding
CONTRAST_WINDOW = 11  # pixels
SSIM_WEIGHT, L1_WEIGHT = 1.0, 2.0
MIN_CONTRAST, MIN_VALUE = 1e-4, 0.05  # added to both sources, so that their shares are equal where both are lower


class Fuser(nn.Module):
    """Fuses infrared and visible images, each [B, 1, H, W] in [0, 1], to images of the same size and range.

    Args:
        width: output channels of each dilated convolution.
        loops: number of iterations.

    >>> sum(parameter.numel() for parameter in Fuser().parameters())
    7529
    """

    def __init__(self, width: int = 64, loops: int = 3) -> None:
        super().__init__()
        check_integer("width", width, 1)
        check_integer("loops", loops, 1)
        self.width, self.loops = width, loops
        self.infrared_attention = _convolution(2, 1)
        self.visible_attention = _convolution(2, 1)
        self.convs = nn.ModuleList(_convolution(3, width, dilation) for dilation in DILATIONS)
        self.norms = nn.ModuleList(TDBatchNorm2d(width, alpha=None) for _ in DILATIONS)
        self.output_conv = _convolution(len(DILATIONS) * width, 1)
        self.output_norm = TDBatchNorm2d(1, alpha=None)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        """The fused images."""
        _check_images(infrared, visible)
        fused = torch.maximum(infrared, visible)
        for _ in range(self.loops):
            inputs = torch.cat(
                [
                    infrared * self.infrared_attention(torch.cat([infrared, fused], 1)).sigmoid(),
                    visible * self.visible_attention(torch.cat([visible, fused], 1)).sigmoid(),
                    fused,
                ],
                1,
            )  # [B, 3, H, W]
            parallel = [norm(conv(inputs)).relu() for conv, norm in zip(self.convs, self.norms, strict=True)]
            fused = (1 + self.output_norm(self.output_conv(torch.cat(parallel, 1))).tanh()) / 2
        return fused

    @torch.inference_mode()
    def fuse(self, infrared: numpy.ndarray, visible: numpy.ndarray) -> numpy.ndarray:
        """Fuses uint8 images, like `deal.fusion.metrics.fuse`.

        Args:
            infrared, visible: uint8 [H, W].
        """
        device = self.output_conv.weight.device
        sources = (torch.from_numpy(image).to(device)[None, None] / 255 for image in (infrared, visible))
        fused = self(*sources)
        if not fused.isfinite().all():
            raise UnusableImage("the fuser gives values that are not finite")
        return to_uint8(fused.cpu())

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments of this fuser."""
        return {"width": self.width, "loops": self.loops}

    def save_pretrained(self, path: Location, **notes: str) -> None:
        """Writes weights, configuration and notes to a safetensors file, atomically."""
        weight_files.save_tensors(path, self.state_dict(), {**notes, METADATA: json.dumps(self.config)})

    @classmethod
    def from_pretrained(cls, path: Location) -> Fuser:
        """Loads a file that `save_pretrained` wrote; the fuser is on the CPU and in evaluation mode."""
        tensors, metadata = weight_files.load_tensors(path)
        if METADATA not in metadata:
            raise ValueError(f"{path} has no {METADATA!r} in its metadata: it was not written by Fuser.save_pretrained")
        try:
            config = json.loads(metadata[METADATA])
            if not isinstance(config, Mapping):
                raise TypeError(f"its config must be a mapping; got {config!r}")
            with within_size_of(tensors):
                fuser = cls(**config)
            fuser.load_state_dict(tensors)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} does not fit the fuser: its config is not JSON: {error}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit the fuser: {error}") from error
        return fuser.eval()


def contrast(x: Tensor) -> Tensor:
    """The local contrast of images [B, 1, H, W]: the variance in a window of 11 x 11 pixels, cut off at the border.

    >>> contrast(torch.eye(11).reshape(1, 1, 11, 11))[0, 0, 5, 5]  # eleven of 121 pixels are 1
    tensor(0.0826)
    """
    mean, square = (
        functional.avg_pool2d(each, CONTRAST_WINDOW, 1, CONTRAST_WINDOW // 2, count_include_pad=False)
        for each in (x, x * x)
    )
    return (square - mean * mean).clamp_min(0)


def fusion_loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """The distance of fused images to both sources, weighted at every pixel by the salience of each source.

    For each source, 1 - SSIM is weighted by its share of the local contrast of both sources, see `contrast`, and the
    absolute difference by its share of the brightness of both, because warm and lit objects are bright. The loss is the
    mean over pixels, summed over the sources.

    Args:
        fused, infrared, visible: [B, 1, H, W] in [0, 1].
    """
    sources = (infrared, visible)
    contrasts = [contrast(source) + MIN_CONTRAST for source in sources]
    values = [source + MIN_VALUE for source in sources]
    total = fused.new_zeros(())
    for source, own, value in zip(sources, contrasts, values, strict=True):
        structure = SSIM_WEIGHT * (1 - ssim_map(fused, source)) * own / sum(contrasts)
        total = total + (structure + L1_WEIGHT * (fused - source).abs() * value / sum(values)).mean()
    return total


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> Conv2d:
    return Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, padding_mode="reflect")


def _check_images(infrared: Tensor, visible: Tensor) -> None:
    for name, images in (("infrared", infrared), ("visible", visible)):
        if images.dim() != 4 or images.shape[1] != 1 or min(images.shape[2:]) < MIN_SIZE:
            raise ValueError(
                f"{name} must be [B, 1, H, W] of {MIN_SIZE} x {MIN_SIZE} pixels or more; "
                f"got the shape {tuple(images.shape)}"
            )
    if infrared.shape != visible.shape:
        raise ValueError(
            f"visible must have the shape of infrared, {tuple(infrared.shape)}; got {tuple(visible.shape)}"
        )
