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
    """The weights that are bundled with the package; of several files, the largest."""
    return max(WEIGHTS.glob("*.safetensors"), key=lambda path: path.stat().st_size, default=None)


def bundled_networks() -> list[str]:
    """The names of the bundled networks, the largest first."""
    found = [path for path in WEIGHTS.glob("*.safetensors") if path != _bundled("fuser")]
    return [path.stem for path in sorted(found, key=lambda path: path.stat().st_size, reverse=True)]


def bundled_fuser() -> Path | None:
    """The weights of a `deal.fusion.network.Fuser` that are bundled with the package."""
    return _bundled("fuser") if is_bundled("fuser") else None


def is_bundled(name: str | os.PathLike[str]) -> bool:
    """Whether bundled weights have this name, such as "deal-u-small"."""
    return _bundled(name).is_file()


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
    return from_file(_bundled(name_or_path) if is_bundled(name_or_path) else name_or_path)


def _bundled(name: str | os.PathLike[str]) -> Path:
    return WEIGHTS / f"{name}.safetensors"
