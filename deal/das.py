"""The dynamic adversarial solution: trains the enhancement network against the degradation generator.

For clean images x the generator makes x_hat = N_G(x), and the network is to give x back. With the loss
L = pixel * L1 + structure * (1 - SSIM) the network descends L(N_E(x_hat), x), and the generator, once the warm start is
over, descends closeness * L(x_hat, x) - L(N_E(x_hat), x): it looks for what is hard to undo, near the clean image.

    result = train(Settings(images="frames", output="run", steps=2000))
    result.network(x)  # a deal.model.DEAL in evaluation

A run's folder has last.pt, which `resume` goes on from to the same bits as if there had been no break,
last.safetensors and best.safetensors for `DEAL.from_pretrained`, and log.csv. `torchrun` with several processes shares
every batch among them, and gives the numbers of one process.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal import processes, resume
from deal.data import Crops, Images, Source, find_images
from deal.generator import Generator
from deal.model import DEAL
from deal.players import Players, seeded
from deal.processes import Crew
from deal.progress import Log, Watch
from deal.scenes import Scenes
from deal.settings import Settings
from deal_kernels.ssim import l1_ssim

__all__ = ["Result", "Settings", "train"]

VALIDATED = 8  # images


class Result(NamedTuple):
    """What a run has come to."""

    network: DEAL  # in evaluation; with `ema` its weights are the averaged ones
    generator: Generator
    steps: int
    loss: float  # of the validation images, at the end
    psnr: float
    best: float  # the least such loss, that of best.safetensors
    output: Path


def train(settings: Settings, source: Source | None = None, validation: Source | None = None) -> Result:
    """Trains, and writes the run's folder as it goes.

    Args:
        settings: of the run.
        source: clean images, instead of those that `settings.images` names.
        validation: instead of those that `settings.validation` names.

    Raises:
        FloatingPointError: when a loss is not a number any more.
        Collapsed: when the network has stopped to enhance.
        FileExistsError: when there is a run in the folder already, and `resume` is not set.
        KeyboardInterrupt: after Ctrl-C, once the step is done and saved. A second one stops at once.
    """
    with processes.crew(settings.device) as crew, processes.Stop() as stop:
        return _Run(settings, crew, source, validation).go(stop)
