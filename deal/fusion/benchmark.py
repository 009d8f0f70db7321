"""The fusion benchmark: infrared images are enhanced and fused with visible images, and the fused images are measured.

Metrics compare the fused image with the visible image and with the original infrared image, not with the enhanced one.
Otherwise an enhancer would be rewarded for similarity to its own result.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal.fusion.metrics import Variant, fuse, fusion_metrics
from deal.fusion.network import Fuser
from deal.fusion.pair_dataset import Pair, find_pairs, read_pair
from deal.io.images import Location, UnusableImage, to_uint8
from deal.model.device import choose_device

Fusion = Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]  # of infrared and visible, uint8 [H, W]
RULES: tuple[Literal["max", "mean"], ...] = ("max", "mean")
NETWORK = "reco"  # the fusion by a network
VARIANTS: tuple[Variant, ...] = ("standard", "legacy")
METRICS = ("EN", "MI", "SD", "SCD", "VIF", "Qabf")


class Fused(NamedTuple):
    """The metrics of one fused image, or their means over pairs."""

    method: str
    fusion: str
    variant: str
    image: str
    EN: float
    MI: float
    SD: float
    SCD: float
    VIF: float
    Qabf: float


@dataclass(frozen=True)
class PairResults:
    """The results of a benchmark; the rows are sorted by method, fusion, variant and image."""

    rows: list[Fused]
    methods: tuple[str, ...]
    fusions: tuple[str, ...]
    protocol: str

    def mean(self, method: str, fusion: str, variant: str) -> Fused:
        """The means over pairs."""
        found = [each[4:] for each in self.rows if each[:3] == (method, fusion, variant)]
        if not found:
            raise ValueError("method, fusion and variant must be in the results")
        return Fused(method, fusion, variant, "mean", *map(statistics.fmean, zip(*found, strict=True)))


def run_pair_benchmark(
    folder: Location, methods: Mapping[str, Callable[[Tensor], Tensor]], *, fuser: Location | None = None,
    device: str = "auto", progress: bool = False,
) -> PairResults:  # fmt: skip
    """Enhances infrared images with every method, fuses them with visible images, and measures the fused images.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes.
        methods: functions of images [1, 1, H, W] in [0, 1], by the names they have in tables. The protocol describes
            the names "none" and "stretch", see `deal.evaluate.method_registry.find_pair_methods`.
        fuser: a weights file of `deal train-fuser`, which adds the fusion "reco" to "max" and "mean".
        device: for the fuser, see `choose_device`.
        progress: shows a progress bar.
    """
    fusions = _fusions(fuser, choose_device(device))
    pairs = [read_pair(*paths) for paths in find_pairs(Path(folder))]
    results = PairResults([], tuple(methods), tuple(fusions), _protocol(Path(folder), len(pairs), fuser))
    with tqdm(total=len(methods) * len(pairs), unit="pair", disable=not progress, file=sys.stderr) as bar:
        for name, method in methods.items():
            enhanced = []
            for pair in pairs:
                enhanced.append(_enhanced(name, method, pair))
                bar.update()
            for rule, run in fusions.items():
                fused = [run(image, pair.visible) for image, pair in zip(enhanced, pairs, strict=True)]
                for variant, (image, pair) in itertools.product(VARIANTS, zip(fused, pairs, strict=True)):
                    values = fusion_metrics(image, pair.infrared, pair.visible, variant)
                    results.rows.append(Fused(name, rule, variant, pair.name, **values))
    return results


def _fusions(fuser: Location | None, device: torch.device) -> dict[str, Fusion]:
    found: dict[str, Fusion] = {rule: functools.partial(fuse, how=rule) for rule in RULES}
    return found if fuser is None else found | {NETWORK: Fuser.from_pretrained(fuser).to(device).fuse}


def _enhanced(name: str, method: Callable[[Tensor], Tensor], pair: Pair) -> numpy.ndarray:
    enhanced = method(pair.x)
    if not enhanced.isfinite().all():
        raise UnusableImage(f"{name} gives values that are not finite: {pair.name}")
    return to_uint8(enhanced)


def _protocol(folder: Path, count: int, fuser: Location | None) -> str:
    rules = "by maximum (max) or by mean, rounded up"
    if fuser is not None:
        rules = f"by maximum (max), by mean, rounded up, or by the network of {Path(fuser).name} ({NETWORK})"
    return (
        f"{count} pairs of {folder.absolute().name}, whole; infrared images enhanced, rounded to 8 bits, and fused "
        f"with the luma (BT.601) of the visible images, {rules}. Metrics on 0 to 255 against the visible image and the "
        "ORIGINAL infrared image, not the enhanced one; means over pairs. Standard metrics follow their definitions, "
        "legacy ones the code behind published tables. none is without enhancement, stretch a contrast gain of 1.3 "
        f"about the mean. torch {torch.__version__}."
    )
