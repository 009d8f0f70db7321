"""A network that fuses an infrared image with a visible one, after the outline of ReCo, and its training.

What is fused so far starts as the larger of two pixels. In every loop both sources are weighted by an attention that
sees a source and what is fused so far; those three images go through parallel dilated convolutions to what is fused
next. All loops have the same weights.

>>> fuser = Fuser().eval()
>>> infrared, visible = torch.rand(2, 1, 1, 45, 60)  # [B, 1, H, W] each
>>> with torch.no_grad():
...     fuser(infrared, visible).shape
torch.Size([1, 1, 45, 60])
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from deal import checkpoint
from deal.data import Location, UnusableImage
from deal.enhance import chosen_device
from deal.partners import find_pairs, read_pair
from deal.picture import grey
from deal.settings import whole
from deal_kernels.conv import Conv2d
from deal_kernels.lif.arguments import number
from deal_kernels.ssim import ssim_map
from deal_kernels.tdbn import TDBatchNorm2d

METADATA = "deal.reco"
DILATIONS = (1, 2, 3)
LEAST_SIZE = max(DILATIONS) + 1  # more than is reflected at an edge
WINDOW = 11  # pixels to a side in which contrast is measured
STRUCTURE, PIXEL = 1.0, 2.0  # weights in the loss
LEAST_CONTRAST, LEAST_VALUE = 1e-4, 0.05  # added to those of both sources, which are alike where they have less
SETTLED = 0.1  # share of the steps after which the norms keep their statistics


class Fuser(nn.Module):
    """Infrared and visible images, each [B, 1, H, W] in [0, 1], to fused images of their size in [0, 1].

    Args:
        width: channels of each of the dilated convolutions.
        loops: how often what is fused is seen anew.

    >>> sum(parameter.numel() for parameter in Fuser().parameters())
    7529
    """

    def __init__(self, width: int = 64, loops: int = 3) -> None:
        super().__init__()
        whole("width", width, 1)
        whole("loops", loops, 1)
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
            seen = torch.cat(
                [
                    infrared * self.infrared_attention(torch.cat([infrared, fused], 1)).sigmoid(),
                    visible * self.visible_attention(torch.cat([visible, fused], 1)).sigmoid(),
                    fused,
                ],
                1,
            )  # [B, 3, H, W]
            parallel = [norm(conv(seen)).relu() for conv, norm in zip(self.convs, self.norms, strict=True)]
            fused = (1 + self.output_norm(self.output_conv(torch.cat(parallel, 1))).tanh()) / 2
        return fused

    @torch.inference_mode()
    def fuse(self, infrared: numpy.ndarray, visible: numpy.ndarray) -> numpy.ndarray:
        """What `deal.fusion.fuse` does, by this network.

        Args:
            infrared, visible: uint8 [H, W].
        """
        where = self.output_conv.weight.device
        sources = (torch.from_numpy(image).to(where)[None, None] / 255 for image in (infrared, visible))
        fused = self(*sources)
        if not fused.isfinite().all():
            raise UnusableImage("the fuser gives values that are not finite")
        return grey(fused.cpu())

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a fuser like this one."""
        return {"width": self.width, "loops": self.loops}

    def save_pretrained(self, path: Location, **notes: str) -> None:
        """Writes weights and config to one safetensors file, with notes in its metadata. A file that is there is
        replaced at the end, as a whole."""
        checkpoint.save_tensors(path, self.state_dict(), {**notes, METADATA: json.dumps(self.config)})

    @classmethod
    def from_pretrained(cls, path: Location) -> Fuser:
        """The fuser of a file that `save_pretrained` wrote, on the CPU and in evaluation."""
        tensors, metadata = checkpoint.load_tensors(path)
        if METADATA not in metadata:
            raise ValueError(f"{path} has no {METADATA!r} in its metadata: it is not a fuser of save_pretrained")
        try:
            config = json.loads(metadata[METADATA])
            if not isinstance(config, Mapping):
                raise TypeError(f"its config must be a mapping; got {config!r}")
            fuser = cls(**config)
            fuser.load_state_dict(tensors)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} does not fit the fuser: its config is not JSON: {error}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not fit the fuser: {error}") from error
        return fuser.eval()


