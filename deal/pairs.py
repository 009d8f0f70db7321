"""The fusion protocol: infrared images enhanced, fused with their visible partners, and the fused images measured.

Measures compare the fused image to the visible one and to the infrared one as it came, whatever was fused: else an
enhancer would be praised for being like itself.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from tqdm import tqdm

from deal import fusion
from deal.baselines import Method
from deal.data import Location, UnusableImage
from deal.enhance import chosen_device
from deal.methods import BEST, check_methods, labels, method_of
from deal.partners import Pair, find_pairs, read_pair
from deal.picture import grey
from deal.reco import Fuser

Fusion = Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]  # of uint8 [H, W], infrared and visible
HOW: tuple[Literal["max", "mean"], ...] = ("max", "mean")
RECO = "reco"  # by a network, where one is given
VARIANTS: tuple[fusion.Variant, ...] = ("standard", "legacy")
MEASURES = ("EN", "MI", "SD", "SCD", "VIF", "Qabf")
ALWAYS = ("none", "stretch")


class Fused(NamedTuple):
    """The measures of one fused image, or their means over pairs."""

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
    """What was measured: rows are by method, fusion, variant and image, in this order."""

    rows: list[Fused]
    methods: tuple[str, ...]
    fusions: tuple[str, ...]
    protocol: str

    def mean(self, method: str, how: str, variant: str) -> Fused:
        """The means over pairs."""
        found = [each[4:] for each in self.rows if each[:3] == (method, how, variant)]
        if not found:
            raise ValueError("method, how and variant must be ones that were measured")
        return Fused(method, how, variant, "mean", *map(statistics.fmean, zip(*found, strict=True)))


def evaluate_pairs(
    folder: Location, methods: Sequence[str] = ("none",), *, fuser: Location | None = None, device: str = "auto",
    progress: bool = False,
) -> PairResults:  # fmt: skip
    """Fuses whole infrared images, enhanced by each method, with visible ones, and measures the result.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes.
        methods: names, see `method_of`. The rows "none", without enhancement, and "stretch", a mere gain in contrast,
            come first in any case.
        fuser: a file of weights of `deal.reco`, which adds the fusion "reco" to "max" and "mean".
        device: of networks, see `evaluate`.
        progress: shows a bar.
    """
    check_methods(methods)
    if BEST in methods:
        raise ValueError(f"methods for pairs must not have {BEST!r}: it is found by clean images, which pairs lack")
    where = chosen_device(device)
    shown = labels(list(dict.fromkeys((*ALWAYS, *methods))))
    run = {label: method_of(name, tile="auto", device=where) for name, label in shown.items()}
    fusions = _fusions(fuser, where)
    pairs = [read_pair(*paths) for paths in find_pairs(Path(folder))]
    results = PairResults([], tuple(run), tuple(fusions), _protocol(Path(folder), len(pairs), fuser))
    with tqdm(total=len(run) * len(pairs), unit="pair", disable=not progress, file=sys.stderr) as bar:
        for name, method in run.items():
            enhanced = []
            for pair in pairs:
                enhanced.append(_enhanced(name, method, pair))
                bar.update()
            for how, fuse in fusions.items():
                fused = [fuse(image, pair.visible) for image, pair in zip(enhanced, pairs, strict=True)]
                for variant, (image, pair) in itertools.product(VARIANTS, zip(fused, pairs, strict=True)):
                    values = fusion.measures(image, pair.infrared, pair.visible, variant)
                    results.rows.append(Fused(name, how, variant, pair.name, **values))
    return results


def _fusions(fuser: Location | None, device: torch.device) -> dict[str, Fusion]:
    found: dict[str, Fusion] = {how: functools.partial(fusion.fuse, how=how) for how in HOW}
    return found if fuser is None else found | {RECO: Fuser.from_pretrained(fuser).to(device).fuse}


def _enhanced(name: str, method: Method, pair: Pair) -> numpy.ndarray:
    enhanced = method(pair.seen)
    if not enhanced.isfinite().all():
        raise UnusableImage(f"{name} gives values that are not finite: {pair.name}")
    return grey(enhanced)


def _protocol(folder: Path, count: int, fuser: Location | None) -> str:
    ways = "by the larger pixel (max) or the mean, rounded up"
    if fuser is not None:
        ways = f"by the larger pixel (max), the mean, rounded up, or the network of {Path(fuser).name} ({RECO})"
    return (
        f"{count} pairs of {folder.absolute().name}, whole; infrared images enhanced, rounded to 8 bits, and fused "
        f"with the brightness (BT.601) of the visible ones, {ways}. Measures are on 0 to 255, their sources the "
        "visible image and the ORIGINAL infrared image, not the enhanced one; means over pairs. Standard measures are "
        "what their definitions say, legacy ones what the literature's tables contain. none is no enhancement, "
        f"stretch a contrast of 1.3 about the mean. torch {torch.__version__}."
    )
