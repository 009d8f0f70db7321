"""The folder of a training run, with the checkpoint to resume from and the weights for use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from deal.io.atomic import atomic_write
from deal.model.network import DEAL
from deal.training.settings import Settings

CHECKPOINT, LAST, BEST = "last.pt", "last.safetensors", "best.safetensors"


def open_run(settings: Settings) -> dict[str, Any] | None:
    """Creates the run's folder and returns the checkpoint to resume from, if there is one.

    Raises:
        FileExistsError: if there is a checkpoint and `settings.resume` is not set.
        ValueError: if the checkpoint is from a run with other settings.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):  # left by a process that was killed
        part.unlink()
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    if not settings.resume:
        raise FileExistsError(f"{folder} already has a run: set resume to continue it, or choose another output")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        differences = settings.differences(state["settings"])
    except OSError:
        raise
    except Exception as error:  # pickle raises anything
        raise ValueError(f"{path} is not a checkpoint of a run: {error}") from error
    if differences:
        raise ValueError(f"{path} cannot be resumed, as settings differ: {'; '.join(differences)}")
    return state


def save_run(settings: Settings, state: dict[str, Any], network: DEAL, is_best: bool, **notes: str) -> None:
    """Writes each file atomically, the checkpoint last, so that the weights are never older than the checkpoint."""
    folder = Path(settings.output)
    for name in (BEST, LAST) if is_best else (LAST,):
        network.save_pretrained(folder / name, **notes)
    with atomic_write(folder / CHECKPOINT) as file:
        torch.save({**state, "settings": dataclasses.asdict(settings)}, file)
