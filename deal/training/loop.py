"""The training loop: batches, validation, log, checkpoints.

    result = train(Settings(images="frames", output="run", steps=2000))
    result.network(x)  # a DEAL network in evaluation mode

The folder of a run has config.yaml, the settings for `deal train --config`; last.pt, from which a run resumes to the
same bits as without the interruption; last.safetensors and best.safetensors, for `DEAL.from_pretrained`; loss.csv and
its curve, loss.png; and samples.png, validation images before and after. With torchrun, several processes share every
batch, with the results of one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Generator as Batches
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from deal.io.dataset import ImageDataset, Source
from deal.io.images import Size, centre_crop, height_and_width
from deal.io.paths import find_images
from deal.io.synthetic import SyntheticScenes
from deal.io.writers import write_image
from deal.model.generator import TONES, Generator
from deal.model.policy import Policy
from deal.model.pretrained import Network
from deal.model.separation import DealU
from deal.model.shading import THUMBNAIL
from deal.training import run_dir, samples
from deal.training.adversarial import FIGURES, AdversarialTraining
from deal.training.augmentation import Crops, Reduced
from deal.training.distributed import ProcessGroup, StopSignal, process_group
from deal.training.divergence import ADVICE, CollapseDetector
from deal.training.draws import Draws, seeded_random, sent
from deal.training.lock import locked
from deal.training.logging import Log
from deal.training.settings import Settings

SYNTHETIC_SCENES = 64
THUMBNAIL_ZOOM = 2.0  # thumbnails show at least half of the height or width of an image
VALIDATION_IMAGES, VALIDATION_SIZE = 8, 256  # the size applies if training uses whole images
VALIDATION_SHARPNESS = 2.0  # factor of random logits: some validation images have nearly a single degradation


class Batch(NamedTuple):
    """What a step needs, on the device."""

    x: Tensor  # clean images [B, C, H, W]
    thumbnails: Tensor | None
    draws: tuple[Draws, Draws | None]


class Result(NamedTuple):
    """The result of a run."""

    network: Network  # in evaluation mode; the moving average if `ema_decay` is set
    generator: Generator
    steps: int
    loss: float  # validation loss at the end
    psnr: float  # validation PSNR at the end
    best: float  # the lowest validation loss, that of best.safetensors
    output: Path


def train(settings: Settings, source: Source | None = None, validation: Source | None = None) -> Result:
    """Trains a network, and writes checkpoints and a log to the run's folder.

    Args:
        settings: of the run.
        source: clean training images, instead of `settings.images`.
        validation: clean validation images, instead of `settings.validation`.

    Raises:
        FloatingPointError: if a loss is not finite.
        Collapsed: if the network has stopped enhancing.
        FileExistsError: if the folder already has a run and `settings.resume` is not set.
        RuntimeError: if another training uses the folder.
        KeyboardInterrupt: after Ctrl-C, once the current step is done and saved. A second Ctrl-C stops at once.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with process_group(settings.device) as group, StopSignal() as stop:
        run = _Run(settings, group, source, validation)
        with locked(Path(settings.output)) if group.is_leader else contextlib.nullcontext():
            return run.run(stop)


