"""The folder of a run: its checkpoint, from which it goes on, and the weights to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from deal.checkpoint import atomically
from deal.model import DEAL
from deal.settings import Settings

STATE, LAST, BEST = "last.pt", "last.safetensors", "best.safetensors"


def opened(settings: Settings) -> dict[str, Any] | None:
    """Makes the folder of a run ready; what to go on from, if there is something.

    Raises:
        FileExistsError: when there is, and the settings do not ask for it.
        ValueError: when it is of a run with other settings.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):  # of a process that was killed
        part.unlink()
    path = folder / STATE
    if not path.exists():
        return None
    if not settings.resume:
        raise FileExistsError(f"{folder} has a run in it: resume it with resume=True, or choose another output")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        differences = settings.differences(state["settings"])
    except OSError:
        raise
    except Exception as error:  # pickle raises anything
        raise ValueError(f"{path} is not a checkpoint of a run: {error}") from error
    if differences:
        raise ValueError(f"{path} cannot be gone on from with other settings: {'; '.join(differences)}")
    return state


def save(settings: Settings, state: dict[str, Any], network: DEAL, best: bool, **notes: str) -> None:
    """Each file as a whole, the checkpoint last: what it knows of is there."""
    folder = Path(settings.output)
    for name in (BEST, LAST) if best else (LAST,):
        network.save_pretrained(folder / name, **notes)
    with atomically(folder / STATE) as file:
        torch.save({**state, "settings": dataclasses.asdict(settings)}, file)
