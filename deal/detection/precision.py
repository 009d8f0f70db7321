"""Average precision of detections, as of the COCO benchmark. It needs pycocotools, of the extra "evaluate"."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from deal.detection.annotations import Annotations, Labelled
from deal.detection.detector import Detections

DRAWS = 200  # of images, for the standard errors


class Precision(NamedTuple):
    """The average precision of one class, with its standard error over images."""

    at_half: float  # for an intersection over union of at least 0.5
    mean: float  # over thresholds from 0.5 to 0.95
    at_half_error: float
    mean_error: float


def average_precision(truth: Annotations, found: Sequence[Detections]) -> dict[str, Precision]:
    """The precision of every class; NaN if it has no objects.

    A standard error is the deviation over `DRAWS` sets of as many images, drawn from these with repetition.

    Args:
        truth: the labelled images. Detections in areas to ignore do not count.
        found: the detections of each image.
    """
    coco, evaluation = _coco()
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress
        objects = coco()
        objects.dataset = _dataset(truth)
        objects.createIndex()
        results = objects.loadRes(_results(found)) if any(len(each.scores) for each in found) else coco()
        measured = evaluation(objects, results, "bbox")
        measured.params.areaRng, measured.params.areaRngLbl = measured.params.areaRng[:1], ["all"]
        measured.params.maxDets = measured.params.maxDets[-1:]
        measured.evaluate()
        matches, images = measured.evalImgs, len(truth.images)
        generator = numpy.random.default_rng(0)
        drawn = [_precisions(measured, matches, generator.integers(images, size=images)) for _ in range(DRAWS)]
        precisions = _precisions(measured, matches, numpy.arange(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, where no draw has an object
        errors = numpy.nanstd(drawn, axis=0)
    return {
        name: Precision(*map(float, (*precisions[position], *errors[position])))
        for position, name in enumerate(truth.classes)
    }


def _precisions(measured: Any, matches: Sequence[Any], images: numpy.ndarray) -> numpy.ndarray:
    """The precision of every class at a half and its mean over thresholds, in some images, given by their numbers."""
    classes = len(measured.params.catIds)
    by_class = numpy.array(matches, dtype=object).reshape(classes, -1)
    measured.evalImgs = list(by_class[:, images].flatten())
    measured.accumulate()
    values = measured.eval["precision"][:, :, :, 0, 0].reshape(-1, measured.params.recThrs.size, classes)
    values = numpy.where(values < 0, numpy.nan, values).mean(axis=1)  # thresholds, classes
    return numpy.stack([values[0], values.mean(axis=0)], axis=1)


def _coco() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'average precision needs pycocotools: pip install "deal-kernels[evaluate]", or pip install pycocotools'
        ) from error
    return COCO, COCOeval


def _dataset(truth: Annotations) -> dict[str, Any]:
    """The labelled images in the format of COCO. Areas to ignore are crowds of every class."""
    annotations: list[dict[str, Any]] = []
    for image, labelled in enumerate(truth.images, 1):
        for box, label, crowd in _areas(labelled, len(truth.classes)):
            left, top, right, bottom = map(float, box)
            sides = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": label + 1, "iscrowd": crowd,
                    "bbox": [left, top, *sides], "area": sides[0] * sides[1],
                }
            )  # fmt: skip
    return {
        "images": [{"id": image + 1} for image in range(len(truth.images))],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(truth.classes)],
        "annotations": annotations,
    }


def _areas(labelled: Labelled, classes: int) -> list[tuple[numpy.ndarray, int, int]]:
    objects = [(box, int(label), 0) for box, label in zip(labelled.boxes, labelled.labels, strict=True)]
    return objects + [(box, label, 1) for box in labelled.ignored for label in range(classes)]


def _results(found: Sequence[Detections]) -> numpy.ndarray:
    """Lines of image, left, top, width, height, score and class."""
    lines = [
        numpy.column_stack(
            [
                numpy.full(len(each.scores), image), each.boxes[:, :2], each.boxes[:, 2:] - each.boxes[:, :2],
                each.scores, each.labels + 1,
            ]
        )
        for image, each in enumerate(found, 1)
    ]  # fmt: skip
    return numpy.concatenate(lines).astype(float)
