"""The detector: annotations, crops, targets, training, precision, and the benchmark from the command line."""

import json
import math

import numpy
import pytest
import torch
from PIL import Image

from deal import cli
from deal.detection import crops
from deal.detection.annotations import read_annotations
from deal.detection.benchmark import run_detection_benchmark
from deal.detection.detector import STRIDE, Detections, Detector, Maps
from deal.detection.losses import detection_loss, generalised_overlap, targets
from deal.detection.precision import average_precision
from deal.detection.training import train_detector
from deal.evaluate.report import as_csv, as_markdown

HEIGHT, WIDTH = 64, 96
CATEGORIES = [{"id": 0, "name": "Person"}, {"id": 5, "name": "Car"}, {"id": 9, "name": "DontCare"}]


def scene(seed):
    """Dark pixels with bright upright people and wide cars, and their annotations."""
    random = numpy.random.default_rng(seed)
    pixels = random.integers(20, 60, (HEIGHT, WIDTH), numpy.uint8)
    found = []
    for category, (width, height), left in ((0, (8, 16), 8), (5, (24, 12), 40), (0, (8, 16), 76)):
        left, top = left + int(random.integers(8)), int(random.integers(4, HEIGHT - 20))
        pixels[top : top + height, left : left + width] = random.integers(190, 240)
        found.append({"category_id": category, "bbox": [left, top, width, height]})
    return pixels, found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen images, boxes.json and a detector that was trained on them."""
    folder = tmp_path_factory.mktemp("detection")
    images, annotations = [], []
    for k in range(16):
        pixels, found = scene(k)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        images.append({"id": 100 + k, "file_name": f"{k}.png"})
        annotations += [{**each, "image_id": 100 + k} for each in found]
    annotations.append({"image_id": 100, "category_id": 9, "bbox": [0, 0, 4, 4]})
    content = {"images": images, "categories": CATEGORIES, "annotations": annotations}
    (folder / "boxes.json").write_text(json.dumps(content))
    options = {"steps": 120, "batch": 4, "crop": (HEIGHT, WIDTH), "learning_rate": 4e-3, "device": "cpu"}
    train_detector(folder / "boxes.json", folder, folder / "detector.safetensors", **options)
    return folder


def test_annotations(folder):
    found = read_annotations(folder / "boxes.json", folder)
    first = found.images[0]
    assert found.classes == ("Person", "Car") and len(found.images) == 16
    assert first.path == folder / "0.png" and first.labels.tolist() == [0, 1, 0]
    assert first.ignored.tolist() == [[0, 0, 4, 4]] and not len(found.images[1].ignored)
    assert (first.boxes[1][2:] - first.boxes[1][:2]).tolist() == [24, 12]


@pytest.mark.parametrize(
    "content",
    ["no json", "[]", "{}", '{"images": [], "categories": [], "annotations": []}', '{"images": [{"id": 1}]}'],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=r"boxes\.json"):
        read_annotations(tmp_path / "boxes.json", tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_crops_keep_boxes_on_their_objects(seed):
    """The pixels inside of every box are the object's, whatever was done to the image."""
    x = torch.zeros(1, 60, 80)
    boxes = torch.tensor([[10.0, 8.0, 26.0, 20.0], [50.0, 30.0, 62.0, 54.0]])
    for left, top, right, bottom in boxes.int().tolist():
        x[:, top:bottom, left:right] = 1
    sample = crops.Sample(x, boxes, torch.tensor([0, 1]), torch.tensor([[0.0, 0.0, 8.0, 6.0]]))
    found = crops.random_crop(sample, (48, 64), numpy.random.default_rng(seed))
    assert found.x.shape == (1, 48, 64) and len(found.boxes) == len(found.labels)
    bright = (found.x[0] > found.x.min() + 0.5 * (found.x.max() - found.x.min())).float()
    covered = torch.zeros(48, 64)
    for left, top, right, bottom in [*found.boxes.round().int().tolist(), *found.ignored.round().int().tolist()]:
        covered[top:bottom, left:right] = 1
    for left, top, right, bottom in found.boxes.round().int().tolist():
        assert bright[top:bottom, left:right].mean() > 0.8
    assert (bright * (1 - covered)).sum() <= 0.25 * bright.sum()


