"""Training of the fusion network on pairs of images, without reference fused images."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal.fusion.network import MIN_SIZE, Fuser, fusion_loss
from deal.fusion.pair_dataset import find_pairs, read_pair
from deal.io.images import Location, UnusableImage
from deal.model.device import choose_device
from deal_kernels._common.checks import check_integer, number

NORM_SHARE = 0.1  # share of the steps after which the norms keep their statistics


class Trained(NamedTuple):
    """The result of a training."""

    fuser: Fuser  # in evaluation mode
    losses: list[float]  # of every step


def train_fuser(
    folder: Location, output: Location, *, steps: int = 2000, batch: int = 4, crop: int = 64,
    learning_rate: float = 1e-3, seed: int = 0, device: str = "auto", progress: bool = False,
) -> Trained:  # fmt: skip
    """Trains a fuser on pairs of images, without reference fused images, and writes its weights.

    Adam minimises `fusion_loss` on random crops, mirrored at random, with a cosine schedule. The norms, which all
    iterations share, collect their statistics in the first tenth of the steps and keep them afterwards, so that
    training and inference compute the same.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes. All pairs are kept in memory, with
            8 bits.
        output: the weights file to write, .safetensors.
        steps: number of training steps.
        batch: pairs per step.
        crop: height and width of the crops.
        learning_rate: initial learning rate of Adam.
        seed: random seed.
        device: "auto", "cpu", "cuda" or "cuda:1".
        progress: shows a progress bar.

    Raises:
        FloatingPointError: if the loss is not finite; then nothing is written.
    """
    for name, value, least in (("steps", steps, 1), ("batch", batch, 1), ("crop", crop, MIN_SIZE), ("seed", seed, 0)):
        check_integer(name, value, least)
    if number("learning_rate", learning_rate) <= 0:
        raise ValueError(f"learning_rate must be a number above 0; got {learning_rate}")
    if Path(output).is_dir():
        raise IsADirectoryError(f"output must be a file; {output} is a folder")
    chosen, pairs = choose_device(device), _read_pairs(Path(folder), crop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fuser = Fuser().to(chosen)
    optimizer = torch.optim.Adam(fuser.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    with tqdm(total=steps, unit="step", disable=not progress, file=sys.stderr) as bar:
        for step in range(steps):
            fuser.train(step < NORM_SHARE * steps)
            infrared, visible = _random_batch(pairs, batch, crop, numpy.random.default_rng((seed, step))).to(chosen)
            loss = fusion_loss(fuser(infrared, visible), infrared, visible)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step}: train with a lower learning_rate")
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
    fuser.eval().save_pretrained(output, **{"deal.pairs": f"{len(pairs)} of {Path(folder).absolute().name}"})
    return Trained(fuser, losses)


def _read_pairs(folder: Path, crop: int) -> list[Tensor]:
    """Each uint8 [2, H, W], infrared and visible."""
    pairs = []
    for paths in find_pairs(folder):
        pair = read_pair(*paths)
        height, width = pair.infrared.shape
        if min(height, width) < crop:
            raise UnusableImage(f"{paths[0]} has {height} x {width} pixels; the crop of {crop} x {crop} is too large")
        pairs.append(torch.from_numpy(numpy.stack([pair.infrared, pair.visible])))
    return pairs


def _random_batch(pairs: list[Tensor], count: int, crop: int, random: numpy.random.Generator) -> Tensor:
    """Random crops of random pairs, [2, count, 1, crop, crop] in [0, 1]."""
    crops = []
    for index in random.integers(len(pairs), size=count):
        height, width = pairs[index].shape[1:]
        top, left = random.integers(height - crop + 1), random.integers(width - crop + 1)
        area = pairs[index][:, top : top + crop, left : left + crop]
        crops.append(area.flip([axis for axis in (1, 2) if random.random() < 0.5]))
    return torch.stack(crops, 1)[:, :, None] / 255
