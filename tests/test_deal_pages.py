"""Files of several pages through `deal enhance`: all pages, each with its own metadata; and windows over frames."""

import csv
import io
import os
import sys
import warnings

import numpy
import pytest
import tifffile
from peak_memory import peak_of_enhance
from PIL import ExifTags, Image, TiffImagePlugin

from deal import cli
from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.inference.steady_window import SteadyWindow
from deal.io import tiff
from deal.io.images import read_frames, read_image, read_pages
from deal.io.synthetic import SyntheticScenes
from deal.io.tiff_pages import TiffPages, description_of_pages

MODEL = "deal-u-small"
HEIGHT, WIDTH = 48, 64


def counts(count):
    """Frames of a pan, with a fixed pattern of columns."""
    wide = SyntheticScenes(1, HEIGHT, WIDTH + count, seed=3)[0][0].numpy()
    columns = 100 * numpy.random.default_rng(0).standard_normal(WIDTH)
    scene = numpy.stack([wide[:, k : k + WIDTH] for k in range(count)])
    return (8000 + 4000 * scene + columns).round().astype(numpy.uint16)


def write(path, pages, **options):
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others, **options)


def single(page, number, compression="raw"):
    """A TIFF of one page with tags of its own, uncompressed also with a place on the earth."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ExifTags.Base.ImageDescription], tags[ExifTags.Base.Software] = f"page {number}", "a camera"
    tags.tagtype[33922] = 12
    tags[33922] = (0.0, 0.0, 0.0, float(number), 2.0, 3.0)
    if compression == "raw":  # Pillow writes no groups into compressed files
        tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: (48.0, float(number), 30.0)}
        tags[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.01 * (1 + number)}
    if page.dtype != numpy.uint16:
        return tiff.encoded(page, tiffinfo=tags, compression=compression)
    memory = io.BytesIO()
    Image.fromarray(page).save(memory, "TIFF", tiffinfo=tags, compression=compression)
    return memory.getvalue()


def enhance(source, to, *more):
    command = ["enhance", "-i", str(source), "-o", str(to), "-m", MODEL, "--threads", "1", "--quiet", *more]
    return cli.main(command)


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer(MODEL, device="cpu")


def pixels(path):
    return numpy.stack([frame.pixels for frame in read_frames(path)])


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "uint8", "float64"])
def test_all_pages_of_every_type(tmp_path, enhancer, dtype):
    stack = (counts(3) // 64 if dtype == "uint8" else counts(3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="zlib", photometric="minisblack")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert enhance(tmp_path / "a.tif", tmp_path / "out") == 0
    assert numpy.array_equal(pixels(tmp_path / "out" / "a.tif"), enhancer(stack))
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        [series] = file.series
        assert series.shape == stack.shape and series.kind == "shaped"
        assert numpy.array_equal(file.asarray(), enhancer(stack))
    with open(tmp_path / "out" / "manifest.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["status"], row["message"], row["type"]) == ("done", "3 pages", dtype)


def test_pages_as_a_sequence(tmp_path, enhancer):
    write(tmp_path / "a.tif", counts(6))
    assert enhance(tmp_path / "a.tif", tmp_path / "b.tif", "--sequence") == 0
    assert numpy.array_equal(pixels(tmp_path / "b.tif"), Sequence(enhancer)(counts(6)))
    # Each file is a sequence of its own.
    (tmp_path / "in").mkdir()
    for name in ("c.tif", "d.tif"):
        write(tmp_path / "in" / name, counts(6))
    assert enhance(tmp_path / "in", tmp_path / "out", "--sequence") == 0
    assert numpy.array_equal(pixels(tmp_path / "out" / "d.tif"), pixels(tmp_path / "b.tif"))


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_metadata_of_each_page(tmp_path, compression, dtype):
    """Tags, EXIF and GPS come back for every page, and pages of different sizes."""
    stack = [page[: HEIGHT - 4 * k] for k, page in enumerate(counts(3).astype(dtype))]
    with open(tmp_path / "a.tif", "wb") as file:
        pages = TiffPages(file, big=False)
        for number, page in enumerate(stack):
            pages.append(single(page, number, compression))
    assert enhance(tmp_path / "a.tif", tmp_path / "b.tif") == 0
    found = []
    for name in ("a.tif", "b.tif"):
        for file in read_pages(tmp_path / name):
            exif = file.metadata.exif
            found.append(
                (
                    file.pages, file.frame.pixels.shape, exif[270], exif[305], exif[33922],
                    exif.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitude),
                    exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ExposureTime),
                )
            )  # fmt: skip
    assert found[:3] == found[3:]
    assert [each[2] for each in found[3:]] == ["page 0", "page 1", "page 2"]
    assert [each[4][3] for each in found[3:]] == [0, 1, 2]
    if compression == "raw":
        assert [each[5] for each in found[3:]] == [(48, 0, 30), (48, 1, 30), (48, 2, 30)]


def test_descriptions_that_tell_of_pages(tmp_path):
    stack = counts(6)
    tifffile.imwrite(
        tmp_path / "a.tif", stack.reshape(2, 3, HEIGHT, WIDTH), photometric="minisblack", metadata={"axes": "TZYX"}
    )
    tifffile.imwrite(tmp_path / "j.tif", stack, imagej=True, metadata={"axes": "TYX", "finterval": 0.04})
    assert enhance(tmp_path, tmp_path / "out", "--scale", "2") == 0
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        assert file.series[0].shape == (2, 3, 2 * HEIGHT, 2 * WIDTH) and file.series[0].axes == "TZYX"
    with tifffile.TiffFile(tmp_path / "out" / "j.tif") as file:
        assert file.series[0].shape == (6, 2 * HEIGHT, 2 * WIDTH) and file.imagej_metadata["finterval"] == 0.04
    # One that does not fit its file is left out.
    assert description_of_pages('{"shape": [7, 4, 5]}', 3, (4, 5)) == ""
    assert description_of_pages("ImageJ=1.11a\nimages=7\n", 3, (4, 5)) == ""
    assert description_of_pages('{"shape": 7', 3, (4, 5)) == ""


def test_a_big_tiff(tmp_path):
    """Offsets of 64 bits, as files of more than 4 GB have them; each page is given with 32 bits."""
    stack = counts(3)
    with open(tmp_path / "a.tif", "wb") as file:
        pages = TiffPages(file, big=True)
        for number, page in enumerate(stack):
            pages.append(single(page, number))
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    assert numpy.array_equal(pixels(tmp_path / "a.tif"), stack)
    groups = [file.metadata.exif.get_ifd(ExifTags.IFD.GPSInfo) for file in read_pages(tmp_path / "a.tif")]
    assert [group[ExifTags.GPS.GPSLatitude] for group in groups] == [(48, 0, 30), (48, 1, 30), (48, 2, 30)]
    assert numpy.array_equal(tifffile.imread(tmp_path / "a.tif"), stack)


def test_stacks_of_arrays_and_raw_frames(tmp_path, enhancer):
    stack = counts(3)
    numpy.save(tmp_path / "a.npy", stack)
    (tmp_path / "b.raw").write_bytes(stack.astype(">u2").tobytes())
    assert enhance(tmp_path / "a.npy", tmp_path / "x.npy") == 0
    assert numpy.array_equal(numpy.load(tmp_path / "x.npy"), enhancer(stack))
    assert enhance(tmp_path / "b.raw", tmp_path / "y.raw", "--raw", f"{WIDTH}x{HEIGHT}:y16be") == 0
    assert numpy.array_equal(numpy.fromfile(tmp_path / "y.raw", ">u2").reshape(stack.shape), enhancer(stack))
    assert enhance(tmp_path / "a.npy", tmp_path / "z.tif") == 0
    assert numpy.array_equal(pixels(tmp_path / "z.tif"), enhancer(stack))


def test_pages_that_cannot_be_written(tmp_path, capsys):
    write(tmp_path / "a.tif", counts(3))
    write(tmp_path / "b.tif", [counts(1)[0], counts(1)[0, :32]])
    for source, to, more, message in (
        ("a.tif", "out", ("--ext", "png"), "a.png cannot hold 3 pages; .tif can"),
        ("b.tif", "b.npy", (), "b.npy cannot hold pages of different sizes or types; .tif can"),
    ):
        assert enhance(tmp_path / source, tmp_path / to, *more) == 1
        assert message in (said := capsys.readouterr().err) and said.count("\n") == 1
    content = bytearray((tmp_path / "a.tif").read_bytes())
    directories = list(tiff._pages(content))
    directories[2].set(tiff.COMPRESSION, 50001)
    (tmp_path / "c.tif").write_bytes(content)
    assert enhance(tmp_path / "c.tif", tmp_path / "d.tif") == 1  # its last page is broken
    assert "c.tif cannot be read as an image" in capsys.readouterr().err
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("d.", ".", "b.npy"))]


def test_reading_does_not_change_a_file(tmp_path):
    """The tags of signed values are changed in memory."""
    (tmp_path / "a.tif").write_bytes(tiff.encoded(counts(1)[0].astype(numpy.int16)))
    before = (tmp_path / "a.tif").read_bytes()
    assert read_image(tmp_path / "a.tif").frame.pixels.dtype == numpy.int16
    assert (tmp_path / "a.tif").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_number_of_pages(tmp_path):
    peaks = []
    for count in (50, 500):
        write(tmp_path / f"{count}.tif", count // 25 * list(numpy.tile(counts(25), (1, 2, 2))), compression="raw")
        peaks.append(peak_of_enhance(tmp_path / f"{count}.tif", tmp_path / f"out{count}.tif"))
    assert pixels(tmp_path / "out500.tif").shape == (500, 2 * HEIGHT, 2 * WIDTH)
    assert peaks[1] < 1.1 * peaks[0], peaks


def test_steady_window_of_single_frames(tmp_path, enhancer):
    """A hot object that comes and goes changes the window of each frame, and with --window ema hardly any."""
    stack = numpy.repeat(counts(1), 8, 0)
    stack[::2, 30:40, 30:40] = 12500
    write(tmp_path / "a.tif", stack)
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(stack):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number}.png")
    window = SteadyWindow()
    expected = [enhancer.enhance_frame(window.of(frame)) for frame in read_frames(tmp_path / "a.tif")]
    assert enhance(tmp_path / "a.tif", tmp_path / "b.tif", "--window", "ema") == 0
    assert numpy.array_equal(pixels(tmp_path / "b.tif"), expected)
    assert enhance(tmp_path / "in", tmp_path / "out", "--window", "ema", "--no-sequence") == 0
    with open(tmp_path / "out" / "manifest.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert numpy.array_equal([pixels(tmp_path / "out" / f"{k}.png")[0] for k in range(8)], expected)
    assert not numpy.array_equal(expected, enhancer(stack))
