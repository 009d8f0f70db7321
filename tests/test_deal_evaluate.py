"""Evaluation: its figures against those found directly, the choice of the best, files, tables, pictures, pairs."""

import csv
import io
import json
import math
import os
import shutil

import numpy
import pytest
import torch
from conftest import DATA
from PIL import Image

from deal.evaluate import method_registry, metrics, report
from deal.evaluate.benchmark import best, run_benchmark
from deal.evaluate.degradation_suites import SUITES, Row, degrade
from deal.evaluate.method_registry import classical_method, find_method, find_pair_methods, labels
from deal.evaluate.results import Figures
from deal.fusion.benchmark import METRICS, run_pair_benchmark
from deal.fusion.metrics import fuse, fusion_metrics
from deal.io.contact_sheet import GAP, LABEL_HEIGHT
from deal.io.images import to_uint8
from deal.io.synthetic import thermal_scene
from deal.model import pretrained
from deal.model.network import DEAL
from deal.model.separation import DealU

STANDARD = {row.name: row for row in SUITES["standard"]}
ROWS = [STANDARD[name] for name in ("clean", "stripes 0.1", "x2", "contrast 0.5")]
CROP = (48, 64)
VALUES = ("psnr", "affine_psnr", "ssim", "stripe_residual", "row_residual")


@pytest.fixture
def folder(tmp_path):
    """Three scenes of different sizes, weights, and two pairs."""
    for k, (height, width) in enumerate(((60, 71), (49, 90), (48, 64))):
        save(tmp_path / "in" / f"{k}.png", to_uint8(thermal_scene(height, width, seed=k)))
    torch.manual_seed(0)
    network = DEAL([("scale", 3, 3)], width=4)
    network(torch.rand(2, 1, 32, 32))
    network.save_pretrained(tmp_path / "tiny.safetensors")
    for k in range(2):
        save(tmp_path / "pairs" / "ir" / f"{k}.png", to_uint8(thermal_scene(48, 50 + k, seed=10 + k)))
        save(
            tmp_path / "pairs" / "vis" / f"{k}.png",
            numpy.random.default_rng(k).integers(0, 256, (48, 50 + k, 3), numpy.uint8),
        )
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def middles(folder):
    """[1, 1, 48, 64] of every image."""
    places = {"0.png": (6, 3), "1.png": (0, 13), "2.png": (0, 0)}
    for name, (top, left) in places.items():
        pixels = numpy.array(Image.open(folder / "in" / name))[top : top + 48, left : left + 64]
        yield name, torch.from_numpy(pixels.astype(numpy.float32) / 255)[None, None]


def figures(results, row, method):
    return [each for each in results.rows if (each.row, each.method) == (row, method)]


def without_times(rows):
    return [each._replace(ms=0) for each in rows]


def check(measured, y, x):
    for name in VALUES:
        expected = getattr(metrics, name)(y.clamp(0, 1), x).item()
        assert getattr(measured, name) == pytest.approx(expected, rel=1e-4), name


def test_figures_are_those_of_the_clamped_result_on_the_middle(folder):
    results = run_benchmark(folder / "in", ROWS, ["none", "median-difference", "none"], crop=CROP, seed=4)
    assert results.methods == ("none", "median-difference") and len(results.rows) == 4 * 2 * 3
    for place, (name, x) in enumerate(middles(folder)):
        for row in ROWS:
            y = degrade(row, x, place, seed=4)
            for method in results.methods:
                measured = figures(results, row.name, method)[place]
                assert (measured.image, measured.winner) == (name, "") and measured.ms > 0
                check(measured, classical_method(method)(y), x)
    assert figures(results, "clean", "none")[0].psnr == math.inf
    means = results.mean("stripes 0.1", "none")
    assert means.psnr == pytest.approx(numpy.mean([each.psnr for each in figures(results, "stripes 0.1", "none")]))
    assert (means.row, means.method, means.image) == ("stripes 0.1", "none", "mean")
    with pytest.raises(ValueError, match="row and method must be in the results"):
        results.mean("fog", "none")


def test_whole_images(folder):
    results = run_benchmark(folder / "in" / "1.png", [ROWS[1]], crop=None)
    pixels = numpy.array(Image.open(folder / "in" / "1.png")).astype(numpy.float32)
    x = torch.from_numpy(pixels / 255)[None, None]
    check(results.rows[0], degrade(ROWS[1], x, 0), x)


def test_every_method_sees_the_same(folder):
    """Whatever other methods and rows there are."""
    alone = run_benchmark(folder / "in", [ROWS[1]], ["none"], crop=CROP)
    among = run_benchmark(folder / "in", ROWS, ["stretch", "none"], crop=CROP)
    short = run_benchmark(folder / "in", "short", ["none"], crop=CROP)
    for results in (among, short):
        assert without_times(alone.rows) == without_times(figures(results, "stripes 0.1", "none"))
    assert {row.row for row in short.rows} < set(STANDARD)


