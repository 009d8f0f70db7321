"""The folder of a training run: its settings, the checkpoint to resume from and the weights for use."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import torch

from deal.io.atomic import atomic_write
from deal.model.pretrained import Network
from deal.training.settings import Settings

CHECKPOINT, LAST, BEST = "last.pt", "last.safetensors", "best.safetensors"
CONFIG = "config.yaml"  # the settings
LOG, CURVE, SAMPLES = "loss.csv", "loss.png", "samples.png"


def open_run(settings: Settings) -> dict[str, Any] | None:
    """Creates the run's folder, writes its settings, and returns the checkpoint to resume from, if there is one.

    Raises:
        FileExistsError: if there is a checkpoint and `settings.resume` is not set.
        ValueError: if the checkpoint is from a run with other settings.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".*.part"):  # left by a process that was killed
        part.unlink()
    state = _load(settings, folder / CHECKPOINT)
    _write_config(settings, folder / CONFIG)
    return state


def _load(settings: Settings, path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    if not settings.resume:
        folder = path.parent
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


def save_run(settings: Settings, state: dict[str, Any], network: Network, is_best: bool, **notes: str) -> None:
    """Writes each file atomically, the checkpoint last, so that the weights are never older than the checkpoint."""
    folder = Path(settings.output)
    for name in (BEST, LAST) if is_best else (LAST,):
        network.save_pretrained(folder / name, **notes)
    with atomic_write(folder / CHECKPOINT) as file:
        torch.save({**state, "settings": dataclasses.asdict(settings)}, file)


def _write_config(settings: Settings, path: Path) -> None:
    """Writes the settings for `deal train --config`, unless the file already has them. `resume` is not among them: it
    is part of a single start, and a new run from the file must not continue an old one."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name != "resume"}
    text = "".join(f"{name}: {_as_yaml(value)}\n" for name, value in values.items())
    content = text.encode(errors="surrogateescape")  # a path need not be UTF-8
    if not path.exists() or path.read_bytes() != content:
        with atomic_write(path) as file:
            file.write(content)


def _as_yaml(value: Any) -> str:
    """The value as JSON, which is YAML: strings have quotes, so that "1e3" stays a string.

    >>> _as_yaml({"stripe": (0, 1e-05)})
    '{"stripe": [0, 1.0e-05]}'
    """
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)}: {_as_yaml(each)}' for name, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_yaml, value))}]"
    # YAML 1.1 takes 1e-05 for a string.
    return re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value, ensure_ascii=False))