def contrast(x: Tensor) -> Tensor:
    """How salient every pixel of images [B, 1, H, W] is: the variance under a window of 11 x 11 pixels, of those of
    them that are in the image.

    >>> contrast(torch.eye(11).reshape(1, 1, 11, 11))[0, 0, 5, 5]  # eleven of 121 pixels are 1
    tensor(0.0826)
    """
    mean, square = (functional.avg_pool2d(each, WINDOW, 1, WINDOW // 2, count_include_pad=False) for each in (x, x * x))
    return (square - mean * mean).clamp_min(0)


def loss(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """How far fused images are from both sources, at every pixel more from the more salient one.

    A source is salient in its structure where it has contrast, see `contrast`, and in its value where it is bright, as
    what is warm or lit is. At a pixel 1 - SSIM weighs for each source as its share of both contrasts there, and the
    distance as its share of both values. The loss is the mean over pixels, added up over both sources.

    Args:
        fused, infrared, visible: [B, 1, H, W] in [0, 1].
    """
    sources = (infrared, visible)
    contrasts = [contrast(source) + LEAST_CONTRAST for source in sources]
    values = [source + LEAST_VALUE for source in sources]
    total = fused.new_zeros(())
    for source, own, value in zip(sources, contrasts, values, strict=True):
        apart = STRUCTURE * (1 - ssim_map(fused, source)) * own / sum(contrasts)
        total = total + (apart + PIXEL * (fused - source).abs() * value / sum(values)).mean()
    return total


class Trained(NamedTuple):
    """What a training has come to."""

    fuser: Fuser  # in evaluation
    losses: list[float]  # of every step


def train(
    folder: Location, output: Location, *, steps: int = 2000, batch: int = 4, crop: int = 64,
    learning_rate: float = 1e-3, seed: int = 0, device: str = "auto", progress: bool = False,
) -> Trained:  # fmt: skip
    """Trains a fuser on pairs alone, without any fused image to learn from, and writes its weights.

    Adam descends `loss` on random cuts, mirrored at random, at a rate that falls to zero along a cosine. The norms
    gather their statistics, which all loops share, over the first tenth of the steps, and keep them from there on: so
    what learns is what will run.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes. They are kept in memory as 8 bits.
        output: the file of weights to write, .safetensors.
        steps: how many batches to train on.
        batch: pairs in a step.
        crop: height and width of the cuts.
        learning_rate: of Adam, at first.
        seed: of everything that is random.
        device: "auto", "cpu", "cuda" or "cuda:1".
        progress: shows a bar.

    Raises:
        FloatingPointError: when the loss is not a number any more; nothing is written then.
    """
    for name, value, least in (("steps", steps, 1), ("batch", batch, 1), ("crop", crop, LEAST_SIZE), ("seed", seed, 0)):
        whole(name, value, least)
    if number("learning_rate", learning_rate) <= 0:
        raise ValueError(f"learning_rate must be a number above 0; got {learning_rate}")
    if Path(output).is_dir():
        raise IsADirectoryError(f"output must be a file to write; {output} is a folder")
    where, pairs = chosen_device(device), _pairs(Path(folder), crop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fuser = Fuser().to(where)
    optimizer = torch.optim.Adam(fuser.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    with tqdm(total=steps, unit="step", disable=not progress, file=sys.stderr) as bar:
        for step in range(steps):
            fuser.train(step < SETTLED * steps)
            infrared, visible = _batch(pairs, batch, crop, numpy.random.default_rng((seed, step))).to(where)
            distance = loss(fuser(infrared, visible), infrared, visible)
            optimizer.zero_grad()
            distance.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(distance.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step}: train with a lower learning_rate")
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
    fuser.eval().save_pretrained(output, **{"deal.pairs": f"{len(pairs)} of {Path(folder).absolute().name}"})
    return Trained(fuser, losses)


def _pairs(folder: Path, crop: int) -> list[Tensor]:
    """Each uint8 [2, H, W], infrared and visible."""
    pairs = []
    for paths in find_pairs(folder):
        pair = read_pair(*paths)
        height, width = pair.infrared.shape
        if min(height, width) < crop:
            raise UnusableImage(
                f"{paths[0]} has {height} x {width} pixels; the crop must be no larger; got {crop} x {crop}"
            )
        pairs.append(torch.from_numpy(numpy.stack([pair.infrared, pair.visible])))
    return pairs


def _batch(pairs: list[Tensor], count: int, crop: int, random: numpy.random.Generator) -> Tensor:
    """Cuts of random pairs at random places, [2, count, 1, crop, crop] in [0, 1]."""
    cuts = []
    for index in random.integers(len(pairs), size=count):
        height, width = pairs[index].shape[1:]
        top, left = random.integers(height - crop + 1), random.integers(width - crop + 1)
        cut = pairs[index][:, top : top + crop, left : left + crop]
        cuts.append(cut.flip([axis for axis in (1, 2) if random.random() < 0.5]))
    return torch.stack(cuts, 1)[:, :, None] / 255


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> Conv2d:
    return Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, padding_mode="reflect")


def _check_images(infrared: Tensor, visible: Tensor) -> None:
    for name, images in (("infrared", infrared), ("visible", visible)):
        if images.dim() != 4 or images.shape[1] != 1 or min(images.shape[2:]) < LEAST_SIZE:
            raise ValueError(
                f"{name} must be [B, 1, H, W] of {LEAST_SIZE} x {LEAST_SIZE} pixels or more; "
                f"got the shape {tuple(images.shape)}"
            )
    if infrared.shape != visible.shape:
        raise ValueError(
            f"visible must have the shape of infrared, {tuple(infrared.shape)}; got {tuple(visible.shape)}"
        )
