"""The detection benchmark: images are degraded and restored, and one detector finds the objects in all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from deal.detection.annotations import Annotations, read_annotations
from deal.detection.detector import Detections, Detector
from deal.detection.precision import average_precision
from deal.io.images import Location, UnusableImage, read_frame
from deal.model.device import choose_device

CLEAN = "clean"  # the row of images as they are


class Detected(NamedTuple):
    """The precision of one class in the images of one row, restored by one method."""

    row: str
    method: str
    label: str
    ap50: float  # average precision at an intersection over union of 0.5
    ap: float  # its mean over thresholds from 0.5 to 0.95
    ap50_error: float  # standard errors over images
    ap_error: float


@dataclass(frozen=True)
class DetectionResults:
    """The results of a benchmark, by row, method and class."""

    rows: list[Detected]
    degradations: tuple[str, ...]
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    protocol: str

    def of(self, row: str, method: str, label: str) -> Detected:
        """The precision of one class."""
        found = [each for each in self.rows if each[:3] == (row, method, label)]
        if not found:
            raise ValueError("row, method and label must be in the results")
        return found[0]


def run_detection_benchmark(
    annotations: Location, folder: Location, detector: Location, methods: Mapping[str, Callable[[Tensor], Tensor]],
    degradations: Mapping[str, Callable[[Tensor, int], Tensor]], *, device: str = "auto", progress: bool = False,
) -> DetectionResults:  # fmt: skip
    """Degrades images, restores them with every method, and measures the detections in the restored images.

    Args:
        annotations: a file in the COCO format, see `deal.detection.annotations`.
        folder: has its images.
        detector: a weights file of `deal train-detector`; the same for all images.
        methods: functions of images [1, 1, H, W] in [0, 1], by the names they have in tables.
        degradations: functions of such an image and its index, by name; the row "clean" is added.
        device: for the detector, see `choose_device`.
        progress: shows a progress bar.
    """
    chosen = choose_device(device)
    network = Detector.from_pretrained(detector).to(chosen)
    truth = read_annotations(annotations, folder)
    if network.classes != truth.classes:
        raise ValueError(
            f"{annotations} has the classes {', '.join(truth.classes)}; {detector} detects {', '.join(network.classes)}"
        )
    rows = {CLEAN: lambda x, _: x, **degradations}
    images = [read_frame(each.path).tensor(1)[None] for each in truth.images]
    protocol = _protocol(truth, Path(folder), Path(detector))
    results = DetectionResults([], tuple(rows), tuple(methods), truth.classes, protocol)
    with tqdm(total=len(rows) * len(methods) * len(images), unit="image", disable=not progress, file=sys.stderr) as bar:
        for row, degrade in rows.items():
            degraded = [degrade(x, index) for index, x in enumerate(images)]
            for name, method in methods.items():
                found = []
                for x, each in zip(degraded, truth.images, strict=True):
                    found.append(_detected(network, method(x), f"{name} gives values that are not finite: {each.path}"))
                    bar.update()
                precisions = average_precision(truth, found)
                results.rows.extend(Detected(row, name, label, *values) for label, values in precisions.items())
    return results


@torch.inference_mode()
def _detected(network: Detector, restored: Tensor, error: str) -> Detections:
    if not restored.isfinite().all():
        raise UnusableImage(error)
    device = next(network.parameters()).device
    (found,) = network.detect(restored.clamp(0, 1).to(device))
    return Detections(*(each.cpu() for each in found))


def _protocol(truth: Annotations, folder: Path, detector: Path) -> str:
    counts = ", ".join(
        f"{sum(int((each.labels == label).sum()) for each in truth.images)} {name}"
        for label, name in enumerate(truth.classes)
    )
    return (
        f"{len(truth.images)} images of {folder.absolute().name}, whole, with the objects {counts}; degraded, "
        f"restored, clamped to 0 to 1, and searched by the detector {detector.name}, trained on clean images. Average "
        "precision as of COCO, for objects of all sizes: AP50 at an intersection over union of 0.5, AP its mean over "
        f"0.5 to 0.95, with their standard errors over images. none is without restoration. torch {torch.__version__}."
    )
