"""Reading images: depths, colours, windows, broken files, the budget; crops; and synthetic scenes."""

import math
import struct
import warnings
import zlib

import numpy
import pytest
import torch
from oracle import close
from PIL import Image

from deal.data import Crops, Images, UnusableImage, find_images, read_frame
from deal.scenes import Scenes, thermal_scene


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


def test_big_endian_and_32_bit_files(tmp_path):
    values = pattern(numpy.uint16, 40_000)
    frame = read_frame(saved(tmp_path / "x.tif", values.astype(numpy.int32)))
    assert frame.pixels.dtype == numpy.uint16 and numpy.array_equal(frame.pixels, values)
    with pytest.raises(UnusableImage, match=r"y.tif has values beyond 16 bits: 0 to 400000"):
        read_frame(saved(tmp_path / "y.tif", values.astype(numpy.int32) * 10))


def test_floating_point(tmp_path):
    kelvins = 280 + pattern(numpy.float32, 40)
    path = saved(tmp_path / "x.tif", kelvins)
    frame = read_frame(path)
    assert frame.pixels.dtype == numpy.float32 and numpy.array_equal(frame.pixels, kelvins)
    assert 280 <= frame.low < frame.high <= 320
    with pytest.raises(UnusableImage, match="have no full range: name a window"):
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
    with pytest.warns(UserWarning, match=r"x.png has colours of 16 bits: they are read as 8 bits"):
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