class _Run:
    """A run in progress, in one of its processes."""

    def __init__(
        self, settings: Settings, group: ProcessGroup, source: Source | None, validation: Source | None
    ) -> None:
        for name in ("batch", "thumbnails"):
            if (getattr(settings, name) or 0) % group.size:
                raise ValueError(
                    f"{name} must be a multiple of the {group.size} processes; got {getattr(settings, name)}"
                )
        self.settings, self.group = settings, group
        source = _source(settings, settings.images, settings.limit) if source is None else source
        if validation is None:
            validation = source if settings.validation is None else _source(settings, settings.validation)
        self.crops = Crops(
            source, settings.crop, flip=settings.flip_augmentation, zoom=settings.zoom_augmentation,
            panels=settings.panel_augmentation, tones=settings.tone_augmentation, noise=settings.noise_augmentation,
            seed=settings.seed,
        )  # fmt: skip
        largest = round(THUMBNAIL_ZOOM * THUMBNAIL[0]), round(THUMBNAIL_ZOOM * THUMBNAIL[1])
        self.thumbnails = Crops(
            Reduced(source, largest), THUMBNAIL, flip=settings.flip_augmentation, zoom=THUMBNAIL_ZOOM,
            tones=settings.tone_augmentation, seed=settings.seed + 1,
        )  # fmt: skip
        self.training = AdversarialTraining(settings, group)
        self.thumbnail_count = settings.thumbnails
        if settings.thumbnails is None:
            self.thumbnail_count = 3 * settings.batch if isinstance(self.training.network, DealU) else 0
        self.detector = CollapseDetector(settings.collapse_window, comparable=settings.loss == "l1_ssim")
        self.step, self.seconds = 0, 0.0
        self.loss = self.psnr = math.nan  # of the last validation
        self.best = math.inf
        self.sums, self.logged = torch.zeros(len(FIGURES), device=group.device), 0  # sums since the last logged step
        if group.is_leader:
            self.clean = _centre_crops(validation, settings.crop).to(group.device)
            self.degraded, self.toned = _degrade_validation(self.training.generator, self.clean, settings.seed)

    def run(self, stop: StopSignal) -> Result:
        """Trains until the run ends or is stopped."""
        self._resume()
        start = time.monotonic() - self.seconds
        with self._open_log() as log, contextlib.closing(self._batches()) as batches:
            running = self.step < self.settings.steps
            while running:
                self._train_step(next(batches))
                self.seconds = time.monotonic() - start
                running = self._after_step(log, stop)
        return Result(
            self.training.result.eval(), self.training.generator, self.step, self.loss, self.psnr, self.best,
            Path(self.settings.output),
        )  # fmt: skip

    def _open_log(self) -> contextlib.AbstractContextManager[Log | None]:
        if not self.group.is_leader:
            return contextlib.nullcontext()
        settings = self.settings
        seconds = math.inf if settings.minutes is None else 60 * settings.minutes - self.seconds
        return Log(Path(settings.output), self.step, settings.steps, bar=settings.progress, seconds=seconds)

    def _batches(self) -> Batches[Batch]:
        """The batches from the current step on. For a GPU, the next one is read while the current step is computed.

        On a CPU a thread of its own would slow down the training: the threads of a convolution wait for each other, and
        so for the one whose processor reads.
        """
        if self.group.device.type == "cpu":
            for step in itertools.count(self.step):
                yield self._read_batch(step)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read_batch, self.step)
            for step in itertools.count(self.step + 1):
                batch, coming = coming.result(), reader.submit(self._read_batch, step)
                yield batch

    def _read_batch(self, step: int) -> Batch:
        """This process's part of the batch and of the thumbnails of a step, and its random numbers."""
        x, thumbnails, device = self._part(self.crops, self.settings.batch, step), None, self.group.device
        if self.thumbnail_count and not self.settings.has_settled(step):
            thumbnails = self._part(self.thumbnails, self.thumbnail_count, step)
        of_images, of_thumbnails = self.training.draws(step, x, self._plays(step), thumbnails)
        return Batch(
            sent(x, device), None if thumbnails is None else sent(thumbnails, device),
            (of_images.to(device), None if of_thumbnails is None else of_thumbnails.to(device)),
        )  # fmt: skip

    def _part(self, crops: Crops, count: int, step: int) -> Tensor:
        mine = count // self.group.size
        return crops.batch(step * count + self.group.rank * mine, mine)

    def _plays(self, step: int) -> bool:
        """Whether the generator learns in a step."""
        return self.settings.strategy in ("das", "policy") and step >= self.settings.adversary_start

    def _train_step(self, batch: Batch) -> None:
        figures = self.training.step(batch.x, self.step, self._plays(self.step), batch.thumbnails, batch.draws)
        self.sums += torch.stack([figures[name] for name in FIGURES])
        self.step += 1

    def _after_step(self, log: Log | None, stop: StopSignal) -> bool:
        """Logs, validates and saves when due; returns whether the run continues."""
        settings = self.settings
        if log is not None:
            log.advance()
        log_due = self.step % settings.log_every == 0
        # Several processes must stop at the same step. They exchange the flags only when a row is logged.
        exchange = log_due or self.group.size == 1
        stopped = exchange and self.group.any(stop.received is not None)
        timed_out = exchange and self.group.any(settings.minutes is not None and self.seconds >= 60 * settings.minutes)
        ends = timed_out or self.step >= settings.steps
        validates = ends or self.step % settings.save_every == 0
        is_best = validates and self._validate()
        if log_due or validates:
            self._write_log(log, validates)
        if validates or stopped:
            self._save(is_best)
        if stopped and not ends:
            stop.exit()
        return not ends

    def _write_log(self, log: Log | None, validated: bool) -> None:
        means = self.sums / max(1, self.step - self.logged)
        self.group.average([means])
        values = dict(zip(FIGURES, means.tolist(), strict=True))
        self.detector.check(self.step, values, self.logged)
        self.sums, self.logged = torch.zeros_like(self.sums), self.step
        if log is None:
            return
        rate = self.settings.learning_rate * self.settings.rate_factor(self.step - 1)
        values |= {"seconds": self.seconds, "learning_rate": rate}
        values |= {"validation_loss": self.loss, "validation_psnr": self.psnr} if validated else {}
        log.write(self.step, values)

    def _validate(self) -> bool:
        """Updates loss and PSNR of the validation images; returns whether the loss is the lowest so far."""
        self.loss, self.psnr = self.group.broadcast(self._measure() if self.group.is_leader else None)
        if not math.isfinite(self.loss):
            raise FloatingPointError(
                f"the validation loss is {self.loss} at step {self.step}: the checkpoints are older and valid. {ADVICE}"
            )
        is_best = self.loss < self.best
        self.best = min(self.best, self.loss)
        return is_best

    @torch.no_grad()
    def _measure(self) -> tuple[float, float]:
        """Loss and PSNR of the validation images. It draws them, too."""
        network = self.training.result
        was_training = network.training
        network.eval()
        images, total = [], 0.0
        whole = self.degraded, self.clean, self.toned
        for x_hat, x, toned in zip(*(each.split(self.settings.batch) for each in whole), strict=True):
            parts = network.separate(x_hat)
            images.append(parts.restored(x_hat))
            total += len(x) * self.training.loss(x_hat, parts, x, toned).mean().item()
        network.train(was_training)
        restored = torch.cat(images)
        sheet = samples.sheet(self.degraded, restored, self.clean, self.step)
        write_image(Path(self.settings.output) / run_dir.SAMPLES, numpy.asarray(sheet))
        return total / len(restored), samples.clamped_psnr(restored, self.clean).mean().item()

    def _save(self, is_best: bool) -> None:
        if not self.training.is_finite():
            raise FloatingPointError(
                f"a weight is not finite after step {self.step}: the checkpoints were saved before that and are "
                f"valid. {ADVICE}"
            )
        if self.group.is_leader:
            notes = {"deal.steps": str(self.step), "deal.settings": json.dumps(dataclasses.asdict(self.settings))}
            run_dir.save_run(self.settings, self._state(), self.training.result, is_best, **notes)

    def _state(self) -> dict[str, Any]:
        return {
            "training": self.training.state(), "step": self.step, "seconds": self.seconds, "loss": self.loss,
            "psnr": self.psnr, "best": self.best, "sums": self.sums.cpu(), "logged": self.logged,
            "recent": list(self.detector.recent),
        }  # fmt: skip

    def _resume(self) -> None:
        """Takes up the state of the run that the folder has, if there is one."""
        state = self.group.broadcast(run_dir.open_run(self.settings) if self.group.is_leader else None)
        if state is None:
            return
        self.training.load(state["training"])
        for name in ("step", "seconds", "loss", "psnr", "best", "logged"):
            setattr(self, name, state[name])
        self.sums.copy_(state["sums"])
        self.detector.recent.extend(state["recent"])


