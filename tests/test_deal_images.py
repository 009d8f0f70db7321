"""Reading images: bit depths, colours, windows, broken files, and the cache."""

import struct
import warnings
import zlib

import numpy
import pytest
import torch
from oracle import close
from PIL import Image

from deal.io.dataset import ImageDataset
from deal.io.images import UnusableImage, read_frame
from deal.io.paths import find_images


def pattern(dtype=numpy.uint8, high=255, shape=(20, 30)):
    values = numpy.random.default_rng(0).integers(0, high, shape, endpoint=True)
    values.reshape(-1)[:2] = 0, high
    return values.astype(dtype)


def saved(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def png_of_16_bit_colours(path, values):
    """Pillow writes none."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "PNG", "tiff"])
def test_8_bits(tmp_path, suffix):
    values = pattern()
    frame = read_frame(saved(tmp_path / f"x.{suffix}", values))
    assert numpy.array_equal(frame.pixels, values) and frame.pixels.dtype == numpy.uint8
    assert (frame.low, frame.high) == (0, 255)
    assert torch.equal(frame.tensor(1)[0], torch.from_numpy(values) / 255)
    assert torch.equal(frame.tensor(3), frame.tensor(1).expand(3, -1, -1))


def test_jpeg(tmp_path):
    values = numpy.add.outer(numpy.arange(40), numpy.arange(60)).astype(numpy.uint8)
    frame = read_frame(saved(tmp_path / "x.jpg", values, quality=95))
    assert frame.pixels.shape == (40, 60) and abs(frame.pixels.astype(int) - values).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("high", [300, 16383, 65535])
def test_16_bits(tmp_path, suffix, high):
    values = pattern(numpy.uint16, high)
    path = saved(tmp_path / f"x.{suffix}", values)
    frame = read_frame(path, "full")
    assert numpy.array_equal(frame.pixels, values) and frame.pixels.dtype == numpy.uint16
    assert close(frame.tensor(1)[0], torch.from_numpy(values.astype(numpy.float32)) / 65535, 1e-6)
    stretched = read_frame(path)
    assert (stretched.low, stretched.high) == tuple(numpy.percentile(values, (0.1, 99.9)))
    assert stretched.tensor(1).min() == 0 and stretched.tensor(1).max() == 1
    named = read_frame(path, (100, 200)).tensor(1)[0]
    assert close(named, ((torch.from_numpy(values.astype(numpy.float32)) - 100) / 100).clamp(0, 1), 1e-6)


def test_floating_point(tmp_path):
    kelvins = 280 + pattern(numpy.float32, 40)
    path = saved(tmp_path / "x.tif", kelvins)
    frame = read_frame(path)
    assert frame.pixels.dtype == numpy.float32 and numpy.array_equal(frame.pixels, kelvins)
    assert 280 <= frame.low < frame.high <= 320
    with pytest.raises(UnusableImage, match="have no full range: give a window of two numbers"):
        read_frame(path, "full")
    kelvins[3, 4] = numpy.nan
    with pytest.raises(UnusableImage, match=r"x.tif has pixels that are not finite"):
        read_frame(saved(path, kelvins))


def test_a_flat_image(tmp_path):
    frame = read_frame(saved(tmp_path / "x.png", numpy.full((5, 6), 700, numpy.uint16)))
    assert frame.tensor(1).shape == (1, 5, 6) and not frame.tensor(1).any()


def test_colours(tmp_path):
    values = pattern(shape=(20, 30, 3))
    frame = read_frame(saved(tmp_path / "x.png", values))
    assert numpy.array_equal(frame.pixels, values)
    three = torch.from_numpy(values).permute(2, 0, 1) / 255
    assert torch.equal(frame.tensor(3), three) and frame.tensor(3).is_contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    assert close(frame.tensor(1), (three * weights).sum(0, keepdim=True), 1e-6)


def test_grey_that_is_stored_as_colours_stays_what_it_is(tmp_path):
    values = pattern()
    frame = read_frame(saved(tmp_path / "x.png", numpy.repeat(values[..., None], 3, -1)))
    assert close(frame.tensor(1)[0], torch.from_numpy(values) / 255, 1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK", "I;16B"])
def test_other_modes(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "I;16B") else "png"
    grey = Image.fromarray(pattern(numpy.uint16, 900)) if mode == "I;16B" else Image.fromarray(pattern())
    image = grey if mode == "I;16B" else grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    image.save(tmp_path / f"x.{suffix}")
    frame = read_frame(tmp_path / f"x.{suffix}", "full" if mode != "I;16B" else (0, 900))
    expected = numpy.array(grey.convert("1").convert("L") if mode == "1" else grey).astype(numpy.float32)
    expected = torch.from_numpy(expected) / (900 if mode == "I;16B" else 255)
    assert (frame.tensor(1)[0] - expected).abs().max() < 0.01


def test_16_bit_colours_lose_bits_aloud(tmp_path):
    values = pattern(numpy.uint16, 65535, (6, 7, 3))
    path = png_of_16_bit_colours(tmp_path / "x.png", values)
    with pytest.warns(UserWarning, match=r"x.png has colours of 16 bits: they are reduced to 8 bits"):
        frame = read_frame(path)
    assert (
        torch.from_numpy(values.astype(numpy.float32)).permute(2, 0, 1) / 65535 - frame.tensor(3)
    ).abs().max() < 0.01


BROKEN = {
    "empty.png": b"",
    "text.png": b"this is no image",
    "header.png": b"\x89PNG\r\n\x1a\n",
    "bitmap.bmp": b"BM" + bytes(40),
    "half.jpg": None,
    "half.png": None,
    "half.tif": None,
}


def broken(folder, name):
    path = folder / name
    if BROKEN[name] is None:
        saved(path, pattern(shape=(64, 64)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(BROKEN[name])
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    path = broken(tmp_path, name)
    with pytest.raises(UnusableImage, match=f"{name} cannot be read as an image"):
        read_frame(path)


def test_broken_files_stop_or_are_skipped(tmp_path):
    for k in range(3):
        saved(tmp_path / f"{k}.png", pattern() // (k + 1))
    path = broken(tmp_path, "half.png")
    paths = [tmp_path / "0.png", path, tmp_path / "1.png", tmp_path / "gone.png", tmp_path / "2.png"]
    strict = ImageDataset(paths)
    assert strict[0].shape == (1, 20, 30)
    with pytest.raises(UnusableImage, match=r"half.png cannot be read"):
        strict[1]
    with pytest.raises(FileNotFoundError, match=r"gone.png"):
        strict[3]
    lenient = ImageDataset(paths, keep_going=True)
    with pytest.warns(UserWarning, match=r"skipped: .*half.png cannot be read"):
        assert torch.equal(lenient[1], lenient[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert torch.equal(lenient[1], lenient[2])
    with pytest.warns(UserWarning, match=r"skipped: .*gone.png"):
        assert torch.equal(lenient[3], lenient[4])
    assert [each.name for each in lenient.unusable] == ["half.png", "gone.png"]
    nothing = ImageDataset([path], keep_going=True)
    with pytest.warns(UserWarning), pytest.raises(UnusableImage, match=r"none of the 1 images is usable; .*half.png"):
        nothing[0]


def test_small_images_are_unusable(tmp_path):
    path = saved(tmp_path / "x.png", pattern())
    with pytest.raises(UnusableImage, match=r"x.png has 20 x 30 pixels; at least 24 x 24 are required"):
        ImageDataset([path], min_size=24)[0]


def test_budget(tmp_path):
    """What fits stays, and is not read again; the rest is."""
    paths = [saved(tmp_path / f"{k}.png", pattern() // (k + 1)) for k in range(3)]
    images = ImageDataset(paths, budget=2 * 600 + 599)
    first = [images[k] for k in range(3)]
    assert sum(frame.pixels.nbytes for frame in images._cache.values()) == 1200
    for path in paths[:2]:
        path.unlink()
    assert all(torch.equal(images[k], first[k]) for k in range(3))
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        images[2]
    assert images[1] is not images[1]  # one who changes a tensor changes no other


def test_find(tmp_path):
    for name in ("b.png", "a.TIF", "notes.md", ".hidden.png", "sub/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    a, b, c = tmp_path / "a.TIF", tmp_path / "b.png", tmp_path / "sub" / "c.jpg"
    assert find_images(tmp_path) == [a, b]
    assert find_images(str(tmp_path), recursive=True) == [a, b, c]
    assert find_images(f"{tmp_path}/*.png") == [b]
    assert find_images(f"{tmp_path}/**/*.*") == [a, b, c]
    assert find_images([c, tmp_path, b]) == [c, a, b]
    listed = tmp_path / "list.txt"
    listed.write_text("sub/c.jpg\n\nb.png\n*.TIF\n")
    assert find_images(listed) == [c, b, a]


def test_nothing_found(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    for place, message in (
        (tmp_path, r"has no images \(\.png"),
        (tmp_path / "x.png", r"x.png does not exist"),
        (f"{tmp_path}/*.png", r"no images match .*/\*.png"),
        (tmp_path / "list.txt", r"list.txt lists no images"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            find_images(place)
    (tmp_path / "list.txt").write_text("gone.png")
    with pytest.raises(FileNotFoundError, match=r"gone.png does not exist"):
        find_images(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageDataset([]), "paths must have at least one image; got none"),
        (lambda: ImageDataset(["x.png"], channels=2), "channels must be one of 1, 3; got 2"),
        (lambda: ImageDataset(["x.png"], window="best"), "window must be one of 'auto', 'full'; got 'best'"),
        (lambda: ImageDataset(["x.png"], window=(2, 1)), r"window must have its smaller value first; got \(2, 1\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_window_that_is_no_pair():
    with pytest.raises(TypeError, match=r"window must be 'auto', 'full' or a pair of numbers; got \(1,\)"):
        read_frame("x.png", (1,))


def test_a_folder_with_the_name_of_an_image(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(UnusableImage, match=r"x.png cannot be read"):
        read_frame(tmp_path / "x.png")
