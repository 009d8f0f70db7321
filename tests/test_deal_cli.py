"""The command line from end to end: what it writes, what it says, and its exit codes."""

import builtins
import csv
import functools
import io
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest
import torch
from conftest import DATA
from PIL import Image

import deal
from deal import cli
from deal.evaluate import demonstration
from deal.io.contact_sheet import GAP, LABEL_HEIGHT
from deal.io.images import read_frame
from deal.model import pretrained
from deal.model.network import DEAL

RELEASED = DATA / "golden" / "deal_released_epoch839.pt"


@pytest.fixture
def folder(tmp_path):
    """Weights of a tiny network, two images of 16 and 8 bits, and one that is none."""
    torch.manual_seed(0)
    network = DEAL([("scale", 3, 3)], width=4)
    network(torch.rand(2, 1, 32, 32))
    network.save_pretrained(tmp_path / "tiny.safetensors", trained_on="noise")
    random = numpy.random.default_rng(0)
    (tmp_path / "in").mkdir()
    Image.fromarray(random.integers(7000, 9000, (30, 40), numpy.uint16)).save(tmp_path / "in" / "a.png")
    Image.fromarray(random.integers(0, 256, (30, 40), numpy.uint8)).save(tmp_path / "in" / "c.tif")
    (tmp_path / "in" / "b.png").write_text("no image")
    return tmp_path


def enhance(folder, *more, to="out", source="in"):
    return cli.main(
        ["enhance", "-i", f"{folder / source}", "-o", f"{folder / to}", "-m", f"{folder / 'tiny.safetensors'}", *more]
    )


def rows(folder, to="out"):
    with open(folder / to / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_options_may_have_underscores_and_be_short(folder, capsys):
    assert enhance(folder, "--keep_going", "--qui") == 1
    assert len(rows(folder)) == 3 and capsys.readouterr().out == ""


def test_enhance_a_folder(folder, capsys):
    (folder / "in" / "b.png").unlink()
    assert enhance(folder) == 0
    said = capsys.readouterr()
    assert said.out.startswith("2 done in ") and "manifest.csv" in said.out
    for name, kind in (("a.png", numpy.uint16), ("c.tif", numpy.uint8)):
        before, after = (read_frame(folder / each / name).pixels for each in ("in", "out"))
        assert after.dtype == kind and after.shape == before.shape and not numpy.array_equal(after, before)
    first, second = rows(folder)
    assert (first["status"], first["type"], first["height"], first["width"]) == ("done", "uint16", "30", "40")
    assert float(first["seconds"]) > 0 and 7000 <= float(first["black"]) < float(first["white"]) < 9000
    assert (second["type"], second["black"], second["white"]) == ("uint8", "0", "255")
    assert enhance(folder, "--skip-existing") == 0
    assert capsys.readouterr().out.startswith("0 done, 2 skipped in ")


def test_enhance_one_file(folder):
    options = ("--scale", "2", "--window", "6000", "10000", "--tile", "16", "--quiet", "--threads", "1")
    threads = torch.get_num_threads()
    try:
        assert enhance(folder, *options, source="in/a.png", to="x.tif") == 0
    finally:
        torch.set_num_threads(threads)
    pixels = read_frame(folder / "x.tif").pixels
    assert pixels.dtype == numpy.uint16 and pixels.shape == (60, 80)
    assert sorted(path.name for path in folder.iterdir()) == ["in", "tiny.safetensors", "x.tif"]


def test_bad_files(folder, capsys):
    assert enhance(folder) == 1
    assert "deal: error: " in (said := capsys.readouterr().err) and "b.png cannot be read as an image" in said
    assert [row["status"] for row in rows(folder)] == ["done", "failed"]
    assert enhance(folder, "--keep-going", to="all") == 1
    said = capsys.readouterr()
    assert "2 done, 1 failed" in said.out and "b.png cannot be read" in said.err
    assert [row["status"] for row in rows(folder, "all")] == ["done", "failed", "done"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", "absent"), "absent does not exist"),
        (("-m", "{}/in/a.png"), "a.png is not a safetensors file"),
        (("--tile-overlap", "1"), "overlap must be at least"),
        (("--window", "1", "2", "3"), "window must be auto, full or two numbers; got 1 2 3"),
        (("--device", "abacus"), "device must be 'auto' or a device of this machine"),
        (("--threads", "0"), "threads must be at least 1; got 0"),
        (("-i", "{}/nothing"), "nothing does not exist"),
        (("-o", "{}/in"), "would be overwritten"),
        (("-o", "{}/tiny.safetensors"), "tiny.safetensors"),
    ],
    ids=str,
)
def test_errors_are_one_line(folder, capsys, options, message):
    assert enhance(folder, *(each.format(folder) for each in options)) == 1
    said = capsys.readouterr().err
    assert said.startswith("deal: error: ") and message in said and said.count("\n") == 1