def test_broken_files_stop_or_are_left_out(tmp_path):
    for k in range(3):
        saved(tmp_path / f"{k}.png", pattern() // (k + 1))
    path = broken(tmp_path, "half.png")
    paths = [tmp_path / "0.png", path, tmp_path / "1.png", tmp_path / "gone.png", tmp_path / "2.png"]
    strict = Images(paths)
    assert strict[0].shape == (1, 20, 30)
    with pytest.raises(UnusableImage, match=r"half.png cannot be read"):
        strict[1]
    with pytest.raises(FileNotFoundError, match=r"gone.png"):
        strict[3]
    lenient = Images(paths, keep_going=True)
    with pytest.warns(UserWarning, match=r"left out: .*half.png cannot be read"):
        assert torch.equal(lenient[1], lenient[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert torch.equal(lenient[1], lenient[2])
    with pytest.warns(UserWarning, match=r"left out: .*gone.png"):
        assert torch.equal(lenient[3], lenient[4])
    assert [each.name for each in lenient.unusable] == ["half.png", "gone.png"]
    nothing = Images([path], keep_going=True)
    with pytest.warns(UserWarning), pytest.raises(UnusableImage, match=r"none of the 1 images is usable; .*half.png"):
        nothing[0]


def test_small_images_are_unusable(tmp_path):
    path = saved(tmp_path / "x.png", pattern())
    with pytest.raises(UnusableImage, match=r"x.png has 20 x 30 pixels; needed are 24 x 24 or more"):
        Images([path], least_size=24)[0]


def test_budget(tmp_path):
    """What fits stays, and is not read again; the rest is."""
    paths = [saved(tmp_path / f"{k}.png", pattern() // (k + 1)) for k in range(3)]
    images = Images(paths, budget=2 * 600 + 599)
    first = [images[k] for k in range(3)]
    assert sum(frame.pixels.nbytes for frame in images._kept.values()) == 1200
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
        (tmp_path / "x.png", r"x.png is not there"),
        (f"{tmp_path}/*.png", r"no images match .*/\*.png"),
        (tmp_path / "list.txt", r"list.txt lists no images"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            find_images(place)
    (tmp_path / "list.txt").write_text("gone.png")
    with pytest.raises(FileNotFoundError, match=r"gone.png is not there"):
        find_images(tmp_path / "list.txt")


class Numbers:
    """Images whose pixels all differ: a value says the image and the place."""

    def __init__(self, count, height=12, width=15):
        values = torch.arange(count * height * width, dtype=torch.float32)
        self.images = values.reshape(count, 1, height, width)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_every_image_comes_once_a_turn():
    crops = Crops(Numbers(7), 5, seed=3)
    which = [int(crops[k].min()) // 180 for k in range(21)]
    turns = [which[k : k + 7] for k in (0, 7, 14)]
    assert all(sorted(turn) == list(range(7)) for turn in turns) and turns[0] != turns[1]


def test_crops_are_cut_and_mirrored():
    source = Numbers(3)
    crops = Crops(source, 5)
    seen, corners = set(), set()
    for k in range(300):
        crop = crops[k][0]
        right, down = (crop[0, 1] - crop[0, 0]).item(), (crop[1, 0] - crop[0, 0]).item()
        assert abs(right) == 1 and abs(down) == 15
        seen.add((right > 0, down > 0))
        corners.add(divmod(int(crop.min()) % 180, 15))
    assert len(seen) == 4
    assert {row for row, _ in corners} == set(range(8)) and {column for _, column in corners} == set(range(11))
    plain = Crops(source, None, flips=False)
    assert all(any(torch.equal(plain[k], image) for image in source.images) for k in range(6))


def test_crops_of_two_sides():
    assert Crops(Numbers(3), (4, 7)).batch(0, 2).shape == (2, 1, 4, 7)


def test_halves():
    whole = Numbers(1)[0]
    crops = Crops(Numbers(1), None, flips=False, halves=True)
    found = [crops[k] for k in range(20)]
    halves = [image for image in found if image.shape == (1, 6, 7)]
    assert 4 < len(halves) < 16 and all(torch.equal(image, whole) for image in found if image.shape == whole.shape)
    assert all(image[0, 2, 3] == whole[0, 4:6, 6:8].mean() for image in halves)
    too_small = Crops(Numbers(1), (7, 7), flips=False, halves=True)
    assert all(abs(too_small[k][0, 0, 1] - too_small[k][0, 0, 0]) == 1 for k in range(20))


def test_tones():
    crops = Crops(Numbers(1), None, flips=False, tones=True, seed=1)
    image = Numbers(1)[0] / 180
    crops.source = [image]
    shown = [crops[k] for k in range(40)]
    gammas = [math.log(s[0, 6, 7]) / math.log(image[0, 6, 7]) for s in shown if s[0, 0, 0] < s[0, 11, 14]]
    assert 10 < len(gammas) < 30
    assert 0.5 <= min(gammas) < 0.7 and 1.5 < max(gammas) <= 2
    for s in shown:
        if s[0, 0, 0] > s[0, 11, 14]:
            gamma = math.log(s[0, 6, 7]) / math.log(1 - image[0, 6, 7])
            torch.testing.assert_close(s, (1 - image) ** gamma, rtol=1e-4, atol=1e-5)


def test_panels():
    """A quarter of the cuts has some, of which none is lower than nearly a third; what is around them stays."""
    image = torch.linspace(0, 1, 120).expand(1, 90, 120)
    shown = [Crops([image], None, flips=False, panels=True, seed=2)[k] for k in range(80)]
    changed = [(s != image)[0] for s in shown if not torch.equal(s, image)]
    assert 10 < len(changed) < 30
    for where in changed:
        assert where.any(0).sum() < 120 and where.any(1).sum() >= 0.3 * 90 - 1
    assert all(s.min() >= 0 and s.max() <= 1 for s in shown)


def test_grain():
    source = Scenes(2, seed=0)
    plain, grained = (Crops(source, 64, grain=grain, seed=3).batch(0, 6) for grain in (0.0, 0.1))
    deviations = (grained - plain).std((1, 2, 3))
    assert grained.min() >= 0 and grained.max() <= 1
    assert deviations.max() < 0.11 and deviations.max() > 0.03 and deviations.std() > 0.01
    assert torch.equal(grained, Crops(source, 64, grain=0.1, seed=3).batch(0, 6))


def test_crops_depend_on_seed_and_place_alone():
    one, same, other = (Crops(Numbers(4), 6, seed=seed) for seed in (0, 0, 1))
    expected = [one[k] for k in range(10)]
    assert all(torch.equal(same[k], expected[k]) for k in reversed(range(10)))
    assert torch.equal(same.batch(4, 3), torch.stack(expected[4:7]))
    assert not all(torch.equal(other[k], expected[k]) for k in range(10))


def test_crops_of_small_images():
    with pytest.raises(ValueError, match="an image of 12 x 15 pixels is too small for crops of 13 x 13"):
        Crops(Numbers(2), 13)[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images([]), "paths must have at least one image; got none"),
        (lambda: Images(["x.png"], channels=2), "channels must be one of 1, 3; got 2"),
        (lambda: Images(["x.png"], window="best"), "window must be one of 'auto', 'full'; got 'best'"),
        (lambda: Images(["x.png"], window=(2, 1)), r"window must have its smaller value first; got \(2, 1\)"),
        (lambda: Crops(Numbers(2), 0), "size must be a whole number of at least 1, two of them, or None; got 0"),
        (lambda: Crops(Scenes(0)), "source must have at least one image; got none"),
        (lambda: thermal_scene(0), "height must be a whole number of at least 1; got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_window_that_is_no_pair():
    with pytest.raises(TypeError, match=r"window must be 'auto', 'full' or a pair of numbers; got \(1,\)"):
        read_frame("x.png", (1,))


def test_scenes():
    one = thermal_scene(96, 128, seed=5)
    assert one.shape == (1, 96, 128) and one.dtype == torch.float32 and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, thermal_scene(96, 128, seed=5))
    assert not torch.equal(one, thermal_scene(96, 128, seed=6))
    assert thermal_scene(1, 1).shape == (1, 1, 1)


def test_scenes_look_thermal():
    """A cold sky above, warm things below, and as much noise as is asked for."""
    for seed in range(5):
        scene = thermal_scene(192, 256, seed=seed)[0]
        assert scene[:20].median() < 0.35 < scene.max() and scene[:20].median() < scene[-60:].quantile(0.99)
        assert scene.std() > 0.05
        noise = thermal_scene(192, 256, seed=seed, noise=0.02)[0] - thermal_scene(192, 256, seed=seed, noise=0)[0]
        assert abs(noise.std() - 0.02) < 0.002
        assert (noise[1:] - noise[:-1]).std() > 0.02  # from pixel to pixel


def test_scenes_as_a_source():
    scenes = Scenes(3, 40, 50, channels=3, seed=7)
    assert len(scenes) == 3 and scenes[2].shape == (3, 40, 50)
    assert torch.equal(scenes[2][0], thermal_scene(40, 50, seed=9)[0])
    assert Crops(scenes, 16).batch(0, 2).shape == (2, 3, 16, 16)
    with pytest.raises(IndexError, match="there are 3 scenes; got the index 3"):
        scenes[3]


def test_a_folder_with_the_name_of_an_image(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(UnusableImage, match=r"x.png cannot be read"):
        read_frame(tmp_path / "x.png")
