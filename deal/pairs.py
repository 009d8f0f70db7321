"""The fusion protocol: infrared images enhanced, fused with their visible partners, and the fused images measured.

Measures compare the fused image to the visible one and to the infrared one as it came, whatever was fused: else an
enhancer would be praised for being like itself.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from deal import fusion
from deal.baselines import Method
from deal.data import Location, UnusableImage, find_images, read_frame
from deal.enhance import chosen_device
from deal.methods import BEST, check_methods, labels, method_of
from deal.picture import grey

HOW: tuple[Literal["max", "mean"], ...] = ("max", "mean")
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
    protocol: str

    def mean(self, method: str, how: str, variant: str) -> Fused:
        """The means over pairs."""
        found = [each[4:] for each in self.rows if each[:3] == (method, how, variant)]
        if not found:
            raise ValueError("method, how and variant must be ones that were measured")
        return Fused(method, how, variant, "mean", *map(statistics.fmean, zip(*found, strict=True)))


class Pair(NamedTuple):
    name: str
    seen: Tensor  # the infrared image, [1, 1, H, W] in [0, 1]
    infrared: numpy.ndarray  # the same, uint8 [H, W]
    visible: numpy.ndarray  # its brightness, uint8 [H, W]


def evaluate_pairs(
    folder: Location, methods: Sequence[str] = ("none",), *, device: str = "auto", progress: bool = False
) -> PairResults:
    """Fuses whole infrared images, enhanced by each method, with visible ones, and measures the result.

    Args:
        folder: has the folders ir and vis, with images of the same names and sizes.
        methods: names, see `method_of`. The rows "none", without enhancement, and "stretch", a mere gain in contrast,
            come first in any case.
        device: of networks, see `evaluate`.
        progress: shows a bar.
    """
    check_methods(methods)
    if BEST in methods:
        raise ValueError(f"methods for pairs must not have {BEST!r}: it is found by clean images, which pairs lack")
    where = chosen_device(device)
    shown = labels(list(dict.fromkeys((*ALWAYS, *methods))))
    run = {label: method_of(name, tile="auto", device=where) for name, label in shown.items()}
    pairs = [_read(*paths) for paths in _partners(Path(folder))]
    results = PairResults([], tuple(run), _protocol(Path(folder), len(pairs)))
    with tqdm(total=len(run) * len(pairs), unit="pair", disable=not progress, file=sys.stderr) as bar:
        for name, method in run.items():
            enhanced = []
            for pair in pairs:
                enhanced.append(_enhanced(name, method, pair))
                bar.update()
            for how, variant in itertools.product(HOW, VARIANTS):
                for pair, image in zip(pairs, enhanced, strict=True):
                    fused = fusion.fuse(image, pair.visible, how)
                    values = fusion.measures(fused, pair.infrared, pair.visible, variant)
                    results.rows.append(Fused(name, how, variant, pair.name, **values))
    return results


def _enhanced(name: str, method: Method, pair: Pair) -> numpy.ndarray:
    enhanced = method(pair.seen)
    if not enhanced.isfinite().all():
        raise UnusableImage(f"{name} gives values that are not finite: {pair.name}")
    return grey(enhanced)


def _partners(folder: Path) -> list[tuple[Path, Path]]:
    infrared, visible = ({path.name: path for path in find_images(folder / name)} for name in ("ir", "vis"))
    for name in sorted(infrared.keys() ^ visible.keys()):
        has, lacks = ("ir", "vis") if name in infrared else ("vis", "ir")
        raise FileNotFoundError(f"{folder / has / name} has no partner: {folder / lacks / name} is not there")
    return [(path, visible[name]) for name, path in infrared.items()]


def _read(infrared: Path, visible: Path) -> Pair:
    seen = read_frame(infrared).tensor(1)[None]
    frame = read_frame(visible)
    if frame.pixels.dtype == numpy.uint8:
        luma = numpy.array(Image.fromarray(frame.pixels).convert("L"))
    else:
        luma = grey(frame.tensor(1))
    if luma.shape != seen.shape[2:]:
        sizes = " and ".join(f"{height} x {width}" for height, width in (seen.shape[2:], luma.shape))
        raise UnusableImage(f"{infrared} and {visible} must be of one size; got {sizes} pixels")
    return Pair(infrared.name, seen, grey(seen), luma)


def _protocol(folder: Path, count: int) -> str:
    return (
        f"{count} pairs of {folder.absolute().name}, whole; infrared images enhanced, rounded to 8 bits, and fused "
        "with the brightness (BT.601) of the visible ones, by the larger pixel (max) or the mean, rounded up. Measures "
        "are on 0 to 255, their sources the visible image and the ORIGINAL infrared image, not the enhanced one; means "
        "over pairs. Standard measures are what their definitions say, legacy ones what the literature's tables "
        f"contain. none is no enhancement, stretch a contrast of 1.3 about the mean. torch {torch.__version__}."
    )
