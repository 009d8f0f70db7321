"""Degraded images beside clean ones: the figures against those found directly, and files that have no partner."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from deal import cli
from deal.evaluate import method_registry, metrics
from deal.evaluate.benchmark import run_on_degraded
from deal.evaluate.degraded_folders import read_partners
from deal.evaluate.method_registry import classical_method
from deal.evaluate.summary import summarise
from deal.io.images import read_frame, to_uint8
from deal.io.synthetic import thermal_scene

VALUES = ("psnr", "affine_psnr", "ssim", "stripe_residual", "row_residual")
CLASSICAL = ("none", "median-difference", "stretch")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three clean scenes, and two folders of degraded ones: with stripes, and with noise. It is the current folder."""
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    for k, (height, width) in enumerate(((60, 71), (49, 90), (48, 64))):
        x = thermal_scene(height, width, seed=k)
        save(f"clean/{k}.png", to_uint8(x))
        save(f"a/lq/{k}.png", to_uint8(x + 0.08 * torch.randn(width, generator=random)))
        save(f"b/lq/{k}.bmp", to_uint8(x + 0.05 * torch.randn(height, width, generator=random)))
    return tmp_path


def save(name, pixels):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(name)


def pixels_of(name):
    return numpy.array(Image.open(name))


def tensor_of(name):
    return torch.from_numpy(pixels_of(name).astype(numpy.float32) / 255)[None, None]


def test_figures(folder):
    results = run_on_degraded("clean", ["a/lq", "b/lq"], ["none", "median-difference"])
    assert results.degradations == ("a/lq", "b/lq") and len(results.rows) == 2 * 2 * 3
    for row, ending in (("a/lq", "png"), ("b/lq", "bmp")):
        for method in results.methods:
            for k, measured in enumerate(results.of(row, method)):
                x, y = tensor_of(f"clean/{k}.png"), tensor_of(f"{row}/{k}.{ending}")
                assert measured.image == f"{k}.png"
                for name in VALUES:
                    expected = getattr(metrics, name)(classical_method(method)(y).clamp(0, 1), x).item()
                    assert getattr(measured, name) == pytest.approx(expected, rel=1e-4), name
    assert (
        "3 images of clean, whole, grey, 0 to 1, and degraded images of the same names, of a/lq, b/lq"
        in results.protocol
    )
    assert len(results.comparisons) == 6
    assert summarise(results)[1].gain > 3


def test_crop(folder):
    save("one/0.png", pixels_of("a/lq/0.png"))
    results = run_on_degraded("clean/0.png", "one", crop=(48, 64))
    x, y = (tensor_of(name)[..., 6:54, 3:67] for name in ("clean/0.png", "one/0.png"))
    assert results.rows[0].psnr == pytest.approx(metrics.psnr(y, x).item(), rel=1e-4)
    assert "central 48 x 64 pixels" in results.protocol and results.degradations == ("one",)


def test_best_classical_has_the_best_mean_over_the_pairs(folder, monkeypatch):
    monkeypatch.setattr(method_registry, "CLASSICAL", CLASSICAL)
    monkeypatch.setattr(method_registry, "CLASSICAL_PACKAGED", ())
    results = run_on_degraded("clean", ["a/lq", "b/lq"], ["best-classical"])
    assert [results.mean(row, "best-classical").winner for row in ("a/lq", "b/lq")] == ["median-difference", "none"]
    means = {name: results.mean("a/lq", name).psnr for name in CLASSICAL}
    assert max(means, key=means.get) == "median-difference"
    assert summarise(results)[0].worst_row == "b/lq"


