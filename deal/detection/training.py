"""Training of the detector on labelled images."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal.detection.annotations import Labelled, read_annotations
from deal.detection.crops import Sample, random_crop
from deal.detection.detector import COARSEST, STRIDE, Detector
from deal.detection.losses import Target, detection_loss, targets
from deal.io.images import Location, Size, height_and_width, read_frame
from deal.model.averaging import update_average
from deal.model.device import choose_device
from deal_kernels._common.checks import check_integer, number

WARMUP = 100  # steps
DECAY = 0.998  # of the moving average of the weights, which is what the file gets
RAMP = 10  # the decay starts as step / (step + RAMP), so that the average soon forgets the random weights


class Trained(NamedTuple):
    """The result of a training."""

    detector: Detector  # in evaluation mode
    losses: list[float]  # of every step


def train_detector(
    annotations: Location, folder: Location, output: Location, *, steps: int = 5000, batch: int = 4,
    crop: Size = (256, 320), learning_rate: float = 1e-3, seed: int = 0, device: str = "auto", progress: bool = False,
) -> Trained:  # fmt: skip
    """Trains a detector on random crops, and writes its weights, a moving average over the steps.

    Args:
        annotations: a file in the COCO format, see `read_annotations`.
        folder: has its images.
        output: the weights file to write, .safetensors.
        steps: number of training steps.
        batch: crops per step.
        crop: height and width of the crops, multiples of 16.
        learning_rate: initial learning rate of AdamW; it decays to zero.
        seed: random seed.
        device: "auto", "cpu", "cuda" or "cuda:1".
        progress: shows a progress bar.

    Raises:
        FloatingPointError: if the loss is not finite; then nothing is written.
    """
    for name, value, least in (("steps", steps, 1), ("batch", batch, 1), ("seed", seed, 0)):
        check_integer(name, value, least)
    size = height_and_width("crop", crop)
    if size is None or size[0] % COARSEST or size[1] % COARSEST:
        raise ValueError(f"crop must be multiples of {COARSEST}; got {crop}")
    if number("learning_rate", learning_rate) <= 0:
        raise ValueError(f"learning_rate must be a number above 0; got {learning_rate}")
    if Path(output).is_dir():
        raise IsADirectoryError(f"output must be a file; {output} is a folder")
    found, chosen = read_annotations(annotations, folder), choose_device(device)
    samples = [_read(each) for each in found.images]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector(found.classes).to(chosen)
    average = copy.deepcopy(detector)
    optimizer = torch.optim.AdamW(detector.parameters(), learning_rate)
    losses = []
    with tqdm(total=steps, unit="step", disable=not progress, file=sys.stderr) as bar:
        for step in range(steps):
            random = numpy.random.default_rng((seed, step))
            x, wanted = _random_batch(samples, len(found.classes), batch, size, random)
            factor = min(1, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            loss = detection_loss(detector(x.to(chosen)), wanted)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            update_average(average, detector, min(DECAY, step / (step + RAMP)))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step}: train with a lower learning_rate")
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
    notes = {"deal.annotations": f"{len(samples)} images of {Path(annotations).name}", "deal.steps": str(steps)}
    average.eval().save_pretrained(output, **notes)
    return Trained(average, losses)


def _read(labelled: Labelled) -> Sample:
    boxes, labels, ignored = (torch.from_numpy(each) for each in labelled[1:])
    return Sample(read_frame(labelled.path).tensor(1), boxes, labels, ignored)


def _random_batch(
    samples: list[Sample], classes: int, count: int, size: tuple[int, int], random: numpy.random.Generator
) -> tuple[Tensor, list[Target]]:
    """Crops [count, 1, H, W] and what the maps of each should be."""
    crops = [random_crop(samples[index], size, random) for index in random.integers(len(samples), size=count)]
    cells = size[0] // STRIDE, size[1] // STRIDE
    wanted = [targets(each.boxes, each.labels, each.ignored, classes, cells) for each in crops]
    return torch.stack([each.x for each in crops]), wanted
