"""`deal evaluate` from end to end, and what it says to input that is none."""

import pytest
import torch
from PIL import Image

from deal import cli
from deal.evaluate.benchmark import run_benchmark
from deal.evaluate.method_registry import BASELINES, check_methods
from deal.io.images import to_uint8
from deal.io.synthetic import thermal_scene
from deal.model import pretrained


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images, two pairs, no bundled weights, and the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    for k in range(2):
        save(tmp_path / "in" / f"{k}.png", to_uint8(thermal_scene(48, 64, seed=k)))
        save(tmp_path / "pairs" / "ir" / f"{k}.png", to_uint8(thermal_scene(48, 50, seed=k)))
        save(tmp_path / "pairs" / "vis" / f"{k}.png", to_uint8(thermal_scene(48, 50, seed=5 + k)))
    (tmp_path / "empty").mkdir()
    return tmp_path


BUNDLED = pretrained.WEIGHTS


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_it_prints_and_writes(folder, capsys):
    options = ["--methods", "none", "median-difference", "--crop", "32", "48", "--quiet"]
    assert cli.main(["evaluate", "--data", "in", *options]) == 0
    said = capsys.readouterr()
    assert "central 32 x 48 pixels" in said.out and "| stripes 0.05 " in said.out and not said.err
    written = {path.name for path in (folder / "evaluation").iterdir()}
    assert written == {"results.csv", "results.md", "summary.csv", "sheet.png"}
    assert (folder / "evaluation" / "results.md").read_text() in said.out
    assert cli.main(["evaluate", "--data", "in/0.png", "in/1.png", *options, "--crop", "none", "-o", "new/out"]) == 0
    assert "2 images of in, whole" in (folder / "new" / "out" / "results.md").read_text()


def test_pairs(folder, capsys):
    assert cli.main(["evaluate", "--pairs", "pairs", "--methods", "clahe", "-o", "out"]) == 0
    said = capsys.readouterr()
    assert "| mean fusion, standard " in said.out and "pair/s" in said.err
    assert {path.name for path in (folder / "out").iterdir()} == {"results.csv", "results.md", "plot.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "empty"], "empty has no images"),
        (["--data", "absent"], "absent does not exist"),
        (["--data", "in", "--pairs", "pairs"], "either --data or --pairs must be given"),
        ([], "either --data or --pairs must be given"),
        (["--data", "in", "--methods", "none", "fog"], "fog"),
        (["--data", "in", "--methods", "none", "median-difference+fog"], "fog"),
        (["--data", "in", "--methods", "none,utv"], "unknown method 'none,utv'"),
        (["--data", "in", "--methods", "deal"], "this package has no bundled weights"),
        (["--data", "in", "--methods", "absent.safetensors"], "absent.safetensors does not exist"),
        (["--data", "in", "--methods", "absent.pt"], "absent.pt does not exist"),
        (
            ["--data", "in", "--suite", "hard"],
            "suite must be one of 'standard', 'short', 'thermal', 'camera'; got 'hard'",
        ),
        (["--data", "in", "--crop", "49", "64"], "in/0.png has 48 x 64 pixels; the crop of 49 x 64 is too large"),
        (["--data", "in", "--crop", "32y48"], "crop must be HEIGHTxWIDTH, one number or none; got 32y48"),
        (
            ["--data", "in", "--crop", "0", "32"],
            "crop must be an integer of at least 1, a pair of them, or None; got (0, 32)",
        ),
        (["--data", "in", "--seed", "-1"], "seed must be an integer of at least 0; got -1"),
        (
            ["--data", "in", "--device", "abacus", "--methods", "none"],
            "device must be 'auto' or a device of this machine",
        ),
        (["--data", "in", "-o", "/proc/deal"], "/proc/deal"),
        (["--data", "in", "-o", "in/0.png"], "in/0.png"),
        (["--pairs", "in"], "in/ir does not exist"),
        (
            ["--pairs", "pairs", "--methods", "none", "best-classical"],
            "methods must not include 'best-classical'",
        ),
        (["--pairs", "pairs", "--methods", "fog"], "fog"),
    ],
    ids=str,
)
def test_errors_are_one_line(folder, capsys, options, message):
    if not any(each.startswith("--methods") for each in options):
        options = [*options, "--methods", "none"]
    assert cli.main(["evaluate", *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith("deal: error: ") and message in said and said.count("\n") == 1


def test_unknown_methods_are_told_the_known_ones(folder, capsys):
    assert cli.main(["evaluate", "--data", "in", "--methods", "fog"]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("median-difference", "best-classical", "deal", ".safetensors", ".pt"))


@pytest.mark.parametrize(("has", "lacks"), [("ir", "vis"), ("vis", "ir")])
def test_a_missing_partner(folder, capsys, has, lacks):
    (folder / "pairs" / lacks / "1.png").unlink()
    assert cli.main(["evaluate", "--pairs", "pairs", "--methods", "none"]) == 1
    said = capsys.readouterr().err
    assert f"pairs/{has}/1.png has no partner: pairs/{lacks} has no image with the name 1" in said


def test_partners_may_have_other_endings(folder):
    (folder / "pairs" / "vis" / "1.png").rename(folder / "pairs" / "vis" / "1.jpg")
    assert cli.main(["evaluate", "--pairs", "pairs", "--methods", "none"]) == 0


def test_pairs_are_fused_by_the_bundled_network_too(folder, capsys, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", BUNDLED)
    for options, fuses in (([], True), (["--fuser", "none"], False)):
        assert cli.main(["evaluate", "--pairs", "pairs", "--methods", "none", *options]) == 0
        assert ("reco fusion" in capsys.readouterr().out) == fuses


def test_pairs_of_two_sizes(folder, capsys):
    save(folder / "pairs" / "vis" / "1.png", to_uint8(thermal_scene(48, 51)))
    assert cli.main(["evaluate", "--pairs", "pairs", "--methods", "none"]) == 1
    said = capsys.readouterr().err
    assert "pairs/ir/1.png and pairs/vis/1.png must have the same size; got 48 x 50 and 48 x 51 pixels" in said


def test_results_that_are_not_finite(folder, capsys, monkeypatch):
    monkeypatch.setitem(BASELINES, "broken", lambda x: x * torch.nan)
    for data in (["--data", "in", "--crop", "none"], ["--pairs", "pairs"]):
        assert cli.main(["evaluate", *data, "--methods", "broken", "--quiet"]) == 1
        assert "broken gives values that are not finite" in capsys.readouterr().err


def test_all_images_are_checked_before_anything_is_computed(folder, monkeypatch):
    monkeypatch.setitem(BASELINES, "broken", lambda x: pytest.fail("it was called"))
    save(folder / "in" / "3.png", to_uint8(thermal_scene(40, 64)))
    with pytest.raises(ValueError, match=r"3.png has 40 x 64 pixels"):
        run_benchmark("in", methods=["broken"], crop=(48, 64))


def test_a_name_is_no_list():
    with pytest.raises(TypeError, match="methods must be a list of names; got 'none'"):
        check_methods("none")