def maps_of(target):
    """Maps that say exactly what the target says."""
    logits = torch.where(target.heat.eq(1), 20.0, -20.0)
    return Maps(logits[None], target.shift[None], target.size[None])


class Told(Detector):
    """A detector whose maps are given."""

    def __init__(self, classes, maps):
        super().__init__(classes, width=4)
        self.maps = maps

    def forward(self, x):
        return self.maps


def test_targets_decode_to_their_boxes():
    boxes = torch.tensor([[4.0, 6.0, 21.0, 19.0], [40.0, 30.0, 47.0, 45.0]])
    target = targets(boxes, torch.tensor([1, 0]), boxes[:0], 2, (HEIGHT // STRIDE, WIDTH // STRIDE))
    (found,) = Told(["a", "b"], maps_of(target)).detect(torch.zeros(1, 1, HEIGHT, WIDTH))
    order = found.labels[:2].argsort(descending=True)
    assert found.labels[order].tolist() == [1, 0] and found.scores[:2].min() > 0.99 > 0.01 > found.scores[2]
    torch.testing.assert_close(found.boxes[order], boxes, atol=1e-3, rtol=0)
    assert detection_loss(maps_of(target), [target]) < 1e-3


@pytest.mark.parametrize(
    ("shift", "scale", "overlap"),
    [
        ((0, 0), 1, 1.0),
        ((0, 0), 2, 0.25),  # a box of 1 in a box of 2
        ((0.5, 0), 1, 1 / 3),
        ((2, 0), 1, -1 / 3),  # apart: a third of the box around both is empty
    ],
)
def test_overlap_of_boxes(shift, scale, overlap):
    zero = torch.zeros(1, 2, 1, 1)
    moved, size = torch.tensor(shift).float().view(1, 2, 1, 1), torch.full((1, 2, 1, 1), float(scale)).log()
    assert generalised_overlap(moved, size, zero, zero).item() == pytest.approx(overlap)
    assert generalised_overlap(zero, zero, moved, size).item() == pytest.approx(overlap)


def test_areas_to_ignore_do_not_count():
    everywhere = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    target = targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), everywhere, 1, (16, 16))
    hot = Maps(torch.full((1, 1, 16, 16), 9.0), torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16))
    assert detection_loss(hot, [target]) == 0
    assert detection_loss(hot, [target._replace(counted=torch.ones(1, 16, 16))]) > 100


def test_precision(folder):
    """Right boxes, boxes half as wide, and one image without any."""
    truth = read_annotations(folder / "boxes.json", folder)

    def found(shrink, images=16):
        made = []
        for k, each in enumerate(truth.images):
            boxes = torch.from_numpy(each.boxes).clone()
            boxes[:, 2] -= shrink * (boxes[:, 2] - boxes[:, 0])
            labels, count = torch.from_numpy(each.labels), len(boxes) if k < images else 0
            made.append(Detections(boxes[:count], torch.full((count,), 0.9), labels[:count]))
        return made

    for each in average_precision(truth, found(0)).values():
        assert each == pytest.approx((1, 1, 0, 0))
    for each in average_precision(truth, found(0.28)).values():  # an intersection over union of 0.72
        assert each == pytest.approx((1, 0.5, 0, 0), abs=0.01)
    for each in average_precision(truth, found(0, images=8)).values():
        assert each.at_half == pytest.approx(0.5, abs=0.01)
        assert each.at_half_error == pytest.approx(0.5 / 16**0.5, rel=0.3)  # of a share of 0.5 in 16 draws
    for each in average_precision(truth, found(0, images=0)).values():
        assert each == (0, 0, 0, 0)
    inside = Detections(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([1.0]), torch.tensor([1]))
    right = found(0)
    right[0] = Detections(*(torch.cat(parts) for parts in zip(inside, right[0], strict=True)))
    assert average_precision(truth, right)["Car"] == pytest.approx((1, 1, 0, 0))  # in an area to ignore


