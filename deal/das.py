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

import contextlib
import dataclasses
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deal import processes, resume
from deal.data import Crops, Images, Size, Source, find_images, middle, sides
from deal.generator import Generator
from deal.model import DEAL
from deal.players import Players, seeded
from deal.processes import Crew, Stop
from deal.progress import Log, Watch
from deal.scenes import Scenes
from deal.settings import Settings

__all__ = ["Result", "Settings", "train"]

FIGURES = ("loss", "closeness", "contrast", "degraded_contrast")
SCENES = 64  # where no images are named
VALIDATED, WHOLE = 8, 256  # images, and their size where the training images are not cut
SHARPNESS = 2.0  # of the mixtures of the validation images


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
    with processes.crew(settings.device) as crew, Stop() as stop:
        return _Run(settings, crew, source, validation).go(stop)


class _Run:
    """A run in progress, in one of its processes."""

    def __init__(self, settings: Settings, crew: Crew, source: Source | None, validation: Source | None) -> None:
        if settings.batch % crew.count:
            raise ValueError(f"batch must be a multiple of the {crew.count} processes; got {settings.batch}")
        self.settings, self.crew = settings, crew
        source = _source(settings, settings.images) if source is None else source
        if validation is None:
            validation = source if settings.validation is None else _source(settings, settings.validation)
        self.crops = Crops(
            source, settings.crop, flips=settings.flips, halves=settings.halves, panels=settings.panels,
            tones=settings.tones, grain=settings.grain, seed=settings.seed,
        )  # fmt: skip
        self.players = Players(settings, crew)
        self.watch = Watch(settings.watch)
        self.step, self.seconds = 0, 0.0
        self.loss = self.psnr = math.nan  # of the validation images
        self.best = math.inf
        self.sums, self.since = torch.zeros(len(FIGURES), device=crew.device), 0  # since the last row of the log
        if crew.leads:
            self.clean = _centres(validation, settings.crop).to(crew.device)
            self.degraded = _degraded(self.players.generator, self.clean, settings.seed)
        state = crew.from_leader(resume.opened(settings) if crew.leads else None)
        if state is not None:
            self._load(state)

    def go(self, stop: Stop) -> Result:
        """Runs to the end, or to where it is stopped."""
        before = time.monotonic() - self.seconds
        with self._log() as log, ThreadPoolExecutor(1) as reader:
            going, coming = self.step < self.settings.steps, reader.submit(self._batch, self.step)
            while going:
                x, coming = coming.result(), reader.submit(self._batch, self.step + 1)
                self._advance(x)
                self.seconds = time.monotonic() - before
                going = self._recorded(log, stop)
        return Result(
            self.players.kept.eval(), self.players.generator, self.step, self.loss, self.psnr, self.best,
            Path(self.settings.output),
        )  # fmt: skip

    def _log(self) -> contextlib.AbstractContextManager[Log | None]:
        if not self.crew.leads:
            return contextlib.nullcontext()
        return Log(Path(self.settings.output), self.step, self.settings.steps, bar=self.settings.progress)

    def _batch(self, step: int) -> Tensor:
        """This process's part of it."""
        count = self.settings.batch // self.crew.count
        return self.crops.batch(step * self.settings.batch + self.crew.rank * count, count)

    def _advance(self, x: Tensor) -> None:
        adversary = self.settings.strategy == "das" and self.step >= self.settings.warm_start
        figures = self.players.step(x.to(self.crew.device), self.step, adversary)
        self.sums += torch.stack([figures[name] for name in FIGURES])
        self.step += 1

    def _recorded(self, log: Log | None, stop: Stop) -> bool:
        """Writes down what is due after a step; whether another one follows."""
        settings = self.settings
        if log is not None:
            log.advance()
        due = self.step % settings.log_every == 0
        # Several processes have to leave at the same step, and ask each other now and then.
        asks = due or self.crew.count == 1
        stopped = asks and self.crew.any(stop.received is not None)
        late = asks and self.crew.any(settings.minutes is not None and self.seconds >= 60 * settings.minutes)
        ends = late or self.step >= settings.steps
        validates = ends or self.step % settings.save_every == 0
        best = validates and self._validate()
        if due or validates:
            self._write_row(log, validates)
        if validates or stopped:
            self._save(best)
        if stopped and not ends:
            stop.end()
        return not ends

    def _write_row(self, log: Log | None, validated: bool) -> None:
        means = self.sums / max(1, self.step - self.since)
        self.crew.average([means])
        figures = dict(zip(FIGURES, means.tolist(), strict=True))
        self.watch.look(self.step, figures, self.since)
        self.sums, self.since = torch.zeros_like(self.sums), self.step
        if log is None:
            return
        rate = self.settings.learning_rate * self.settings.scale(self.step - 1)
        figures |= {"seconds": self.seconds, "learning_rate": rate}
        figures |= {"validation_loss": self.loss, "validation_psnr": self.psnr} if validated else {}
        log.row(self.step, figures)

    def _validate(self) -> bool:
        """Whether these are the best weights so far."""
        found = self.crew.from_leader(self._validation() if self.crew.leads else None)
        self.loss, self.psnr = found
        if not math.isfinite(self.loss):
            raise FloatingPointError(
                f"the loss of the validation images is {self.loss} at step {self.step}: the checkpoints are older and "
                "good. Train anew with a lower learning_rate, with clip=1, or with precision='fp32'"
            )
        better = self.loss < self.best
        self.best = min(self.best, self.loss)
        return better

    @torch.no_grad()
    def _validation(self) -> tuple[float, float]:
        network = self.players.kept
        training = network.training
        network.eval()
        y = torch.cat([network(part) for part in self.degraded.split(self.settings.batch)])
        network.train(training)
        error = (y.clamp(0, 1) - self.clean).square().mean((1, 2, 3))
        return self.players.loss(y, self.clean).item(), (-10 * error.log10()).mean().item()

    def _save(self, best: bool) -> None:
        if not self.players.finite():
            raise FloatingPointError(
                f"a weight is not a number after step {self.step}: the checkpoints are older and good. Train anew with "
                "a lower learning_rate, with clip=1, or with precision='fp32'"
            )
        if self.crew.leads:
            notes = {"deal.steps": str(self.step), "deal.settings": json.dumps(dataclasses.asdict(self.settings))}
            resume.save(self.settings, self._state(), self.players.kept, best, **notes)

    def _state(self) -> dict[str, Any]:
        return {
            "players": self.players.state(), "step": self.step, "seconds": self.seconds, "loss": self.loss,
            "psnr": self.psnr, "best": self.best, "sums": self.sums.cpu(), "since": self.since,
            "recent": list(self.watch.recent),
        }  # fmt: skip

    def _load(self, state: dict[str, Any]) -> None:
        self.players.load(state["players"])
        for name in ("step", "seconds", "loss", "psnr", "best", "since"):
            setattr(self, name, state[name])
        self.sums.copy_(state["sums"])
        self.watch.recent.extend(state["recent"])


def _source(settings: Settings, images: str | list[str] | None) -> Source:
    if images is None:
        return Scenes(SCENES, channels=settings.channels, seed=settings.seed)
    return Images(
        find_images(images), channels=settings.channels, window=settings.window, keep_going=settings.keep_going,
        least_size=settings.crop or 1,
    )  # fmt: skip


def _centres(source: Source, size: Size) -> Tensor:
    """The middle of the first images, all of one size."""
    images = [source[k] for k in range(min(VALIDATED, len(source)))]
    most = sides("crop", size) or (WHOLE, WHOLE)
    high, wide = (min([side, *(image.shape[axis] for image in images)]) for axis, side in enumerate(most, 1))
    return torch.stack([middle(image, high, wide) for image in images])


def _degraded(generator: Generator, clean: Tensor, seed: int) -> Tensor:
    """The same for a whole run: mixtures, some of which are nearly one operation alone."""
    random = seeded(seed, 3)
    weights = torch.randn(len(clean), generator.stages, len(generator.ops), generator=random)
    with torch.no_grad():
        degraded: Tensor = generator(
            clean, (SHARPNESS * weights).softmax(-1).to(clean), generator.sample(clean, random)
        )
    return degraded
