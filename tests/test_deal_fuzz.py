"""Mutated image files through `deal enhance --keep-going`: cut, with flipped bytes, or of parts of two files.

DEAL_FUZZ sets the number of files, DEAL_FUZZ_SEED the first seed. Failing files stay in pytest's temporary folder.
"""

import csv
import io
import os
from collections import Counter

import numpy
import pytest
from conftest import DATA
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from deal import cli
from deal.io.images import SUFFIXES, read_frame

COUNT = int(os.environ.get("DEAL_FUZZ", "200"))
SEED = int(os.environ.get("DEAL_FUZZ_SEED", "0"))
GOOD = 10  # one of so many files stays as it is
HEIGHT, WIDTH = 24, 32


def encoded(image, kind, **options):
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def exif():
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "camera"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 30.0)
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
    return tags


def whole_files():
    """Content by name: the kinds of files that are read, small ones."""
    random = numpy.random.default_rng(0)
    scene = numpy.add.outer(numpy.arange(HEIGHT), 3 * numpy.arange(WIDTH)) + random.integers(0, 9, (HEIGHT, WIDTH))
    grey = Image.fromarray(scene.astype(numpy.uint8))
    counts = Image.fromarray((7000 + 9 * scene).astype(numpy.uint16))
    celsius = Image.fromarray((20 + scene / 10).astype(numpy.float32))
    colour = Image.fromarray(numpy.stack([scene, scene.T.reshape(scene.shape), 255 - scene], 2).astype(numpy.uint8))
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("note", "a text")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[305] = "description", "software"
    pages = {"save_all": True, "append_images": [counts]}
    files = {
        "grey.png": encoded(grey, "PNG", pnginfo=texts, dpi=(72, 72)), "counts.png": encoded(counts, "PNG"),
        "colour.png": encoded(colour, "PNG", exif=exif()), "palette.png": encoded(colour.quantize(16), "PNG"),
        "bits.png": encoded(grey.convert("1"), "PNG"), "alpha.png": encoded(colour.convert("RGBA"), "PNG"),
        "grey.jpg": encoded(grey, "JPEG", exif=exif(), comment=b"a comment"),
        "colour.jpg": encoded(colour, "JPEG", progressive=True), "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "grey.bmp": encoded(grey, "BMP"), "colour.bmp": encoded(colour, "BMP"),
        "grey.tif": encoded(grey, "TIFF", tiffinfo=tags), "counts.tif": encoded(counts, "TIFF", exif=exif()),
        "celsius.tif": encoded(celsius, "TIFF"), "pages.tif": encoded(counts, "TIFF", **pages),
        "deflate.tif": encoded(counts, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tif": encoded(colour, "TIFF", compression="tiff_lzw"),
        "big.tif": encoded(counts, "TIFF", big_tiff=True),
    }  # fmt: skip
    for folder, kind in (("data/hituav/val20", "JPEG"), ("data/m2vd/val6", "PNG")):  # real ones, where they are
        for path in sorted((DATA / folder).glob("*.*"))[:2]:
            with Image.open(path) as image:
                cut = image.crop((0, 0, WIDTH, HEIGHT))
            files[f"{path.stem}{'.jpg' if kind == 'JPEG' else '.png'}"] = encoded(cut, kind)
    return files


def mutated(random, content, other):
    """The content of a file, damaged in one way."""
    damaged = bytearray(content)
    way = random.integers(4)
    if way == 0:
        return bytes(damaged[: random.integers(len(damaged))])
    if way == 1:
        for place in random.integers(0, len(damaged), random.integers(1, 20)):
            damaged[place] ^= 1 << random.integers(8)
        return bytes(damaged)
    if way == 2:  # in the header, where the meaning is
        for place in random.integers(0, min(len(damaged), 160), random.integers(1, 4)):
            damaged[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)])
        return bytes(damaged)
    return bytes(damaged[: random.integers(len(damaged))]) + other[random.integers(len(other)) :]


def write_files(folder):
    """The names of those that are whole."""
    whole, good = whole_files(), set()
    names = list(whole)
    for number in range(COUNT):
        random = numpy.random.default_rng((SEED, number))
        name, other = random.choice(names, 2)
        content = whole[name] if number % GOOD == 0 else mutated(random, whole[name], whole[other])
        file = folder / f"{number:05}-{name}"
        file.write_bytes(content)
        if content == whole[name]:
            good.add(file.name)
    return good


@pytest.mark.filterwarnings("ignore")
def test_mutated_files(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    good = write_files(source)
    command = ["enhance", "-i", str(source), "-o", str(target), "-m", "deal-u-small", "--keep-going", "--threads", "1"]
    code = cli.main([*command, "--quiet"])
    assert "Traceback" not in capsys.readouterr().err
    with open(target / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = {row["source"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(path.name for path in source.iterdir()) and len(rows) == COUNT
    assert {rows[name]["status"] for name in good} == {"done"}
    counts = Counter(row["status"] for row in rows.values())
    assert code == (1 if counts["failed"] else 0) and counts["failed"] > COUNT // 4
    # What is done can be read and has its size; what failed has a reason, and left nothing.
    written = {path.name for path in target.iterdir() if path.suffix in SUFFIXES}
    assert written == {name for name, row in rows.items() if row["status"] == "done"}
    for name in written:
        height, width = read_frame(target / name, (0, 1)).pixels.shape[:2]
        assert (str(height), str(width)) == (rows[name]["height"], rows[name]["width"])
    assert all(row["message"] for row in rows.values() if row["status"] == "failed")
    assert not [path.name for path in target.iterdir() if path.name.endswith(".part")]
    with capsys.disabled():
        print(f" {dict(counts)}", end=" ")
