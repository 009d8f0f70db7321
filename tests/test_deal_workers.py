"""Files that are read and written by other threads, beside the computation."""

import csv
import errno
import threading

import numpy
import pytest
import tifffile
from PIL import Image

from deal import cli
from deal.io import batch as batches
from deal.io.ahead import read_ahead
from deal.io.batch import Batch
from deal.io.images import UnusableImage, read_image
from deal.io.paths import plan_jobs
from deal.io.writers import write_image

LONG = 60  # seconds


def rows(manifest):
    with open(manifest, newline="") as file:
        return [(row["source"], row["status"], row["type"], row["message"]) for row in csv.DictReader(file)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    random = numpy.random.default_rng(0)
    for k in range(4):
        Image.fromarray(random.integers(0, 256, (24, 32), numpy.uint8)).save(tmp_path / "in" / f"{k}.png")
    counts = random.integers(7000, 9000, (3, 24, 32), numpy.uint16)
    tifffile.imwrite(tmp_path / "in" / "5.tif", counts[0], photometric="minisblack", description="flight 3")
    tifffile.imwrite(tmp_path / "in" / "6.tif", counts, photometric="minisblack")
    return tmp_path


@pytest.mark.parametrize("command", [("enhance", "-m", "deal-u-small"), ("degrade",)])
def test_the_same_files_and_manifest(folder, command):
    (folder / "in" / "4.png").write_bytes((folder / "in" / "0.png").read_bytes()[:100])
    for workers in ("0", "2"):
        name, *more = command
        to = ["-i", str(folder / "in"), "-o", str(folder / workers), "--workers", workers, "--keep-going", "--quiet"]
        assert cli.main([name, *to, *more, "--threads", "1"]) == 1
    for source in (folder / "in").iterdir():
        if source.name != "4.png":
            assert (folder / "2" / source.name).read_bytes() == (folder / "0" / source.name).read_bytes()
    one, other = (rows(folder / each / "manifest.csv") for each in ("0", "2"))
    # A failure is recorded before outputs that are still being written.
    assert sorted(one) == sorted(other) and [row[1] for row in one].count("done") == 6


def test_an_error_ends_the_batch_and_what_was_written_is_recorded(folder, capsys):
    (folder / "in" / "2.png").write_bytes(b"")
    arguments = ["-i", str(folder / "in"), "-o", str(folder / "out"), "--workers", "1", "--quiet", "--threads", "1"]
    assert cli.main(["degrade", *arguments]) == 1
    assert "2.png" in capsys.readouterr().err
    done = {row[0].rpartition("/")[2] for row in rows(folder / "out" / "manifest.csv") if row[1] == "done"}
    assert done == {path.name for path in (folder / "out").glob("*.png")} <= {"0.png", "1.png"}


def copy(folder, each=lambda job: None, **options):
    jobs = plan_jobs(folder / "in", folder / "out")
    with Batch(jobs, manifest=folder / "list.csv", workers=1, **options) as batch:
        for job in batch:
            each(job)
            with batch.attempt(job):
                image = read_image(job.source, page=0)
                batch.save(job, image, image.frame.pixels)
    return batch.tally


def test_writing_beside_the_next_job(folder, monkeypatch):
    """The first output is written when the second job has begun; without other threads this would wait for ever."""
    begun = threading.Event()

    def write(*arguments):
        assert begun.wait(LONG)
        write_image(*arguments)

    monkeypatch.setattr(batches, "write_image", write)
    assert copy(folder, lambda job: begun.set() if job.source.name == "1.png" else None).done == 6


@pytest.mark.parametrize(("code", "keep_going", "ends"), [
    (errno.ENOSPC, True, OSError), (errno.EISDIR, False, UnusableImage), (errno.EISDIR, True, None),
])  # fmt: skip
def test_outputs_that_cannot_be_written(folder, monkeypatch, code, keep_going, ends):
    def write(path, *arguments):
        if path.name == "1.png":
            raise OSError(code, "no place", str(path))
        write_image(path, *arguments)

    monkeypatch.setattr(batches, "write_image", write)
    if ends is None:
        assert (copy(folder, keep_going=keep_going).done, rows(folder / "list.csv")[1][1]) == (5, "failed")
    else:
        with pytest.raises(ends, match="no place"):
            copy(folder, keep_going=keep_going)


def test_interrupted(folder):
    """Outputs that are written are recorded, and the others are not there."""

    def each(job):
        if job.source.name == "3.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(folder, each)
    done = [row[0].rpartition("/")[2] for row in rows(folder / "list.csv")]
    assert done == sorted(path.name for path in (folder / "out").iterdir()) and set(done) <= {"0.png", "1.png", "2.png"}


def test_read_ahead():
    used, reading = threading.Event(), {}

    def read(source):
        reading.setdefault(source, threading.Event()).set()
        if source == "bad":
            raise ValueError("damaged")
        assert source != "second" or not used.is_set()
        return source.upper()

    for source in ("first", "second", "bad", "last"):
        reading[source] = threading.Event()
    with read_ahead(read, reading, workers=2) as ahead:
        assert ahead("first") == "FIRST"
        assert reading["second"].wait(LONG)  # nobody has asked for it
        used.set()
        with pytest.raises(ValueError, match="damaged"):
            ahead("bad")
        assert ahead("another") == "ANOTHER"  # not among the sources
        assert ahead("last") == "LAST"


def test_a_wrong_number(folder, capsys):
    assert cli.main(["degrade", "-i", str(folder / "in"), "-o", str(folder / "out"), "--workers", "-1"]) == 1
    assert "workers must be at least 0; got -1" in capsys.readouterr().err
