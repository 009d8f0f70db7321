"""What can be measured, by its name: classical methods, cascades of them, and networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from deal import baselines, enhance
from deal.baselines import Method
from deal.model import DEAL

BUNDLED = "deal"
BEST = "best-classical"
WEIGHTS = (".safetensors", ".pt")
# What the best classical method is chosen from. "none" is bicubic enlargement, as inputs come at their full size.
CLASSICAL = (
    "none", "median-difference", "moment-matching", "guided-filter", "midway", "utv", "wavelet-fourier", "clahe",
    "stretch", "median-difference+stretch", "median-difference+clahe", "moment-matching+stretch",
    "guided-filter+stretch", "midway+stretch", "utv+stretch", "wavelet-fourier+stretch",
)  # fmt: skip


def check_methods(names: Sequence[str]) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"methods must be a list of names; got {names!r}")
    if not names:
        raise ValueError("methods must have at least one name; got none")


def method_of(name: str, *, tile: int | Literal["auto"] = 0, device: str | torch.device = "auto") -> Method:
    """From images [B, C, H, W] in [0, 1] to the like, or beyond that range.

    Args:
        name: of a classical method or a cascade, see `deal.baselines`; "deal" for the weights that come with the
            package; a file of weights, .safetensors; or a checkpoint of the authors' released code, .pt, of which the
            network for one channel is taken.
        tile, device: of networks, see `Enhancer`.
    """
    if name == BUNDLED or Path(name).suffix in WEIGHTS:
        return enhance.Enhancer(_network(name), tile=tile, device=device, precision="fp32").tensor
    try:
        return baselines.method(name)
    except ValueError as error:
        raise ValueError(f"{error}; or {BEST!r}, {BUNDLED!r}, a .safetensors or a .pt file") from error


def _network(name: str) -> DEAL:
    if name == BUNDLED:
        return enhance.load()
    if Path(name).suffix == ".pt":
        return DEAL.from_released(name).with_channels(1)
    return DEAL.from_pretrained(name)


def labels(names: Sequence[str]) -> dict[str, str]:
    """What tables call methods: a file by its name, with as many folders before it as tell files apart.

    >>> labels(["none", "runs/a/best.safetensors", "runs/b/best.safetensors"])["runs/b/best.safetensors"]
    'b/best.safetensors'
    """
    files = {name: Path(name).absolute().parts for name in names if Path(name).suffix in WEIGHTS}
    shown = {name: name for name in names}
    for count in range(1, 1 + max(map(len, files.values()), default=0)):
        shown |= {name: "/".join(parts[-count:]) for name, parts in files.items()}
        if len(set(shown.values())) == len(shown):
            break
    return shown