def test_full_disk(folder, capsys):
    """On a file system of 64 KiB."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here; test_deal_enhance.py has a full disk that is none")
    try:
        (disk / "filler").write_bytes(b"x" * 48 * 1024)
        noise = numpy.random.default_rng(0).integers(0, 65536, (128, 128), numpy.uint16)
        Image.fromarray(noise).save(folder / "noise.png")
        assert enhance(folder, "--keep-going", source="noise.png", to="disk/out") == 1
        assert "No space left on device" in capsys.readouterr().err
        assert {path.name for path in (disk / "out").iterdir()} <= {"manifest.csv"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_output_that_cannot_be_written(folder, capsys):
    """/proc takes no files, not even root's."""
    if not os.path.isdir("/proc/self"):
        pytest.skip("no /proc here")
    assert enhance(folder, "--keep-going", to="/proc/deal") == 1
    assert capsys.readouterr().err.startswith("deal: error: /proc/deal")


def test_ctrl_c(folder):
    """What is written by then is whole, and the next run goes on from there."""
    (folder / "in" / "b.png").unlink()
    noise = numpy.random.default_rng(0)
    for k in range(200):
        Image.fromarray(noise.integers(0, 256, (96, 96), numpy.uint8)).save(folder / "in" / f"n{k:03}.png")
    command = [
        sys.executable, "-m", "deal", "enhance", "-i", "in", "-o", "out", "-m", "tiny.safetensors", "--threads", "1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Who runs in the background of a shell has Ctrl-C ignored, and so would the process.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / "out" / "n002.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "deal: interrupted" in said and "Traceback" not in said
    written = sorted(path for path in (folder / "out").iterdir() if path.suffix != ".csv")
    assert 3 <= len(written) < 202
    for path in written:
        assert read_frame(path).pixels.shape in ((96, 96), (30, 40))
    assert [row["status"] for row in rows(folder)] == ["done"] * len(written)


def test_degrade(folder):
    (folder / "in" / "b.png").unlink()
    for to in ("one", "two"):
        command = ["degrade", "-i", str(folder / "in"), "-o", str(folder / to), "--ops", "contrast_0.5", "stripe"]
        assert cli.main([*command, "--deviation", "0.05", "--quiet"]) == 0
    for name, kind in (("a.png", numpy.uint16), ("c.tif", numpy.uint8)):
        clean, one, two = (read_frame(folder / each / name, "full").pixels for each in ("in", "one", "two"))
        assert one.dtype == kind and numpy.array_equal(one, two)
        span = numpy.ptp(clean.astype(float))
        columns = one.mean(0) - 0.5 * clean.mean(0) - 0.5 * clean.mean()
        assert 0.02 < columns.std() / span < 0.1
    assert cli.main([*command, "--ops", "stain"]) == 1


def test_info(folder, capsys):
    assert cli.main(["info", str(folder / "tiny.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "backends" in said and "trained_on  noise" in said and "[['scale', 3, 3, 1]]" in said


def test_info_prints_no_control_characters(folder, capsys):
    path = str(folder / "odd.safetensors")
    DEAL.from_pretrained(folder / "tiny.safetensors").save_pretrained(path, trained_on="\x1b[31mred\nnext: \x07")
    assert cli.main(["info", path]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\x07" not in said and r"\x1b[31mred next: \x07" in said


def test_convert(tmp_path, capsys):
    if not RELEASED.exists():
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing(f"{RELEASED} is not there: set DEAL_TEST_DATA to the folder that holds golden/")
    weights = tmp_path / "released.safetensors"
    assert cli.main(["convert", str(RELEASED), str(weights)]) == 0
    assert "572,323 parameters" in capsys.readouterr().out
    assert DEAL.from_pretrained(weights).config == DEAL(channels=3).config
    assert cli.main(["info", str(weights)]) == 0
    assert "61af2a6435a993005d27dc230d427e979c8cb62064cf7cf5f841042e9f71dd5e" in capsys.readouterr().out


def test_train_from_a_file_of_settings(tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"output: {tmp_path / 'run'}\nblocks: [[scale, 3, 3]]\nwidth: 4\ncrop: 32\nbatch: 2\nsteps: 50\n"
        "progress: false\n"
    )
    threads = torch.get_num_threads()
    try:
        assert cli.main(["train", "--config", str(config), "--steps", "2", "--threads", "3"]) == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.startswith("2 steps, validation ")
    assert cli.main(["train", "--config", str(config), "--steps", "3", "--resume"]) == 0
    assert capsys.readouterr().out.startswith("3 steps, validation ")
    network = DEAL.from_pretrained(tmp_path / "run" / "best.safetensors")
    assert network.width == 4 and network.plan[0].large == 3
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--config", str(config), "--print-config"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "steps: 50" in said and "strategy: policy" in said


def test_another_package_of_this_name(capsys, monkeypatch):
    monkeypatch.delattr(deal, "__all__")
    assert cli.main(["info"]) == 1
    assert "another package named deal" in capsys.readouterr().err


def test_an_image_file_is_opened_once(folder, monkeypatch):
    """The pixels, the number of pages and the metadata are read together."""
    opened = []

    def recording(original):
        def record(file, *arguments, **options):
            opened.append(os.fspath(file) if isinstance(file, (str, os.PathLike)) else None)
            return original(file, *arguments, **options)

        return record

    decoded = recording(Image.open)
    for owner, name in ((builtins, "open"), (io, "open")):
        monkeypatch.setattr(owner, name, recording(getattr(owner, name)))
    count = []
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: count.append(1) or decoded(*arguments, **options))
    assert enhance(folder, "--quiet", source="in/a.png", to="x.png") == 0
    assert opened.count(str(folder / "in" / "a.png")) == 1 and len(count) == 1


def test_demo(folder, capsys, monkeypatch):
    monkeypatch.setattr(demonstration, "HEIGHT", 48)
    monkeypatch.setattr(demonstration, "WIDTH", 64)
    picture = folder / "new" / "demo.png"
    assert cli.main(["demo", "-o", str(picture), "-m", str(folder / "tiny.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "PSNR, dB" in said and "SSIM" in said and "ms per frame" in said
    with Image.open(picture) as image:  # a row of three images, and one of four parts
        assert image.size == (4 * 64 + 3 * GAP, 2 * (48 + LABEL_HEIGHT) + GAP)
        third = 2 * (64 + GAP)
        clean = numpy.asarray(image)[LABEL_HEIGHT : LABEL_HEIGHT + 48, third : third + 64]
    expected = demonstration.clean_frame()[0, 0].numpy()
    assert abs(clean - 255 * expected).max() <= 0.5 + 1e-3


def test_demo_trains_where_there_are_no_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demonstration, "HEIGHT", 48)
    monkeypatch.setattr(demonstration, "WIDTH", 64)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "none")
    arguments = ["demo", "-o", str(tmp_path / "demo.png"), "--minutes", "0.001"]
    assert cli.main(arguments) == 0
    assert "training for 0.001 minutes" in capsys.readouterr().out
    assert pretrained.from_file(tmp_path / "demo.safetensors").config["size"] == "deal-u-small"
    assert cli.main(arguments) == 0
    assert "training" not in capsys.readouterr().out
