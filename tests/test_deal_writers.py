"""Batches of files: their plan, and runs with bad files, with a full disk, and with Ctrl-C."""

import csv
import errno
import os
import signal

import numpy
import pytest
from PIL import Image

from deal.io.batch import Batch
from deal.io.images import UnusableImage, read_frame, read_image
from deal.io.paths import Job, plan_jobs


def counts():
    return numpy.random.default_rng(0).integers(7000, 9000, (20, 24), numpy.uint16)


def copy(jobs, **options):
    """Writes every image unchanged."""
    with Batch(jobs, **options) as batch:
        for job in batch:
            with batch.attempt(job):
                image = read_image(job.source)
                batch.save(job, image, image.frame.pixels)
    return batch.tally


@pytest.fixture
def folder(tmp_path):
    """Two images, one in a folder below, one that is broken."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "c.png", "deep/d.tif"):
        Image.fromarray(counts()).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    return tmp_path


def names(jobs, folder):
    return [str(job.target.relative_to(folder)) for job in jobs]


def test_plan_jobs(folder):
    source, out = folder / "in", folder / "out"
    assert names(plan_jobs(source, out), out) == ["a.png", "b.png", "c.png"]
    deep = plan_jobs([source], out, recursive=True, suffix="_x", ending=".tif")
    assert names(deep, out) == ["a_x.tif", "b_x.tif", "c_x.tif", "deep/d_x.tif"]
    assert plan_jobs(source / "a.png", folder / "x.tif") == [Job(source / "a.png", folder / "x.tif")]
    assert names(plan_jobs(source / "*.png", out), out) == ["a.png", "b.png", "c.png"]
    # What a run puts into a folder of its source is no source of the next one.
    (source / "out").mkdir()
    Image.fromarray(counts()).save(source / "out" / "a.png")
    assert len(plan_jobs(source, source / "out", recursive=True)) == 4


def test_plans_that_lose_images(folder):
    source = folder / "in"
    with pytest.raises(ValueError, match=r"a\.png would be overwritten"):
        plan_jobs(source, source)
    with pytest.raises(ValueError, match=r"output must be a folder for 3 images"):
        plan_jobs(source, folder / "x.png")
    Image.fromarray(counts()).save(source / "deep" / "a.png")
    with pytest.raises(ValueError, match=r"would both be written to"):
        plan_jobs([source / "a.png", source / "deep" / "a.png"], folder / "out")
    assert len(plan_jobs(source, source, suffix="_x")) == 3


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["source"].rpartition("/")[2], row["status"]) for row in csv.DictReader(file)]


def test_run_keeps_going_and_skips(folder):
    jobs, manifest = plan_jobs(folder / "in", folder / "out"), folder / "out" / "manifest.csv"
    assert copy(jobs, keep_going=True, manifest=manifest) == (2, 0, 1)
    assert rows(manifest) == [("a.png", "done"), ("b.png", "failed"), ("c.png", "done")]
    before = (folder / "out" / "a.png").stat().st_mtime_ns
    with pytest.raises(UnusableImage, match=r"b\.png"):
        copy(jobs, skip_existing=True, manifest=manifest)
    assert rows(manifest)[3:] == [("a.png", "skipped"), ("b.png", "failed")]
    assert (folder / "out" / "a.png").stat().st_mtime_ns == before
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png", "c.png", "manifest.csv"]


def test_full_disk_ends_the_run(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        copy(plan_jobs(folder / "in", folder / "out"), keep_going=True)
    assert not list((folder / "out").iterdir())


def test_ctrl_c_between_an_image_and_its_line(folder, monkeypatch):
    """The image that is being written is finished, and recorded, before the run ends."""
    manifest, fsync = folder / "out" / "manifest.csv", os.fsync

    def interrupted(handle):
        os.kill(os.getpid(), signal.SIGINT)
        fsync(handle)

    monkeypatch.setattr("os.fsync", interrupted)
    jobs = plan_jobs(folder / "in", folder / "out")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    try:
        with pytest.raises(KeyboardInterrupt):
            copy(jobs, manifest=manifest)
    finally:
        signal.signal(signal.SIGINT, before)
    assert rows(manifest) == [("a.png", "done")]
    assert numpy.array_equal(read_frame(folder / "out" / "a.png").pixels, read_frame(folder / "in" / "a.png").pixels)
