"""The weights that are bundled with the package, and networks by name or file."""

from __future__ import annotations

import os
from pathlib import Path

from deal.model.network import DEAL

WEIGHTS = Path(__file__).parents[1] / "weights"


def bundled_weights() -> Path | None:
    """The weights that are bundled with the package; of several files, the last by name."""
    found = sorted(WEIGHTS.glob("*.safetensors"))
    return found[-1] if found else None


def load(name_or_path: str | os.PathLike[str] | None = None) -> DEAL:
    """A pretrained network, in evaluation mode and on the CPU.

    Args:
        name_or_path: a weights file as `deal train` writes it, or the name of bundled weights such as "m2vd". None
            loads the bundled default.
    """
    if name_or_path is None:
        path = bundled_weights()
        if path is None:
            raise FileNotFoundError("this package has no bundled weights: name a weights file from `deal train`")
        return DEAL.from_pretrained(path)
    named = WEIGHTS / f"{name_or_path}.safetensors"
    return DEAL.from_pretrained(named if named.is_file() else name_or_path)
