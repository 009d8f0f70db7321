"""Temperatures of FLIR's radiometric JPEG files, through flyr, from the file to the enhanced TIFF."""

import subprocess
import sys

import numpy
import pytest
from flir_jpeg import PLACE, XMP, radiometric_jpeg
from PIL import ExifTags, Image

from deal.io import flir
from deal.io.images import UnusableImage, read_image
from deal.io.synthetic import thermal_scene
from deal.io.writers import write_image

STEP = 0.03  # kelvin, of one count at 300 K


def kelvin(low=280.0, high=320.0):
    """[H, W]"""
    return low + (high - low) * thermal_scene(60, 80, seed=4)[0].numpy().astype(numpy.float64).clip(0, 1)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "frame.jpg").write_bytes(radiometric_jpeg(kelvin()))
    return tmp_path / "frame.jpg"


@pytest.fixture
def flyr():
    return pytest.importorskip("flyr", reason="the extra flir is not installed")


@pytest.mark.parametrize("unit", flir.UNITS)
def test_temperatures(path, flyr, unit):
    image = read_image(path, flir=unit)
    pixels = image.frame.pixels
    assert pixels.dtype == (numpy.float32 if unit == "celsius" else numpy.uint16)
    found = pixels + 273.15 if unit == "celsius" else pixels / 100
    assert found.shape == kelvin().shape and abs(found - kelvin()).max() < STEP
    assert image.pages == 1


@pytest.mark.parametrize("unit", flir.UNITS)
def test_place_and_camera_are_kept(path, tmp_path, flyr, unit):
    image = read_image(path, flir=unit)
    write_image(tmp_path / "b.tif", image.frame.pixels, image.metadata)
    with Image.open(tmp_path / "b.tif") as written:
        exif = written.getexif()
        assert exif[ExifTags.Base.Model] == "camera" and exif[ExifTags.Base.ImageDescription] == "roof"
        assert dict(exif.get_ifd(ExifTags.IFD.GPSInfo)) == PLACE
        assert 40962 not in exif.get_ifd(ExifTags.IFD.Exif)  # the size of the picture
        assert bytes(written.info["xmp"]) == XMP
        assert numpy.array_equal(numpy.array(written), image.frame.pixels)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_xmp_of_pictures_is_kept(path, tmp_path, ending):
    with pytest.warns(UserWarning, match="has temperatures of a FLIR camera beside its picture"):
        image = read_image(path)
    assert image.frame.pixels.shape == (120, 160, 3)
    write_image(tmp_path / f"b{ending}", image.frame.pixels, image.metadata)
    again = read_image(tmp_path / f"b{ending}")
    assert again.metadata.xmp == XMP


def test_from_the_command_line(path, tmp_path, flyr):
    command = [sys.executable, "-m", "deal", "enhance", "-i", "frame.jpg", "-o", "out", "-m", "deal-u-small"]
    done = subprocess.run(
        [*command, "--flir", "celsius"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0 and "1 done" in done.stdout, done.stderr
    with Image.open(tmp_path / "out" / "frame.tif") as written:
        assert written.mode == "F" and abs(numpy.array(written) + 273.15 - kelvin()).max() < 5
        assert abs(numpy.array(written).mean() + 273.15 - kelvin().mean()) < STEP


def test_too_hot_for_centikelvin(tmp_path, flyr):
    (tmp_path / "a.jpg").write_bytes(radiometric_jpeg(kelvin(300, 750)))
    with pytest.raises(UnusableImage, match=r"a.jpg .*: its 4\d\d degrees are too many for centikelvin: read them as"):
        read_image(tmp_path / "a.jpg", flir="centikelvin")
    assert read_image(tmp_path / "a.jpg", flir="celsius").frame.pixels.max() > 400


def test_damaged_data(path, flyr):
    content = bytearray(path.read_bytes())
    directory = content.index(b"FFF\0") + 64
    content[directory : directory + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(UnusableImage, match=r"frame.jpg .*: flyr finds no temperatures in its FLIR data"):
        read_image(path, flir="celsius")


def test_pictures_without_temperatures(tmp_path):
    Image.fromarray(numpy.zeros((4, 4), numpy.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(UnusableImage, match=r"a.jpg cannot be read as an image: a JPEG file without FLIR temperatures"):
        read_image(tmp_path / "a.jpg", flir="celsius")
    with pytest.raises(ValueError, match="flir must be one of None, 'celsius', 'centikelvin'; got 'kelvin'"):
        read_image(tmp_path / "a.jpg", flir="kelvin")


def test_without_flyr(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flyr", None)
    with pytest.raises(ModuleNotFoundError, match=r"by the package flyr: pip install 'deal-kernels\[flir\]'"):
        read_image(path, flir="celsius")


def test_cut_files_have_none(path):
    content = path.read_bytes()
    first = content.index(b"FLIR\0") + 5
    assert flir.has_temperatures(content[:first])
    assert not any(flir.has_temperatures(content[:end]) for end in range(first))