def _source(settings: Settings, images: str | list[str] | None, limit: int | None = None) -> Source:
    if images is None:
        return SyntheticScenes(limit or SYNTHETIC_SCENES, channels=settings.channels, seed=settings.seed)
    paths = find_images(images)
    if limit is not None:
        if limit > len(paths):
            raise ValueError(f"limit must be at most the {len(paths)} training images; got {limit}")
        paths = [paths[k * len(paths) // limit] for k in range(limit)]
    return ImageDataset(
        paths, channels=settings.channels, window=settings.window, keep_going=settings.keep_going,
        min_size=settings.crop or 1,
    )  # fmt: skip


def _centre_crops(source: Source, size: Size) -> Tensor:
    """The centres of the first images, cropped to a common size, [B, C, H, W]."""
    images = [source[k] for k in range(min(VALIDATION_IMAGES, len(source)))]
    limits = height_and_width("crop", size) or (VALIDATION_SIZE, VALIDATION_SIZE)
    height, width = (min([limit, *(image.shape[axis] for image in images)]) for axis, limit in enumerate(limits, 1))
    return torch.stack([centre_crop(image, height, width) for image in images])


@torch.no_grad()
def _degrade_validation(generator: Generator, clean: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The degraded validation images, and those with another tone alone, the same for the whole run."""
    random = seeded_random(seed, 3)
    if isinstance(generator, Policy):
        weights, _ = generator.draw(None, *(each.to(clean) for each in generator.chances(len(clean), random)))
    else:
        logits = torch.randn(len(clean), generator.stages, len(generator.ops), generator=random)
        weights = (VALIDATION_SHARPNESS * logits).softmax(-1).to(clean)
    params = generator.sample(clean, random)
    return generator(clean, weights, params), generator.only(TONES, clean, weights, params)