def test_training_learns_to_detect(folder):
    detector = Detector.from_pretrained(folder / "detector.safetensors")
    assert detector.classes == ("Person", "Car")
    methods = {"none": lambda x: x, "black": torch.zeros_like}
    results = run_detection_benchmark(
        folder / "boxes.json", folder, folder / "detector.safetensors", methods,
        {"noise": lambda x, index: x + 0.5 * torch.randn(x.shape, generator=torch.manual_seed(index))},
    )  # fmt: skip
    for label in results.classes:
        assert results.of("clean", "none", label).ap50 > 0.8
        assert results.of("noise", "none", label).ap50 < results.of("clean", "none", label).ap50
        assert results.of("clean", "black", label).ap50 < 0.05
    table = as_markdown(results)
    assert "| Car, AP50 " in table and "| Person, AP50 recovered, % " in table
    assert as_csv(results).splitlines()[0] == "row,method,label,ap50,ap,ap50_error,ap_error"


def test_training_is_repeatable(folder, tmp_path):
    options = {"steps": 2, "batch": 2, "crop": 64, "device": "cpu", "seed": 3}
    first, second = (train_detector(folder / "boxes.json", folder, tmp_path / "w.safetensors", **options) for _ in "ab")
    assert first.losses == second.losses
    for name, value in first.detector.state_dict().items():
        assert torch.equal(value, second.detector.state_dict()[name])


def test_command_line(folder, tmp_path, capsys):
    boxes, weights = str(folder / "boxes.json"), str(tmp_path / "detector.safetensors")
    command = ["train-detector", "--annotations", boxes, "--images", str(folder), "-o", weights, "--steps", "2"]
    assert cli.main([*command, "--crop", "64", "--quiet"]) == 0
    assert "2 steps, mean loss" in capsys.readouterr().out
    command = [
        "evaluate",
        "--data",
        str(folder),
        "--detect",
        boxes,
        "--detector",
        weights,
        "--suite",
        "short",
        "--quiet",
    ]
    assert cli.main([*command, "--methods", "none", "midway", "-o", str(tmp_path / "out")]) == 0
    assert "16 Car" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.csv", "results.md", "plot.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detect", "boxes.json"], "--detect and --detector must be given together"),
        (["--detect", "boxes.json", "--detector", "d", "--crop", "32"], "without --degraded and --crop"),
        (["--detect", "absent.json", "--detector", "detector.safetensors"], "absent.json"),
        (["--detect", "boxes.json", "--detector", "absent.safetensors"], "absent.safetensors"),
        (
            ["--detect", "boxes.json", "--detector", "detector.safetensors", "--methods", "best-classical"],
            "must not include 'best-classical'",
        ),
    ],
)
def test_errors(folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(folder)
    assert cli.main(["evaluate", "--data", ".", "-o", str(tmp_path / "out"), "--quiet", *options]) == 1
    assert message in capsys.readouterr().err


def test_other_classes_are_refused(folder, tmp_path):
    Detector(["Ship"], width=4).save_pretrained(tmp_path / "ship.safetensors")
    with pytest.raises(ValueError, match="has the classes Person, Car; .* detects Ship"):
        run_detection_benchmark(folder / "boxes.json", folder, tmp_path / "ship.safetensors", {}, {})


def test_a_class_without_objects_has_no_precision(folder):
    truth = read_annotations(folder / "boxes.json", folder)._replace(classes=("Person", "Car", "Ship"))
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert math.isnan(average_precision(truth, [empty] * 16)["Ship"].at_half)