def test_networks(folder, monkeypatch):
    """From a file, and bundled: the default and by name."""
    monkeypatch.setattr(pretrained, "WEIGHTS", folder)
    weights = str(folder / "tiny.safetensors")
    results = run_benchmark(folder / "in", ROWS[:2], ["deal", "tiny", weights], crop=CROP)
    assert results.methods == ("deal", "tiny", "tiny.safetensors") and "deal is tiny.safetensors" in results.protocol
    network = DEAL.from_pretrained(weights)
    for place, (_, x) in enumerate(middles(folder)):
        for row in ROWS[:2]:
            with torch.no_grad():
                expected = network(degrade(row, x, place))
            for method in results.methods:
                check(figures(results, row.name, method)[place], expected, x)


def test_networks_of_another_kind(folder):
    """A weights file says which network it is of."""
    network = DealU("deal-u-small").eval()
    network.save_pretrained(folder / "u.safetensors")
    results = run_benchmark(folder / "in", ROWS[1:2], [str(folder / "u.safetensors")], crop=CROP)
    for place, (_, x) in enumerate(middles(folder)):
        with torch.no_grad():
            check(figures(results, "stripes 0.1", "u.safetensors")[place], network(degrade(ROWS[1], x, place)), x)


def test_the_released_network(folder):
    path = DATA / "golden" / "deal_released_epoch839.pt"
    if not path.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{path} is not there: set DEAL_TEST_DATA to the folder that holds golden/")
    restored = find_method(str(path))
    _, x = next(middles(folder))
    with torch.no_grad():
        expected = DEAL.from_released(path).with_channels(1)(x)
    assert (restored(x) - expected).abs().max() < 1e-4 < (expected - x).abs().max()


def of(method, psnr, affine_psnr):
    return Figures("row", method, "0.png", psnr, affine_psnr, 0.9, 0.1, 0.1, 1.0)


@pytest.mark.parametrize(
    ("best_by", "found", "winner"),
    [
        ("psnr", [[of("a", 30, 40)], [of("b", 31, 35)]], "b"),
        ("affine_psnr", [[of("a", 30, 40)], [of("b", 31, 35)]], "a"),
        ("affine_psnr", [[of("a", 20, 140)], [of("b", 25, 139)], [of("c", 26, 99)]], "b"),
        ("psnr", [[of("a", math.inf, math.inf)], [of("b", math.inf, math.inf)]], "a"),
        ("psnr", [[of("a", math.inf, 50), of("a", 20, 50)], [of("b", 70, 50), of("b", 60, 50)]], "b"),
    ],
)
def test_best(best_by, found, winner):
    assert best(Row("row", (), best_by), found) == winner


def test_best_classical(folder, monkeypatch):
    monkeypatch.setattr(method_registry, "CLASSICAL", ("none", "median-difference", "stretch"))
    monkeypatch.setattr(method_registry, "CLASSICAL_PACKAGED", ())
    results = run_benchmark(folder / "in", ROWS, ["best-classical", "none"], crop=CROP)
    winners = {row.name: results.mean(row.name, "best-classical").winner for row in ROWS}
    assert winners == {
        "clean": "none", "stripes 0.1": "median-difference", "x2": "none", "contrast 0.5": "stretch",
    }  # fmt: skip
    for row, winner in winners.items():
        chosen, its = figures(results, row, "best-classical"), figures(results, row, winner)
        assert chosen == [each._replace(method="best-classical", winner=winner) for each in its]
    assert "by mean PSNR, but for contrast 0.5 by mean affine PSNR" in results.protocol
    said = report.as_markdown(results)
    assert "| stripes 0.1    | median-difference |" in said


def test_files(folder):
    methods = ["none", "median-difference"]
    results = run_benchmark(folder / "in", ROWS, methods, crop=CROP)
    out = folder / "out"
    out.mkdir()
    assert report.write(results, out) == [
        out / name for name in ("results.csv", "results.md", "summary.csv", "sheet.png")
    ]
    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines] == ["0.png", "1.png", "2.png", "mean"] * 8
    for line in lines[3::4]:
        assert float(line["psnr"]) == results.mean(line["row"], line["method"]).psnr
    said = (out / "results.md").read_text(encoding="utf-8")
    assert said.startswith("Protocol: 3 images of in, central 48 x 64 pixels") and torch.__version__ in said
    mean = results.mean("stripes 0.1", "median-difference")
    assert "| PSNR, dB     |  none | median-difference |" in said
    assert f"| stripes 0.1  | {results.mean('stripes 0.1', 'none').psnr:.2f} | {mean.psnr:17.2f} |" in said
    assert "| clean        | > 100 |" in said
    assert all(f"| {title}" in said for title in (*report.TABLES, "Time, ms"))


def test_sheet(folder):
    """Clean, degraded and restored, of every pictured row and image, the same each time."""
    results = run_benchmark(folder / "in", ROWS, ["none", "median-difference"], crop=CROP)
    sheet = report.sheet(results)
    step = 48 + LABEL_HEIGHT + GAP
    assert sheet.size == (3 * 64 + 2 * GAP, 2 * 3 * step - GAP)
    pixels = numpy.asarray(sheet)
    for place, (_, x) in enumerate(middles(folder)):
        for strip, row in ((place, ROWS[1]), (3 + place, ROWS[2])):
            y = degrade(row, x, place)
            for column, image in enumerate((x, y, classical_method("median-difference")(y))):
                top, left = strip * step + LABEL_HEIGHT, column * (64 + GAP)
                assert numpy.array_equal(pixels[top : top + 48, left : left + 64], to_uint8(image))
    again = report.sheet(run_benchmark(folder / "in", ROWS, ["none", "median-difference"], crop=CROP))
    assert numpy.array_equal(pixels, numpy.asarray(again))


