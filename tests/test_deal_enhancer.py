"""Frames and files through a tiny network: depth, window, tiles, metadata, and what becomes of bad files."""

import numpy
import pytest
import torch
from oracle import same_image
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin

from deal.inference import enhancer as enhancer_module
from deal.inference import tiling
from deal.inference.enhancer import Enhancer
from deal.io.batch import Batch
from deal.io.images import Frame, UnusableImage, read_image
from deal.io.paths import Job
from deal.io.writers import write_image
from deal.model import pretrained
from deal.model.network import DEAL
from deal.model.separation import DealU

pytestmark = pytest.mark.usefixtures("each_device")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = DEAL([("scale", 5, 3), ("spike", 3, 3, 2)], width=4)
    network(torch.rand(2, 1, 32, 32))
    return network.eval()


@pytest.fixture
def silent(network):
    """A network that changes nothing."""
    same = network.with_channels(1)
    torch.nn.init.zeros_(same.output_conv.weight)
    torch.nn.init.zeros_(same.output_conv.bias)
    return same


def counts(height=40, width=52, low=7000, high=9000, seed=0):
    return numpy.random.default_rng(seed).integers(low, high, (height, width), numpy.uint16)


def bytes_of(*shape):
    return numpy.random.default_rng(1).integers(0, 256, shape, numpy.uint8)


def in_whole(network, frame):
    """The mapping of the module, said again: in float64, and through the network as it was given."""
    values = torch.from_numpy(frame.pixels.astype(numpy.float64))[None, None]
    seen = ((values - frame.low) / (frame.high - frame.low)).clamp(0, 1)
    with torch.no_grad():
        change = network.double()(seen) - seen
    network.float()
    return (values + (frame.high - frame.low) * change)[0, 0].numpy()


@pytest.mark.parametrize(("low", "high"), [(7000, 9000), (7500.5, 8000), (0, 65535)])
def test_16_bits(network, low, high):
    frame = Frame(counts(), low, high)
    result = Enhancer(network, radiometric=False)(frame)
    assert result.dtype == numpy.uint16
    expected = in_whole(network.with_channels(1).eval(), frame).round().clip(0, 65535)
    assert not numpy.array_equal(result, frame.pixels)
    assert abs(result - expected).max() <= 1


def test_8_bits(network):
    frame = Frame(bytes_of(40, 52), 0, 255)
    result = Enhancer(network, precision="fp32")(frame)
    assert result.dtype == numpy.uint8
    assert abs(result - in_whole(network.with_channels(1).eval(), frame).round().clip(0, 255)).max() <= 1


@pytest.mark.parametrize(
    "pixels",
    [counts(low=0, high=65536), bytes_of(40, 52), bytes_of(40, 52, 3), counts().astype(numpy.float32) / 28],
    ids=["16", "8", "colour", "float"],
)
def test_nothing_changes_where_the_network_changes_nothing(silent, pixels):
    """Values beyond black and white, such as the hottest spots, are kept, too."""
    low, high = numpy.percentile(pixels, (10, 90))
    result = Enhancer(silent, tile=16)(Frame(pixels, float(low), float(high)))
    assert result.dtype == pixels.dtype
    assert numpy.array_equal(result, pixels)


def test_colours(network):
    """Grey in three channels gives what grey in one gives, and a three-channel network takes grey."""
    grey = bytes_of(40, 52)
    one = Enhancer(network, precision="fp32")(Frame(grey, 0, 255))
    three = Enhancer(network, precision="fp32")(Frame(numpy.repeat(grey[..., None], 3, 2), 0, 255))
    assert three.shape == (40, 52, 3)
    assert abs(three.astype(int) - one[..., None]).max() <= 1
    of_colours = Enhancer(network.with_channels(3), precision="fp32")(Frame(grey, 0, 255))
    assert abs(of_colours.astype(int) - one).max() <= 1


@pytest.mark.parametrize("tile", [13, 23, 61])
@pytest.mark.parametrize("more", [0, 8])
def test_tiles_are_the_whole(network, tile, more, each_device):
    x = torch.rand(1, 1, 75, 61)
    whole = Enhancer(network, tile=0).enhance_tensor(x)
    with torch.no_grad():
        assert same_image(whole, network(x), 1e-5, each_device)
    tiled = Enhancer(network, tile=tile, overlap=network.reach + more).enhance_tensor(x)
    assert same_image(tiled, whole, 1e-5, each_device)


def test_tiles_need_the_reach(network):
    """Less overlap would leave seams: it is refused, and would be seen."""
    with pytest.raises(ValueError, match=f"overlap must be at least {network.reach}"):
        Enhancer(network, overlap=network.reach - 1)
    x = torch.rand(1, 1, 75, 61)
    with torch.no_grad():
        seamed = tiling.run_tiled(network, x, 20, 3, 3)
        assert (seamed - network(x)).abs().max() > 1e-3


