"""The weights that are bundled with the package, and networks by name or file."""

from __future__ import annotations

import os
from pathlib import Path

from deal.model.network import DEAL
from deal.model.separation import DealU
from deal.model.weight_files import load_tensors

Network = DEAL | DealU

WEIGHTS = Path(__file__).parents[1] / "weights"


def bundled_weights() -> Path | None:
    """The weights that are bundled with the package; of several files, the last by name."""
    found = sorted(WEIGHTS.glob("*.safetensors"))
    return found[-1] if found else None


def from_file(path: str | os.PathLike[str]) -> Network:
    """The network of a weights file, in evaluation mode and on the CPU."""
    tensors, metadata = load_tensors(path)
    for kind in (DealU, DEAL):
        if kind.METADATA in metadata:
            return kind.from_tensors(path, metadata[kind.METADATA], tensors)
    raise ValueError(f"{path} has no {DealU.METADATA!r} in its metadata: it is not a weights file of `deal train`")


def load(name_or_path: str | os.PathLike[str] | None = None) -> Network:
    """A pretrained network, in evaluation mode and on the CPU.

    Args:
        name_or_path: a weights file as `deal train` writes it, or the name of bundled weights such as "deal-u". None
            loads the bundled default.
    """
    if name_or_path is None:
        path = bundled_weights()
        if path is None:
            raise FileNotFoundError("this package has no bundled weights: name a weights file from `deal train`")
        return from_file(path)
    named = WEIGHTS / f"{name_or_path}.safetensors"
    return from_file(named if named.is_file() else name_or_path)
