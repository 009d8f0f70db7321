"""A batch with --keep-going: what a single file causes never ends it, and the manifest has a row for every file."""

import csv
import errno
import io
import os
import shutil
import struct
import subprocess
import sys
import threading

import numpy
import pytest
from PIL import Image

from deal import cli
from deal.io.batch import Batch
from deal.io.images import read_image
from deal.io.manifest import COLUMNS, Manifest, written_by
from deal.io.paths import plan_jobs

MODEL = "deal-u-small"


def image(seed=0, height=24, width=32):
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (height, width), numpy.uint8))


def enhance(source, to, *more):
    command = ["enhance", "-i", str(source), "-o", str(to), "-m", MODEL, "--quiet", "--threads", "1", *more]
    return cli.main(command)


def statuses(manifest):
    with open(manifest, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [(row["source"].rpartition("/")[2], row["status"]) for row in csv.DictReader(file)]


def encoded(kind, **options):
    memory = io.BytesIO()
    image().save(memory, kind, **options)
    return bytearray(memory.getvalue())


def jpeg_with_a_damaged_exif_byte():
    exif = Image.Exif()
    exif[271] = "camera"
    content = encoded("JPEG", exif=exif)
    content[content.index(b"Exif\0\0") + 6] = 0x11  # the byte order, which is "I" or "M"
    return content


def tiff_with_a_bad_next_directory():
    content = encoded("TIFF")
    (start,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[start : start + 2])
    after = start + 2 + 12 * entries
    content[after : after + 4] = struct.pack("<I", 9)
    return content


def test_damaged_files(tmp_path, capsys):
    """In each case the pixels may or may not be readable. The files around are done."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "z.png"):
        image().save(tmp_path / "in" / name)
    (tmp_path / "in" / "exif.jpg").write_bytes(jpeg_with_a_damaged_exif_byte())
    (tmp_path / "in" / "next.tif").write_bytes(tiff_with_a_bad_next_directory())
    code = enhance(tmp_path / "in", tmp_path / "out", "--keep-going")
    found = dict(statuses(tmp_path / "out" / "manifest.csv"))
    assert list(found) == ["a.png", "exif.jpg", "next.tif", "z.png"]
    assert found["a.png"] == found["z.png"] == "done"
    failed = [name for name, status in found.items() if status == "failed"]
    said = capsys.readouterr().err
    assert code == bool(failed) and "Traceback" not in said
    assert all(f"{tmp_path / 'in' / name}" in said for name in failed)


@pytest.mark.parametrize("error", [TypeError("Missing dimensions"), SyntaxError("not a TIFF file"), KeyError(1)])
def test_a_reader_may_raise_anything(error, tmp_path):
    for name in ("a.png", "b.png"):
        image().save(tmp_path / name)
    jobs = plan_jobs(tmp_path, tmp_path / "out")
    with Batch(jobs, keep_going=True, manifest=tmp_path / "list.csv") as batch:
        for job in batch:
            with batch.attempt(job):
                if job.source.name == "a.png":
                    raise error
                read = read_image(job.source)
                batch.save(job, read, read.frame.pixels)
    assert statuses(tmp_path / "list.csv") == [("a.png", "failed"), ("b.png", "done")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in (b"a.png", b"\xff.png", b"z.png"):
        image().save(tmp_path / "a.png")
        shutil.copy(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path / "in"), name))
    assert enhance(tmp_path / "in", tmp_path / "out") == 0
    assert {os.fsencode(name) for name, status in statuses(tmp_path / "out" / "manifest.csv") if status == "done"} == {
        b"a.png", b"\xff.png", b"z.png"
    }  # fmt: skip
    assert b"\xff.png" in os.listdir(os.fsencode(tmp_path / "out"))
    target = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"out-\xff"))
    assert cli.main(["enhance", "-i", str(tmp_path / "in"), "-o", target, "-m", MODEL, "--threads", "1"]) == 0
    assert r"out-\udcff" in capsys.readouterr().out
    # The list of these files can be given back, as it was written by the system.
    (tmp_path / "list.txt").write_bytes(b"in/a.png\nin/\xff.png\n")
    assert enhance(tmp_path / "list.txt", tmp_path / "again") == 0


def test_a_list_with_missing_files(tmp_path, capsys):
    image().save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png\ngone.png\n" + 300 * "x" + ".png\nnothing_*.png\n")
    assert enhance(tmp_path / "list.txt", tmp_path / "out") == 1
    assert "gone.png does not exist" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert enhance(tmp_path / "list.txt", tmp_path / "out", "--keep-going") == 1
    found = statuses(tmp_path / "out" / "manifest.csv")
    assert [status for _, status in found] == ["failed", "failed", "failed", "done"] and found[0][0] == "gone.png"


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    image().save(tmp_path / "in" / "a.png")
    image().save(tmp_path / "in" / "deep" / "b.png")
    scandir = os.scandir

    def refused(path):
        if os.fspath(path) == str(tmp_path / "in" / "deep"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert enhance(tmp_path / "in", tmp_path / "out", "--recursive") == 1
    assert f"{tmp_path / 'in' / 'deep'} cannot be read: Permission denied" in capsys.readouterr().err
    assert enhance(tmp_path / "in", tmp_path / "out", "--recursive", "--keep-going") == 1
    assert statuses(tmp_path / "out" / "manifest.csv") == [("deep", "failed"), ("a.png", "done")]


LITTLE_MEMORY = """
import resource, sys
from deal import cli
folder, headroom = sys.argv[1], 300 << 20
def enhance(source, to):
    return cli.main(["enhance", "-i", source, "-o", to, "-m", "deal-u-small", "--keep-going", "--threads", "1"])
assert enhance(f"{folder}/in/a.bmp", f"{folder}/a.bmp") == 0
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + headroom, resource.RLIM_INFINITY))
sys.exit(enhance(f"{folder}/in", f"{folder}/out"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_out_of_memory_is_the_failure_of_one_file(tmp_path):
    (tmp_path / "in").mkdir()
    for name, side in (("a", 32), ("b", 4000), ("c", 32)):
        image(height=side, width=side).save(tmp_path / "in" / f"{name}.bmp")
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"failed: {tmp_path / 'in' / 'b.bmp'}: out of memory" in done.stderr
    assert statuses(tmp_path / "out" / "manifest.csv") == [("a.bmp", "done"), ("b.bmp", "failed"), ("c.bmp", "done")]


def test_two_runs_write_one_header(tmp_path):
    """Every run creates the manifest if there is none, and a row is never torn."""
    path, count, rows = tmp_path / "manifest.csv", 8, 50
    ready = threading.Barrier(count)

    def run(number):
        ready.wait()
        manifest = Manifest(path)
        for _ in range(rows):
            manifest.write({"source": f"{number}", "status": "done", "message": "x" * 200})
        manifest.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert sorted(line[1] for line in lines) == sorted(str(number) for number in range(count) for _ in range(rows))
    assert all(line[-1] == "x" * 200 for line in lines)
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.csv"]


def test_outputs_that_contradict_the_options(tmp_path, capsys):
    image().save(tmp_path / "a.png")
    for output, more, message in (
        ("out.webp", (), "output must be a folder or an image file, .png, "),
        ("x.tif", ("--ext", "png"), "output must be a folder where the format .png is given"),
        ("x.png", ("--suffix", "_e"), "output must be a folder where the suffix _e is given"),
    ):
        assert enhance(tmp_path / "a.png", tmp_path / output, *more) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_results_beside_their_sources(tmp_path, capsys):
    """A second run with a suffix makes the same files again, and no file twice enhanced."""
    image().save(tmp_path / "a.png")
    for _ in range(2):
        assert enhance(tmp_path, tmp_path, "--suffix", "_e") == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_e.png", "manifest.csv"]
    assert written_by(tmp_path / "manifest.csv") == {str(tmp_path / "a_e.png")}
    # A file of that name that no run has written may be an original.
    (tmp_path / "manifest.csv").unlink()
    assert enhance(tmp_path, tmp_path, "--suffix", "_e") == 1
    assert "a_e.png would be overwritten" in capsys.readouterr().err
