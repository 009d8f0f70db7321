"""Images with boxes of objects, from a file of annotations in the COCO format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from deal.io.images import Location

IGNORED = "DontCare"  # the category of areas that are neither objects nor background


class Labelled(NamedTuple):
    """An image and its objects. Boxes are left, top, right and bottom, in pixels."""

    path: Path
    boxes: numpy.ndarray  # float32 [N, 4]
    labels: numpy.ndarray  # int64 [N], positions in the classes
    ignored: numpy.ndarray  # float32 [M, 4], areas that are neither objects nor background


class Annotations(NamedTuple):
    """The labelled images of a set, and the names of the classes."""

    images: list[Labelled]
    classes: tuple[str, ...]


def read_annotations(file: Location, folder: Location) -> Annotations:
    """Reads a COCO file whose images are in a folder.

    Boxes of the category "DontCare", and those with `iscrowd`, are areas to ignore.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "boxes.json"
    >>> _ = file.write_text('''{"images": [{"id": 7, "file_name": "a.png"}],
    ...   "categories": [{"id": 3, "name": "Car"}, {"id": 4, "name": "DontCare"}],
    ...   "annotations": [{"image_id": 7, "category_id": 3, "bbox": [10, 20, 30, 5]}]}''')
    >>> found = read_annotations(file, file.parent)
    >>> found.classes, found.images[0].boxes.tolist()
    (('Car',), [[10.0, 20.0, 40.0, 25.0]])
    """
    try:
        content = json.loads(Path(file).read_text())
        names = {each["id"]: str(each["name"]) for each in sorted(content["categories"], key=lambda each: each["id"])}
        classes = tuple(name for name in names.values() if name != IGNORED)
        images = [
            _labelled(Path(folder, each["file_name"]), _of_image(content, each["id"]), names, classes)
            for each in content["images"]
        ]
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a file of COCO annotations: {type(error).__name__}: {error}") from error
    if not images or not classes:
        raise ValueError(f"{file} must have images and categories; got {len(images)} and {len(classes)}")
    return Annotations(images, classes)


def _of_image(content: dict[str, Any], image: int) -> list[dict[str, Any]]:
    return [each for each in content["annotations"] if each["image_id"] == image]


def _labelled(
    path: Path, found: list[dict[str, Any]], names: dict[int, str], classes: tuple[str, ...]
) -> Labelled:  # fmt: skip
    def is_ignored(each: dict[str, Any]) -> bool:
        return bool(each.get("iscrowd")) or names[each["category_id"]] == IGNORED

    objects = [each for each in found if not is_ignored(each)]
    labels = [classes.index(names[each["category_id"]]) for each in objects]
    ignored = [each["bbox"] for each in found if is_ignored(each)]
    return Labelled(path, _corners([each["bbox"] for each in objects]), numpy.array(labels, "int64"), _corners(ignored))


def _corners(boxes: list[list[float]]) -> numpy.ndarray:
    """Left, top, width and height become left, top, right and bottom, [N, 4]."""
    found = numpy.array(boxes, "float32").reshape(-1, 4)
    return numpy.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