@pytest.mark.parametrize("length", [1, 11, 40, 41, 100, 333])
@pytest.mark.parametrize(("tile", "overlap", "reach"), [(1, 0, 0), (7, 5, 5), (40, 10, 6), (16, 20, 20)])
def test_parts_cover_the_whole(length, tile, overlap, reach):
    size, starts = tiling.tile_grid(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] + size == length and size <= tile + 2 * overlap
    shares = tiling.blend_weights(size, starts, reach)
    total = torch.zeros(length)
    for start, each in zip(starts, shares, strict=True):
        total[start : start + size] += each
        assert each[:reach].max() == 0 if start and reach else True
        assert each[size - reach :].max() == 0 if start + size < length and reach else True
    torch.testing.assert_close(total, torch.ones(length))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_halves_the_tile(network, each_device, monkeypatch, error):
    enhancer = Enhancer(network)
    enhancer.tile = 400
    x = torch.rand(1, 1, 300, 40)
    whole = enhancer.enhance_tensor(x)
    restored = DEAL.restored

    def small_only(self, x):
        if x.shape[2] > 200:
            raise error
        return restored(self, x)

    monkeypatch.setattr(DEAL, "restored", small_only)
    assert same_image(enhancer.enhance_tensor(x), whole, 1e-5, each_device)
    assert enhancer.tile == 200
    for tile in (400, 0):  # a tile that was named stays
        with pytest.raises(type(error)):
            Enhancer(network, tile=tile).enhance_tensor(x)


def test_weights_are_prepared_once(network, monkeypatch):
    enhancer = Enhancer(network)
    enhancer(Frame(counts(), 7000, 9000))
    monkeypatch.setattr(DEAL, "fuse", lambda self: pytest.fail("fused again"))
    enhancer(Frame(counts(seed=1), 7000, 9000))
    assert not network.fused


def test_half_precision(network):
    x = torch.rand(1, 1, 40, 52)
    enhancer = Enhancer(network, precision="bf16")
    torch.testing.assert_close(enhancer.enhance_tensor(x, bf16=True), enhancer.enhance_tensor(x), rtol=0, atol=0.03)


@pytest.mark.parametrize("matrix_unit", [False, True])
def test_where_bfloat16_is_the_default(matrix_unit, network, each_device, monkeypatch):
    """For 8 bits on a GPU; on a CPU for deal-u alone, if there is a matrix unit."""
    monkeypatch.setattr(enhancer_module, "MATRIX_UNIT", matrix_unit)
    chosen = []
    for each in (DealU("deal-u-small"), network):
        enhancer = Enhancer(each, device=each_device)
        separate = enhancer.separate
        monkeypatch.setattr(
            enhancer, "separate", lambda x, bf16, lines, s=separate: chosen.append(bf16) or s(x, bf16=bf16)
        )
        for dtype in (numpy.uint8, numpy.uint16):
            enhancer(numpy.zeros((48, 64), dtype))
    assert chosen == ([matrix_unit, False, False, False] if each_device == "cpu" else [True, False, True, False])


def test_half_precision_that_overflows_is_done_again(network, each_device, monkeypatch):
    restored = DEAL.restored

    def overflows(self, x):
        result = restored(self, x)
        return result / 0 if torch.is_autocast_enabled(each_device) else result

    monkeypatch.setattr(DEAL, "restored", overflows)
    enhancer, x = Enhancer(network), torch.rand(1, 1, 40, 52)
    with pytest.warns(UserWarning, match="the result in bfloat16 is not finite"):
        result = enhancer.enhance_tensor(x, bf16=True)
    assert torch.equal(result, enhancer.enhance_tensor(x))


def test_small_frames(network):
    for shape in ((1, 1), (3, 40)):
        assert Enhancer(network)(Frame(bytes_of(*shape), 0, 255)).shape == shape


@pytest.mark.parametrize("scale", [2, 4])
def test_scale(silent, scale):
    pixels = counts(20, 26)
    result = Enhancer(silent, scale=scale)(Frame(pixels, 7000, 9000))
    larger = torch.nn.functional.interpolate(
        torch.from_numpy(pixels.astype(numpy.float64))[None, None], scale_factor=scale, mode="bicubic"
    )
    assert result.shape == (20 * scale, 26 * scale)
    assert abs(result - larger[0, 0].numpy().round()).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "scale must be one of 1, 2, 4; got 3"),
        ({"tile": -1}, "tile must be 'auto' or an integer of at least 0; got -1"),
        ({"precision": "fp16"}, "precision must be one of 'auto', 'fp32', 'bf16'; got 'fp16'"),
        ({"device": "abacus"}, "device must be 'auto' or a device of this machine; got 'abacus'"),
    ],
)
def test_errors(network, options, message):
    with pytest.raises(ValueError, match=message):
        Enhancer(network, **options)