def test_16_bits_have_the_range_of_the_clean_image(folder):
    """Values beyond it stay, so a method may bring them back."""
    x = (3000 + 1000 * thermal_scene(60, 71)[0]).round().numpy().astype(numpy.uint16)
    y = x + numpy.uint16(500)
    save("deep/0.png", x)
    save("bright/0.png", y)
    clean, degraded = read_partners(folder / "deep" / "0.png", folder / "bright" / "0.png")
    frame = read_frame(folder / "deep" / "0.png")
    assert torch.equal(clean, frame.tensor(1)[None]) and clean.min() == 0 and clean.max() == 1
    expected = (torch.from_numpy(y.astype(numpy.float32)) - frame.low) / (frame.high - frame.low)
    assert torch.allclose(degraded[0, 0], expected) and degraded.max() > 1.3
    results = run_on_degraded("deep", "bright")
    assert results.rows[0].psnr == pytest.approx(metrics.psnr(degraded.clamp(0, 1), clean).item(), rel=1e-4)
    save("same/0.png", x)
    assert run_on_degraded("deep", "same").rows[0].psnr > 100


def test_colours_become_grey(folder):
    colour = numpy.stack([pixels_of("clean/0.png")] * 3, 2)
    colour[..., 2] = 0
    save("colour/0.png", colour)
    _, y = read_partners(folder / "clean" / "0.png", folder / "colour" / "0.png")
    assert torch.allclose(y, (1 - 0.114) * tensor_of("clean/0.png"), atol=1e-5)


ERRORS = {
    "no degraded partner": (
        lambda: Path("a/lq/1.png").unlink(),
        "clean/1.png has no partner: a/lq has no image with the name 1",
    ),
    "no clean partner": (
        lambda: Path("clean/1.png").unlink(),
        "a/lq/1.png has no partner: no clean image has the name 1",
    ),
    "two of one name": (
        lambda: save("a/lq/1.bmp", numpy.zeros((49, 90), numpy.uint8)),
        "a/lq/1.bmp and a/lq/1.png have the same name",
    ),
    "two sizes": (
        lambda: save("a/lq/1.png", numpy.zeros((49, 91), numpy.uint8)),
        "a/lq/1.png and clean/1.png must have the same size; got 49 x 91 and 49 x 90 pixels",
    ),
    "two depths": (
        lambda: save("a/lq/1.png", numpy.zeros((49, 90), numpy.uint16)),
        "a/lq/1.png and clean/1.png must have the same bit depth; got uint16 and uint8",
    ),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_faults_are_one_line(folder, capsys, monkeypatch, fault):
    monkeypatch.setitem(method_registry.BASELINES, "broken", lambda x: pytest.fail("it was called"))
    spoil, message = ERRORS[fault]
    spoil()
    assert cli.main(["evaluate", "--data", "clean", "--degraded", "a/lq", "--methods", "broken"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"deal: error: {message}") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--degraded", "a/lq"], "either --data or --pairs must be given"),
        (["--pairs", "pairs", "--degraded", "a/lq"], "--degraded can only be used with --data"),
        (["--data", "clean", "--degraded", "a/lq", "--suite", "short"], "either --suite or --degraded can be given"),
        (["--data", "clean", "--degraded", "absent"], "absent does not exist"),
        (["--data", "clean", "--degraded", "a/lq", "--crop", "50", "50"], "clean/1.png has 49 x 90 pixels; the crop"),
    ],
)
def test_options(folder, capsys, options, message):
    assert cli.main(["evaluate", *options, "--methods", "none"]) == 1
    assert f"deal: error: {message}" in capsys.readouterr().err


def test_the_command(folder, capsys):
    options = ["--degraded", "a/lq", "b/lq", "--methods", "none", "midway", "--quiet", "-o", "out"]
    assert cli.main(["evaluate", "--data", "clean", *options]) == 0
    said = capsys.readouterr().out
    assert "3 images of clean, whole" in said and "| a/lq " in said and "| Summary of PSNR, dB " in said
    written = {path.name for path in (folder / "out").iterdir()}
    assert written == {"results.csv", "results.md", "summary.csv", "sheet.png"}


def test_no_folder(folder):
    with pytest.raises(ValueError, match="degraded must have at least one folder; got none"):
        run_on_degraded("clean", [])
