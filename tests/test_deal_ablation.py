"""Plans, their runs, which continue after any interruption with the same numbers, and their tables."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from deal import cli
from deal.ablation import tables
from deal.ablation.plan import Plan, read_plan
from deal.ablation.runner import RECORD, run_plan
from deal.evaluate.results import Figures, Results
from deal.io.images import to_uint8
from deal.io.synthetic import thermal_scene
from deal.training.adversarial import AdversarialTraining
from deal.training.loop import _source
from deal.training.settings import Settings

STEPS = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for k in range(3):
        Image.fromarray(to_uint8(thermal_scene(48, 64, seed=k))).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def values(images):
    return {
        "settings": {
            "images": str(images), "blocks": "deal-u-small", "steps": STEPS, "batch": 2, "crop": 32, "device": "cpu",
            "learning_rate": "1e-3",
        },
        "seeds": [0, 5],
        "variants": {"random": {"strategy": "random"}, "without-strips": {"strips": False, "neuron": "none"}},
        "evaluations": {"few": {"data": str(images / "0.png"), "suite": "short", "crop": [32, 48]}},
    }  # fmt: skip


@pytest.fixture
def file(tmp_path, values):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def written(folder):
    return {name: (folder / name).read_bytes() for name in ("table.md", "results.csv", "plot.png")}


@pytest.fixture
def stopped(monkeypatch):
    """Ctrl-C in the second step of the third run."""
    play, played = AdversarialTraining.step, []

    def playing(self, *arguments):
        played.append(arguments)
        if len(played) == 2 * STEPS + 2:
            os.kill(os.getpid(), signal.SIGINT)
        return play(self, *arguments)

    monkeypatch.setattr(AdversarialTraining, "step", playing)
    return played


def test_stopped_plan_goes_on_to_the_same_numbers(tmp_path, file, stopped, capsys):
    command = ["ablate", "--plan", str(file), "--threads", "1", "--device", "cpu"]
    assert cli.main([*command, "-o", str(tmp_path / "stopped"), "--quiet"]) == 130
    assert (tmp_path / "stopped" / "results.csv").read_text().count("\n") == 1 + 2 * 6  # of the finished runs
    assert cli.main([*command, "-o", str(tmp_path / "stopped")]) == 0
    assert "run 2 of 2: without-strips, seed 5; 0" in capsys.readouterr().err
    assert len(stopped) == 4 * STEPS
    assert cli.main([*command, "-o", str(tmp_path / "whole"), "--quiet"]) == 0
    assert written(tmp_path / "stopped") == written(tmp_path / "whole")
    assert len(stopped) == 8 * STEPS
    assert cli.main([*command, "-o", str(tmp_path / "whole"), "--quiet"]) == 0
    assert len(stopped) == 8 * STEPS  # everything was done
    assert "| few, affine PSNR, dB |" in capsys.readouterr().out


def test_more_variants_are_added_and_others_are_refused(tmp_path, values):
    values["seeds"], values["variants"] = [0], {"random": {"strategy": "random"}}
    output = tmp_path / "out"
    run_plan(plan_of(tmp_path, values), output)
    before = (output / "random" / "seed-0" / "last.pt").stat().st_mtime_ns
    values["variants"]["average"] = {"strategy": "average"}
    measured = run_plan(plan_of(tmp_path, values), output)
    assert [each.variant for each in measured] == ["random", "average"]
    assert (output / "random" / "seed-0" / "last.pt").stat().st_mtime_ns == before
    values["settings"]["steps"] = 2
    with pytest.raises(ValueError, match=r"seed-0 has a run of other settings: steps was 3 and is 2\. Choose"):
        run_plan(plan_of(tmp_path, values), output)
    values["settings"]["steps"] = STEPS
    values["evaluations"]["few"]["seed"] = 1
    with pytest.raises(ValueError, match="few was"):
        run_plan(plan_of(tmp_path, values), output)
    assert (output / "random" / "seed-0" / RECORD).exists()


def plan_of(folder, values) -> Plan:
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return read_plan(path)


def test_settings_have_their_types(tmp_path, values):
    (first, *_, last) = plan_of(tmp_path, values).runs(tmp_path)
    assert (first.settings.learning_rate, first.settings.seed, last.settings.seed) == (1e-3, 0, 5)
    assert first.settings.output == str(tmp_path / "random" / "seed-0")
    assert last.settings.strips is False


def test_limit_of_images(images):
    settings = Settings(images=str(images))
    used = [[path.stem for path in _source(settings, settings.images, limit).paths] for limit in (None, 2, 1)]
    assert used == [["0", "1", "2"], ["0", "1"], ["0"]]
    with pytest.raises(ValueError, match="limit must be at most the 3 training images; got 4"):
        _source(settings, settings.images, 4)


def test_settings_of_a_file(tmp_path, values):
    """The config of a run, with entries that the plan decides."""
    (tmp_path / "config.yaml").write_text("output: elsewhere\nseed: 9\nsteps: 7\nbatch: 3\nprice: 1.0e-02\n")
    values["config"] = str(tmp_path / "config.yaml")
    settings = plan_of(tmp_path, values).runs(tmp_path)[0].settings
    assert (settings.steps, settings.batch, settings.price, settings.seed) == (STEPS, 2, 0.01, 0)
    (tmp_path / "config.yaml").write_text("fog: 1")
    with pytest.raises(ValueError, match=r"config\.yaml does not have the settings of a training"):
        plan_of(tmp_path, values).runs(tmp_path)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "docs" / "plans").glob("*.yaml")), ids=str)
def test_plans_of_the_documentation(path, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    runs = read_plan(path).runs(tmp_path)
    assert len({run.settings.output for run in runs}) == len(runs) >= 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {}}, "variants must have at least one entry"),
        ({"variants": {"a/b": {}}}, "names must have letters"),
        ({"variants": {"a": {"fog": 1}}}, "the settings of a are not valid: .*fog"),
        ({"variants": {"a": {"steps": 0}}}, "the settings of a are not valid: steps"),
        ({"variants": {"a": {"steps": "many"}}}, "the settings of a are not valid: .*steps"),
        ({"variants": {"a": {"seed": 1}}}, "must not have seed; the plan decides"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"seeds": [-1]}, "seeds"),
        ({"evaluations": {"few": {"data": "x", "suite": "fog"}}}, "suite"),
        ({"evaluations": {"few": {"suite": "short"}}}, "data"),
        ({"fog": 1}, "changed.yaml is not a plan: .*fog"),
    ],
)
def test_errors(tmp_path, values, change, message):
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, {**values, **change}).runs(tmp_path)


def measured(variant, seed, decibels):
    rows = [
        Figures(row, method, "a.png", psnr, psnr, 0.9, 0.0, 0.0, 1.0)
        for row, values in decibels.items()
        for method, psnr in zip(("none", "last"), values, strict=True)
    ]
    return tables.Measured(variant, seed, "few", Results(rows, tuple(decibels), ("none", "last"), ""))


def test_tables():
    found = [
        measured("one", 0, {"noise": (20.0, 25.0), "stripes": (30.0, 33.0)}),
        measured("one", 1, {"noise": (20.0, 27.0), "stripes": (30.0, 31.0)}),
        measured("two", 0, {"noise": (20.0, 24.0), "stripes": (30.0, 30.0)}),
    ]
    summary, _, rows = (
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in tables.as_markdown(found).strip().split("\n\n")
    )
    assert summary[0] == ["few, affine PSNR, dB", "mean", "least", "mean gain", "least gain"]
    assert summary[2] == ["one", "29.00 ± 0.00", "26.00 ± 1.41", "4.00 ± 0.00", "2.00 ± 1.41"]
    assert summary[3] == ["two", "27.00", "24.00", "2.00", "0.00"]
    assert rows[0] == ["few, affine PSNR, dB", "none", "one", "two"]
    assert rows[2:] == [["noise", "20.00", "26.00 ± 1.41", "24.00"], ["stripes", "30.00", "32.00 ± 1.41", "30.00"]]
    lines = tables.as_csv(found).splitlines()
    assert lines[0] == ",".join(tables.COLUMNS)
    assert lines[1] == "one,0,few,noise,25.0000,25.0000,0.9000,5.0000,5.0000"


def test_deviation_of_one_seed_is_unknown():
    assert math.isnan(tables.Spread.of([1.0]).deviation)
