"""The folder of a training run: its settings, its lock, its pictures, and what the console says."""

import csv
import dataclasses
import errno
import importlib.util
import json
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import das_runs
import numpy
import pytest
import torch
import yaml
from PIL import Image

from deal import cli
from deal.io import contact_sheet
from deal.training import loop, run_dir, samples
from deal.training.lock import LOCK, locked
from deal.training.logging import Log
from deal.training.progress import ProgressBar
from deal.training.settings import Settings

HELD = """
import sys
from pathlib import Path
from deal.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
MANY = {
    "images": ["1e3", "a b/*.png", "ä, 'x': #1.txt"], "output": "1e3", "learning_rate": 1e-05, "minutes": 0.5,
    "blocks": [["scale", 5, 3], ["spike", 5, 3, 2]], "ops": ["stripe", "gain"], "ranges": {"stripe": (0.0, 0.15)},
    "crop": (96, 128), "window": (0.0, 99.5), "weights": "null.safetensors", "channels": 3, "collapse_window": None,
    "gradient_clip": 1e20, "flip_augmentation": False, "validation": "no",
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plain(settings):
    """As read from a file, where a tuple is a list."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


@pytest.mark.parametrize("changes", [{}, MANY, {"images": "frames", "crop": None}], ids=["default", "many", "text"])
def test_a_run_from_the_config_has_equal_settings(changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, started = Settings(**changes), []
    run_dir.open_run(settings)
    result = loop.Result(None, None, 1, 0.0, 0.0, 0.0, Path("x"))
    monkeypatch.setattr(loop, "train", lambda settings: started.append(settings) or result)
    config = Path(settings.output) / "config.yaml"
    assert cli.main(["train", "--config", str(config)]) == 0
    assert [plain(each) for each in started] == [plain(settings)]
    assert yaml.safe_load(config.read_text(encoding="utf-8")) | {"resume": False} == plain(settings)


def test_the_config_is_rewritten_for_changed_settings_alone(tmp_path):
    config = tmp_path / "config.yaml"

    def resume(**changes):
        das_runs.run(tmp_path, steps=2, resume=True, **changes)
        return config.stat().st_ino, config.stat().st_mtime_ns, config.read_text()

    das_runs.run(tmp_path, steps=2)
    first = config.stat().st_ino, config.stat().st_mtime_ns, config.read_text()
    assert resume() == first
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        resume(seed=1)
    assert config.read_text() == first[2]
    assert resume(log_every=7)[2] == first[2].replace("log_every: 2\n", "log_every: 7\n") != first[2]


def test_an_existing_run_keeps_its_config(tmp_path):
    das_runs.run(tmp_path, steps=1)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(FileExistsError):
        das_runs.run(tmp_path, steps=1, seed=5)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_second_training_is_refused_until_the_first_is_dead(tmp_path, capsys):
    environment = os.environ | {"PYTHONPATH": str(Path(loop.__file__).parents[2])}
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout.readline() == "held\n"
        part = tmp_path / ".last.pt.1234.part"
        part.touch()
        with pytest.raises(RuntimeError) as refused:
            das_runs.run(tmp_path, steps=1, resume=True)
        message = f"{tmp_path} is in use by another training, process {holder.pid}: "
        assert str(refused.value).startswith(message)
        arguments = ["--output", str(tmp_path), "--crop", "32", "--blocks", "[[scale, 5, 3]]", "--no-progress"]
        assert cli.main(["train", "--steps", "1", *arguments]) == 1
        assert capsys.readouterr().err.startswith(f"deal: error: {message}")
        assert part.exists() and sorted(each.name for each in tmp_path.iterdir()) == [part.name, LOCK]
    finally:
        holder.kill()
        holder.communicate()
    assert das_runs.run(tmp_path, steps=1, resume=True).steps == 1
    assert not part.exists()


def test_a_training_holds_the_lock_to_its_end_and_no_longer(tmp_path, monkeypatch):
    step, refused = loop.AdversarialTraining.step, []

    def trying(self, *arguments):
        with pytest.raises(RuntimeError, match=f"process {os.getpid()}: wait") as error, locked(tmp_path):
            pass
        refused.append(error)
        return step(self, *arguments)

    (tmp_path / LOCK).write_text("1000000000")  # of an earlier process
    monkeypatch.setattr(loop.AdversarialTraining, "step", trying)
    das_runs.run(tmp_path, steps=2)
    assert len(refused) == 2
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", missing)
    with pytest.warns(UserWarning, match="cannot be locked, so start no second training in it"), locked(tmp_path):
        pass


@pytest.fixture
def texts(monkeypatch):
    """The titles and notes of every row of a contact sheet that is drawn."""
    drawn, row = [], contact_sheet.row

    def recording(images, titles, notes):
        drawn.append((list(titles), list(notes)))
        return row(images, titles, notes)

    monkeypatch.setattr(contact_sheet, "row", recording)
    return drawn


def test_pictures_are_drawn_at_each_validation(tmp_path, texts, monkeypatch):
    curves, write = [], loop.write_image

    def recording(path, image):
        curves.append(path)
        write(path, image)

    monkeypatch.setattr("deal.training.logging.write_image", recording)
    das_runs.run(tmp_path, steps=5, log_every=1)
    assert [notes[2] for _, notes in texts] == ["step 2"] * 4 + ["step 4"] * 4 + ["step 5"] * 4
    assert curves == [tmp_path / "loss.png"] * 3
    with open(tmp_path / "loss.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["validation_psnr"]]
    for turn, row in enumerate(rows):
        restored = [float(notes[1].removesuffix(" dB")) for _, notes in texts[4 * turn : 4 * turn + 4]]
        assert numpy.mean(restored) == pytest.approx(float(row["validation_psnr"]), abs=0.006)
    with Image.open(tmp_path / "samples.png") as sheet, Image.open(tmp_path / "loss.png") as curve:
        assert sheet.size[0] == 3 * 160 + 2 * contact_sheet.GAP and curve.size == (960, 640)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples(channels, texts):
    clean = torch.rand(6, channels, 40, 200, generator=torch.Generator().manual_seed(0))
    degraded, restored = clean - 0.5, (clean + 2 * (clean - 0.5).sign()).clamp(-3, 3)
    sheet = samples.sheet(degraded, restored, clean, 12)
    assert sheet.mode == {1: "L", 3: "RGB"}[channels] and len(texts) == samples.ROWS
    pixels = numpy.asarray(sheet)
    for place, (titles, notes) in enumerate(texts):
        top = place * (40 + contact_sheet.LABEL_HEIGHT + contact_sheet.GAP) + contact_sheet.LABEL_HEIGHT
        assert titles == ["degraded", "restored", "clean"]
        for column, images in enumerate((degraded, restored, clean)):
            shown = images[place].clamp(0, 1)
            left = column * (200 + contact_sheet.GAP)
            expected = (255 * shown).round().permute(1, 2, 0).numpy().squeeze()
            assert numpy.array_equal(pixels[top : top + 40, left : left + 200], expected)
            if column < 2:
                error = ((shown - clean[place]).double() ** 2).mean().item()
                assert float(notes[column].removesuffix(" dB")) == pytest.approx(-10 * numpy.log10(error), abs=0.006)


@pytest.mark.parametrize(("size", "shown"), [((7, 30), (42, 180)), ((500, 400), (384, 384)), ((160, 160), (160, 160))])
def test_samples_have_a_size_for_the_eye(size, shown):
    clean = torch.rand(1, 1, *size)
    sheet = samples.sheet(clean, clean, clean, 1)
    assert sheet.size == (3 * shown[1] + 2 * contact_sheet.GAP, shown[0] + contact_sheet.LABEL_HEIGHT)


def bar(done, elapsed, **options):
    """A bar from step 20 to 100, some steps and seconds later."""
    made = ProgressBar(20, 100, **options)
    made.n, made.start_t = 20 + done, made.start_t - elapsed
    return made


def test_the_bar_says_how_fast_and_how_long():
    assert "60/100, " in str(bar(40, 10)) and " 4.00 steps/s, 00:10 left" in str(bar(40, 10))
    assert " 0.10 steps/s, 13:10 left" in str(bar(1, 10))
    assert "? steps/s, ? left" in str(ProgressBar(20, 100))
    assert " 4.00 steps/s, 00:05 left" in str(bar(40, 10, seconds=5.9))
    assert "00:00 left" in str(bar(40, 10, seconds=-3))


def test_the_bar_keeps_the_last_psnr():
    made = bar(40, 10)
    made.show({"loss": 0.51234567, "contrast": 1.0})
    assert str(made).endswith("left, loss=0.5123")
    made.show({"loss": 0.4, "validation_psnr": 31.416})
    made.show({"loss": 0.25})
    assert str(made).endswith("left, loss=0.25, PSNR=31.42 dB")


def test_the_console_of_a_resumed_run(tmp_path, capsys):
    das_runs.run(tmp_path, steps=2)
    assert capsys.readouterr().err == ""
    with open(tmp_path / "loss.csv", newline="") as file:
        psnr = float(list(csv.DictReader(file))[-1]["validation_psnr"])
    das_runs.run(tmp_path, steps=2, resume=True, progress=True)
    assert capsys.readouterr().err.rstrip().endswith(f"PSNR={psnr:.2f} dB")
    das_runs.run(tmp_path, steps=4, resume=True, progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "4/4, " in last and " steps/s, 00:00 left, loss=" in last and last.endswith(" dB")


@pytest.mark.parametrize(
    ("installed", "earlier", "said"), [(False, False, 0), (False, True, 1), (True, False, 1)],
    ids=["never used", "used before", "broken"],
)  # fmt: skip
def test_an_absent_tensorboard_is_worth_a_line_where_it_is_expected(tmp_path, monkeypatch, installed, earlier, said):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: installed if name == "tensorboard" else find(name, *rest)
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    if earlier:
        (tmp_path / "events.out.tfevents.1.host.2.0").touch()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Log(tmp_path, 0, 10, bar=False)
    messages = [str(each.message) for each in found if "TensorBoard" in str(each.message)]
    assert len(messages) == said and all("\n" not in each and "loss.csv and loss.png" in each for each in messages)


def test_tensorboard_gets_the_figures(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    with Log(tmp_path, 4, 10, bar=False) as log:
        log.write(5, {"loss": 0.5, "contrast": 1.0})
    assert written == [(str(tmp_path), 4), ("loss", 0.5, 5), ("contrast", 1.0, 5), "closed"]