def test_pairs(folder):
    results = run_pair_benchmark(folder / "pairs", find_pair_methods(["median-difference"]))
    assert results.methods == ("none", "stretch", "median-difference") and len(results.rows) == 3 * 2 * 2 * 2
    assert "ORIGINAL infrared image" in results.protocol
    rows = {each[2:6]: each[6:] for each in results.rows}
    for k in range(2):
        infrared = numpy.array(Image.open(folder / "pairs" / "ir" / f"{k}.png"))
        visible = numpy.array(Image.open(folder / "pairs" / "vis" / f"{k}.png").convert("L"))
        x = torch.from_numpy(infrared.astype(numpy.float32) / 255)[None, None]
        for method in results.methods:
            enhanced = to_uint8(classical_method(method)(x))
            for how in ("max", "mean"):
                fused = fuse(enhanced, visible, how)
                for variant in ("standard", "legacy"):
                    expected = fusion_metrics(fused, infrared, visible, variant)
                    assert dict(zip(METRICS, rows[method, how, variant, f"{k}.png"], strict=True)) == expected
    mean = results.mean("original", "original", "none", "max", "legacy")
    assert sum(rows["none", "max", "legacy", f"{k}.png"][2] for k in range(2)) / 2 == pytest.approx(mean.SD)
    error = results.error("original", "original", "none", "max", "legacy")
    of_pair = [rows["none", "max", "legacy", f"{k}.png"][2] for k in range(2)]
    assert abs(of_pair[0] - of_pair[1]) / 2 == pytest.approx(error.SD)
    said = report.as_markdown(results)
    assert said.count("| stretch ") == 4 and "| max fusion, legacy " in said
    assert f"{mean.SD:.3f} ± {error.SD:.3f}" in said
    lines = list(csv.DictReader(io.StringIO(report.as_csv(results))))
    assert [line["image"] for line in lines] == ["0.png", "1.png", "mean"] * 12


def test_degraded_pairs(folder):
    """Against the original infrared image and against the degraded one, and without degradation at all."""
    darker = {"dark": lambda x, index: x * (0.5 + 0.1 * index)}
    results = run_pair_benchmark(folder / "pairs", find_pair_methods(["none"]), degradations=darker)
    assert results.methods == ("none", "stretch", "clean") and results.references == ("original", "degraded")
    rows = {each[:6]: each[6:] for each in results.rows}
    for k in range(2):
        infrared = numpy.array(Image.open(folder / "pairs" / "ir" / f"{k}.png"))
        visible = numpy.array(Image.open(folder / "pairs" / "vis" / f"{k}.png").convert("L"))
        degraded = to_uint8(torch.from_numpy(infrared / 255) * (0.5 + 0.1 * k))
        for method, image in (("none", degraded), ("clean", infrared)):
            for reference, source in (("original", infrared), ("degraded", degraded)):
                expected = fusion_metrics(fuse(image, visible, "mean"), source, visible, "standard")
                found = rows["dark", reference, method, "mean", "standard", f"{k}.png"]
                assert dict(zip(METRICS, found, strict=True)) == expected
    said = report.as_markdown(results)
    assert "| max fusion, legacy, against degraded |" in said and said.count("| dark: clean ") == 8
    assert "or, in tables of their own, the DEGRADED one" in results.protocol


def test_recorded_metrics_of_pairs(tmp_path):
    """Without enhancement they are those of the golden file."""
    path = DATA / "golden" / "fusion_metrics.json"
    if not path.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{path} is not there: set DEAL_TEST_DATA to the folder that holds golden/ and data/")
    recorded = json.loads(path.read_text())
    names = sorted({entry.split("|")[0] for entry in recorded})[:2]
    for kind in ("ir", "vis"):
        (tmp_path / kind).mkdir()
        for name in names:
            shutil.copy(DATA / "data" / "roadscene" / "pairs12" / kind / name, tmp_path / kind)
    results = run_pair_benchmark(tmp_path, find_pair_methods(["none"]))
    for each in results.rows:
        if each.method == "none":
            expected = recorded[f"{each.image}|{each.fusion}"][each.variant]
            assert dict(zip(METRICS, each[6:], strict=True)) == pytest.approx(expected, abs=1e-9)


def test_labels(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert labels(["none", "a/x.pt", "utv+clahe"]) == {"none": "none", "a/x.pt": "x.pt", "utv+clahe": "utv+clahe"}
    assert list(labels(["a/best.safetensors", "b/best.safetensors", "x.pt"]).values()) == [
        "a/best.safetensors", "b/best.safetensors", f"{tmp_path.name}/x.pt",
    ]  # fmt: skip