PLACE = {1: "N", 2: (52.0, 30.0, 15.0)}


def with_place(path, orientation):
    """An image that says where it was taken, by which camera, and how it was held."""
    image = Image.fromarray(bytes_of(40, 52))
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "camera"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(PLACE)
    if path.suffix == ".tif":
        exif[ExifTags.IFD.GPSInfo] = {}
    image.save(path, exif=exif, dpi=(72, 72))


def enhance_to(source, target, network, window="auto"):
    """Makes the target from the source."""
    job = Job(source, target)
    with Batch([job]) as batch, batch.attempt(job):
        image = read_image(source, window)
        batch.save(job, image, Enhancer(network)(image.frame))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("to", [".png", ".tif"])
def test_exif_is_kept(tmp_path, silent, ending, to, orientation):
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{to}"
    with_place(source, orientation)
    enhance_to(source, target, silent)
    with open(source, "rb") as one, open(target, "rb") as other:
        before, after = Image.open(one), Image.open(other)
        exif = after.getexif()
        assert exif[ExifTags.Base.Model] == "camera"
        assert dict(exif.get_ifd(ExifTags.IFD.GPSInfo)) == PLACE
        assert [round(float(each)) for each in after.info["dpi"]] == [72, 72]
        for image in (before, after):
            image.load()  # which turns a TIFF
        upright = [numpy.array(ImageOps.exif_transpose(image)) for image in (before, after)]
    assert upright[0].shape == ((40, 52) if orientation == 1 else (52, 40))
    assert numpy.array_equal(*upright)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_16_bits_with_tags(tmp_path, silent, compression):
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[33550] = "radiometric", (0.5, 0.5, 0.0)
    tags.tagtype[33550] = 12
    pixels = counts(low=0, high=16384)
    Image.fromarray(pixels).save(source, tiffinfo=tags, compression=compression)
    enhance_to(source, target, silent)
    with Image.open(target) as image:
        assert image.mode == "I;16" and image.info["compression"] == compression
        assert image.tag_v2[270] == "radiometric" and tuple(image.tag_v2[33550]) == (0.5, 0.5, 0.0)
        assert numpy.array_equal(numpy.array(image), pixels)


def test_texts_of_png(tmp_path, silent):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Site", "north face")
    Image.fromarray(counts()).save(tmp_path / "a.png", pnginfo=texts)
    enhance_to(tmp_path / "a.png", tmp_path / "b.png", silent)
    with Image.open(tmp_path / "b.png") as image:
        assert image.text["Site"] == "north face"
        assert numpy.array_equal(numpy.array(image), counts())


def test_formats_that_hold_too_little(tmp_path):
    with pytest.raises(UnusableImage, match=r"cannot store uint16: JPEG stores uint8"):
        write_image(tmp_path / "a.jpg", counts())
    with pytest.raises(ValueError, match=r"ending of .*a.gif must be one of .png"):
        write_image(tmp_path / "a.gif", counts())
    assert not list(tmp_path.iterdir())


def test_pages_that_are_left_out_are_told(tmp_path, silent):
    pages = [Image.fromarray(counts(seed=seed)) for seed in (0, 1)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="only the first of 2 pages"):
        enhance_to(tmp_path / "a.tif", tmp_path / "b.tif", silent)


def test_values_that_are_not_finite(tmp_path, network):
    pixels = numpy.full((40, 40), 300, numpy.float32)
    pixels[3, 4] = numpy.nan
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UnusableImage, match=r"a\.tif has pixels that are not finite"):
        enhance_to(tmp_path / "a.tif", tmp_path / "b.tif", network, window=(200, 400))
    assert not (tmp_path / "b.tif").exists()


def test_load(tmp_path, network, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="this package has no bundled weights"):
        pretrained.load()
    (tmp_path / "weights").mkdir()
    network.save_pretrained(tmp_path / "weights" / "night.safetensors")
    for name in (None, "night", tmp_path / "weights" / "night.safetensors"):
        assert pretrained.load(name).config == network.config
    with pytest.raises(FileNotFoundError, match="day does not exist"):
        pretrained.load("day")
    larger = DEAL([("scale", 5, 3)], width=64)
    larger.save_pretrained(tmp_path / "weights" / "day.safetensors")
    assert pretrained.load().config == larger.config  # of several, the largest is the default
