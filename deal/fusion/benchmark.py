"""The fusion benchmark: infrared images are enhanced and fused with visible images, and the fused images are measured.

Metrics compare the fused image with the visible image and with the original infrared image, not with the enhanced one.
Otherwise an enhancer would be rewarded for similarity to its own result. If the infrared images are degraded first,
they also compare it with the degraded image, as the paper does; that rewards noise which is kept.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from deal.fusion.metrics import Variant, fuse, fusion_metrics
from deal.fusion.network import Fuser
from deal.fusion.pair_dataset import find_pairs, read_pair
from deal.io.images import Location, UnusableImage, to_uint8
from deal.model.device import choose_device

Method = Callable[[Tensor], Tensor]  # of an image
Degradation = Callable[[Tensor, int], Tensor]  # of an image and its index
Fusion = Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]  # of infrared and visible, uint8 [H, W]
RULES: tuple[Literal["max", "mean"], ...] = ("max", "mean")
NETWORK = "reco"  # the fusion by a network
VARIANTS: tuple[Variant, ...] = ("standard", "legacy")
ORIGINAL, DEGRADED = "original", "degraded"  # infrared images that the fused ones are compared with
CLEAN = "clean"  # the method that has the infrared image before its degradation
METRICS = ("EN", "MI", "SD", "SCD", "VIF", "Qabf")


class Fused(NamedTuple):
    """The metrics of one fused image, or their means over pairs."""

    row: str  # the degradation; "original" without one
    reference: str  # the infrared image of the comparison, "original" or "degraded"
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
    """The results of a benchmark; the rows are sorted by degradation, method, fusion, reference, variant and image."""

    rows: list[Fused]
    degradations: tuple[str, ...]
    references: tuple[str, ...]
    methods: tuple[str, ...]
    fusions: tuple[str, ...]
    protocol: str

    def mean(self, row: str, reference: str, method: str, fusion: str, variant: str) -> Fused:
        """The means over pairs."""
        return self._over_pairs("mean", statistics.fmean, row, reference, method, fusion, variant)

    def error(self, row: str, reference: str, method: str, fusion: str, variant: str) -> Fused:
        """The standard errors of these means; NaN for a single pair."""
        return self._over_pairs("standard error", _standard_error, row, reference, method, fusion, variant)

    def _over_pairs(self, name: str, statistic: Callable[[Sequence[float]], float], *key: str) -> Fused:
        found = [each[6:] for each in self.rows if each[:5] == key]
        if not found:
            raise ValueError("row, reference, method, fusion and variant must be in the results")
        return Fused(*key, name, *map(statistic, zip(*found, strict=True)))  # type: ignore[misc,call-arg,arg-type]


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def run_pair_benchmark(
    folder: Location, methods: Mapping[str, Method], *, degradations: Mapping[str, Degradation] | None = None,
    fuser: Location | None = None, device: str = "auto", progress: bool = False,
) -> PairResults:  # fmt: skip
    """Enhances infrared images with every method, fuses them with visible images, and measures the fused images.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes.
        methods: functions of images [1, 1, H, W] in [0, 1], by the names they have in tables. The protocol describes
            the names "none" and "stretch", see `deal.evaluate.method_registry.find_pair_methods`.
        degradations: functions of such an infrared image and its index, by name; each is a row of the tables, and the
            method "clean", without degradation and enhancement, is added. None enhances the images as they are.
        fuser: a weights file of `deal train-fuser`, which adds the fusion "reco" to "max" and "mean".
        device: for the fuser, see `choose_device`.
        progress: shows a progress bar.
    """
    fusions = _fusions(fuser, choose_device(device))
    pairs = [read_pair(*paths) for paths in find_pairs(Path(folder))]
    rows = {ORIGINAL: lambda x, _: x} if degradations is None else degradations
    references = (ORIGINAL,) if degradations is None else (ORIGINAL, DEGRADED)
    names = tuple(methods) if degradations is None else (*methods, CLEAN)
    protocol = _protocol(Path(folder), len(pairs), fuser, degradations is not None)
    results = PairResults([], tuple(rows), references, names, tuple(fusions), protocol)
    with tqdm(total=len(rows) * len(names) * len(pairs), unit="pair", disable=not progress, file=sys.stderr) as bar:
        for row, degrade in rows.items():
            degraded = [degrade(pair.x, index) for index, pair in enumerate(pairs)]
            sources = {ORIGINAL: [pair.infrared for pair in pairs], DEGRADED: [to_uint8(x) for x in degraded]}
            for name in names:
                enhanced = sources[ORIGINAL]
                if name != CLEAN:
                    named = zip(degraded, pairs, strict=True)
                    enhanced = [_enhanced(name, methods[name], x, pair.name) for x, pair in named]
                for rule, run in fusions.items():
                    fused = [run(image, pair.visible) for image, pair in zip(enhanced, pairs, strict=True)]
                    for reference, variant in itertools.product(references, VARIANTS):
                        for image, infrared, pair in zip(fused, sources[reference], pairs, strict=True):
                            values = fusion_metrics(image, infrared, pair.visible, variant)
                            results.rows.append(Fused(row, reference, name, rule, variant, pair.name, **values))
                bar.update(len(pairs))
    return results


def _fusions(fuser: Location | None, device: torch.device) -> dict[str, Fusion]:
    found: dict[str, Fusion] = {rule: functools.partial(fuse, how=rule) for rule in RULES}
    return found if fuser is None else found | {NETWORK: Fuser.from_pretrained(fuser).to(device).fuse}


def _enhanced(name: str, method: Method, x: Tensor, image: str) -> numpy.ndarray:
    enhanced = method(x)
    if not enhanced.isfinite().all():
        raise UnusableImage(f"{name} gives values that are not finite: {image}")
    return to_uint8(enhanced)


def _protocol(folder: Path, count: int, fuser: Location | None, degraded: bool) -> str:
    rules = "by maximum (max) or by mean, rounded up"
    if fuser is not None:
        rules = f"by maximum (max), by mean, rounded up, or by the network of {Path(fuser).name} ({NETWORK})"
    before, against = "infrared images enhanced", "the ORIGINAL infrared image, not the enhanced one"
    if degraded:
        before = "infrared images degraded, then enhanced"
        against = f"the ORIGINAL infrared image or, in tables of their own, the DEGRADED one; {CLEAN} is not degraded"
    return (
        f"{count} pairs of {folder.absolute().name}, whole; {before}, rounded to 8 bits, and fused "
        f"with the luma (BT.601) of the visible images, {rules}. Metrics on 0 to 255 against the visible image and "
        f"{against}; means over pairs. Standard metrics follow their definitions, "
        "legacy ones the code behind published tables. none is without enhancement, stretch a contrast gain of 1.3 "
        f"about the mean. torch {torch.__version__}."
    )
