"""Every type of value that TIFF, .npy and files without a header hold: read as it is, and written as it was."""

import struct
import subprocess
import sys

import numpy
import pytest
import tifffile
from PIL import Image

from deal.io import tiff
from deal.io.images import UnusableImage, read_frame, read_image
from deal.io.raw import KINDS, RawFormat
from deal.io.values import TYPES
from deal.io.writers import write_image

HEIGHT, WIDTH = 40, 52


def values(dtype, shape=(HEIGHT, WIDTH)):
    """All over the range of the type, as far as float64 is exact."""
    dtype, random = numpy.dtype(dtype), numpy.random.default_rng(0)
    if dtype.kind == "f":
        return (random.random(shape) * 60 - 20).astype(dtype)
    bits = min(8 * dtype.itemsize, 53) - (dtype.kind == "i")
    low = -(2**bits) if dtype.kind == "i" else 0
    return random.integers(low, 2**bits - 1, shape, dtype=numpy.int64).astype(dtype)


def same(one, other):
    return one.dtype == other.dtype and numpy.array_equal(one, other)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("grey", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", TYPES)
def test_tiff_keeps_types(tmp_path, dtype, grey, order):
    """What another program writes is read, written, and read by that program again, and shown as before."""
    pixels, path, copy = values(dtype), tmp_path / "a.tif", tmp_path / "b.tif"
    tifffile.imwrite(path, pixels, photometric=grey, byteorder=order)
    image = read_image(path, (0, 1))
    shown = (
        255 - pixels if (dtype, grey) == ("uint8", "miniswhite") else pixels
    )  # Pillow makes pictures upright in grey
    assert same(image.frame.pixels, shown)
    write_image(copy, image.frame.pixels, image.metadata)
    with tifffile.TiffFile(copy) as file:
        assert same(file.asarray(), shown)
        kept = "MINISWHITE" if grey == "miniswhite" and dtype != "uint8" else "MINISBLACK"
        assert file.pages[0].photometric.name == kept
    assert same(read_frame(copy, (0, 1)).pixels, shown)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}], ids=["whole", "tiles", "strips"])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(("dtype", "predictor"), [("int16", 2), ("float64", 1), ("int64", 2), ("uint32", 2)])
def test_compressed_tiff(tmp_path, dtype, predictor, layout, order, big):
    pixels, path = values(dtype), tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels, compression="zlib", predictor=predictor, byteorder=order, bigtiff=big, photometric="minisblack",
        **layout,
    )  # fmt: skip
    assert same(read_frame(path, (0, 1)).pixels, pixels)


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_floating_point_predictor(tmp_path, dtype, tile):
    """Each row has the differences of its bytes, the highest bytes of all values first (Adobe, technical note 3)."""
    pixels, path = values(dtype), tmp_path / "a.tif"
    size = pixels.dtype.itemsize

    def differences(block):
        planes = block.astype(block.dtype.newbyteorder(">")).view(numpy.uint8).reshape(len(block), -1, size)
        row = planes.transpose(0, 2, 1).reshape(len(block), -1)
        return numpy.diff(row, axis=1, prepend=numpy.uint8(0)).view(dtype)

    side = 32
    padded = numpy.pad(pixels, ((0, 64 - HEIGHT), (0, 64 - WIDTH)))
    stored = differences(pixels)
    if tile:
        stored = numpy.block([[differences(padded[r : r + side, c : c + side]) for c in (0, side)] for r in (0, side)])
    tifffile.imwrite(
        path, stored, compression="zlib", photometric="minisblack", **({"tile": (side, side)} if tile else {})
    )
    content = bytearray(path.read_bytes())
    page = next(tiff._pages(content))
    if tile:
        page.set(tiff.WIDTH, WIDTH)
        place = page.at[257]  # ImageLength
        content[place + 2 : place + 12] = struct.pack("<HIHH", 3, 1, HEIGHT, 0)
    # The tag Predictor takes the place of one that nobody needs, Software (305) or XResolution (282).
    place = page.at[305]
    content[place : place + 12] = struct.pack("<HHIHH", tiff.PREDICTOR, 3, 1, 3, 0)
    path.write_bytes(content)
    assert same(read_frame(path, (0, 1)).pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_tiff(tmp_path, orientation):
    """As Pillow turns those that it reads by itself."""
    pixels = values("int16")
    upright = []
    for dtype in ("uint16", "int16"):
        path = tmp_path / f"{dtype}.tif"
        tifffile.imwrite(
            path, pixels.astype(dtype), photometric="minisblack", extratags=[(274, 3, 1, orientation, True)]
        )
        upright.append(read_frame(path, (0, 1)).pixels)
    assert same(*(each.astype("int16") for each in upright))


def test_pages_have_their_own_types(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for dtype in ("uint8", "int16", "float64", "uint16"):
            file.write(values(dtype), photometric="minisblack")
    with pytest.warns(UserWarning, match="only the first of 4 pages is read"):
        assert same(read_image(tmp_path / "a.tif").frame.pixels, values("uint8"))
    for page, dtype in enumerate(("uint8", "int16", "float64", "uint16")):
        assert same(read_image(tmp_path / "a.tif", (0, 1), page=page).frame.pixels, values(dtype))
    with pytest.raises(UnusableImage, match=r"a.tif has 4 pages; page 4 was asked for"):
        read_image(tmp_path / "a.tif", page=4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (values("uint8").astype(complex), r"SampleFormat 6 .* store it with one sample of 8 to 64 bits"),
        (values("float32", (HEIGHT, WIDTH, 3)), r"3 samples of 32 bits, SampleFormat 3"),
        (
            numpy.full((HEIGHT, WIDTH), 2**60),
            r"pixels must be integers of at most 2\*\*53; got .*: subtract an offset first",
        ),
    ],
    ids=["complex", "colours", "large"],
)
def test_what_is_not_read_is_said(tmp_path, pixels, message):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    with pytest.raises(UnusableImage, match=rf"a.tif cannot be read as an image: .*{message}"):
        read_frame(tmp_path / "a.tif")


def test_big_endian_bigtiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values("uint16"), bigtiff=True, byteorder=">")
    with pytest.raises(
        UnusableImage, match=r"a.tif .*: a BigTIFF with the highest bytes first; store it with the lowest"
    ):
        read_frame(tmp_path / "a.tif")


def test_a_description_of_another_size_is_not_kept(tmp_path):
    """tifffile and ImageJ note the size in the description, and cannot read a result that has another one."""
    tifffile.imwrite(tmp_path / "a.tif", values("uint16", (5, HEIGHT, WIDTH)), metadata={})
    with pytest.warns(UserWarning, match="only the first of 5 pages"):
        image = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "b.tif", image.frame.pixels, image.metadata)
    assert same(tifffile.imread(tmp_path / "b.tif"), image.frame.pixels)


def test_white_is_zero_looks_the_same_in_other_formats(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values("uint16"), photometric="miniswhite")
    image = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "b.png", image.frame.pixels, image.metadata)
    with Image.open(tmp_path / "b.png") as shown:
        assert same(numpy.array(shown), 65535 - values("uint16"))


def test_missing_values_do_not_widen_the_window(tmp_path):
    pixels = values("float32")
    pixels[:10] = -3.4e38
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(UnusableImage, match=r"a.tif has values from -3.4e\+38 .*: give a window of two numbers"):
        read_frame(tmp_path / "a.tif")
    assert same(read_frame(tmp_path / "a.tif", (-20, 40)).pixels, pixels)


@pytest.mark.parametrize("dtype", TYPES)
def test_npy(tmp_path, dtype):
    numpy.save(tmp_path / "a.npy", values(dtype))
    image = read_image(tmp_path / "a.npy", (0, 1))
    write_image(tmp_path / "b.npy", image.frame.pixels, image.metadata)
    assert same(numpy.load(tmp_path / "b.npy"), values(dtype))


def test_other_npy(tmp_path):
    numpy.save(tmp_path / "a.npy", values(">u2"))
    assert same(read_frame(tmp_path / "a.npy").pixels, values("uint16"))
    stack = values("uint16", (3, HEIGHT, WIDTH))
    numpy.save(tmp_path / "a.npy", stack)
    assert same(read_image(tmp_path / "a.npy", page=2).frame.pixels, stack[2])
    for array, message in (
        (numpy.zeros(4), r"must be \[H, W\], \[H, W, 3\] or \[N, H, W\]; got the shape \(4,\)"),
        (numpy.zeros((0, 4)), r"got the shape \(0, 4\)"),
        (numpy.zeros((4, 4), bool), "pixels must be one of uint8, .*; got bool"),
    ):
        numpy.save(tmp_path / "a.npy", array)
        with pytest.raises(UnusableImage, match=rf"a.npy cannot be read as an image: .*{message}"):
            read_frame(tmp_path / "a.npy")


def test_npy_takes_no_memory_for_what_is_not_there(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.zeros((4, 4)))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(4, 4), }" + b" " * 12, b"(400000, 400000), }  ")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UnusableImage, match=r"a.npy cannot be read as an image"):
        read_frame(tmp_path / "a.npy")


def test_npy_runs_no_pickle(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.array([[{}]]), allow_pickle=True)
    with pytest.raises(UnusableImage, match=r"a.npy cannot be read as an image"):
        read_frame(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", KINDS)
def test_raw(tmp_path, kind):
    form = RawFormat.parse(f"{WIDTH}x{HEIGHT}:{kind}")
    pixels = values(form.dtype.newbyteorder("="), (2, *form.shape))
    (tmp_path / "a.raw").write_bytes(pixels.astype(form.dtype).tobytes())
    for page in (0, 1):
        image = read_image(tmp_path / "a.raw", (0, 1), page=page, raw=form)
        assert same(image.frame.pixels, pixels[page]) and image.pages == 2
        write_image(tmp_path / "b.raw", image.frame.pixels, image.metadata)
        assert (tmp_path / "b.raw").read_bytes() == form.encode(pixels[page])


def test_raw_errors(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(101))
    with pytest.raises(
        UnusableImage, match=r"a.raw cannot be read .*: name its size and type by --raw, such as 640x512"
    ):
        read_frame(tmp_path / "a.raw")
    with pytest.raises(
        UnusableImage, match=r"a.raw .*: 101 bytes are no whole number of frames 10x5:y16le, of 100 bytes"
    ):
        read_image(tmp_path / "a.raw", raw=RawFormat.parse("10x5:y16le"))
    for text in ("10x5", "10:y8", "0x5:y8", "10 x 5:y8", "10x-5:y8", "10x5:y8:", ""):
        with pytest.raises(ValueError, match=r"raw must be WIDTHxHEIGHT:TYPE, such as 640x512:y16le; got"):
            RawFormat.parse(text)
    with pytest.raises(ValueError, match="the type of raw must be one of 'y8', .*; got 'y12le'"):
        RawFormat.parse("10x5:y12le")
    with pytest.raises(ValueError, match="raw y16le holds uint16; got uint8"):
        RawFormat.parse("10x5:y16le").encode(values("uint8"))


def test_types_that_a_format_cannot_hold(tmp_path):
    with pytest.raises(UnusableImage, match=r"cannot store int16: PNG stores uint8, uint16, and TIFF every type"):
        write_image(tmp_path / "a.png", values("int16"))
    with pytest.raises(UnusableImage, match=r"cannot store colours of uint16, only of uint8; .npy can"):
        write_image(tmp_path / "a.tif", values("uint16", (4, 5, 3)))
    with pytest.raises(UnusableImage, match=r"a.jpg cannot be written as JPEG"):
        write_image(tmp_path / "a.jpg", numpy.zeros((65501, 1), numpy.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:")
@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_damaged_tags(tmp_path, cut):
    """Any byte of the directory may be wrong: the file is read, or refused by one error."""
    tifffile.imwrite(tmp_path / "a.tif", values("int16"), photometric="minisblack")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[cut] ^= 0xFF
    (tmp_path / "b.tif").write_bytes(content)
    try:
        read_image(tmp_path / "b.tif", (0, 1))
    except UnusableImage as error:
        assert "b.tif" in str(error)


def test_a_folder_of_arrays_from_the_command_line(tmp_path):
    (tmp_path / "in").mkdir()
    numpy.save(tmp_path / "in" / "a.npy", 2000 + values("uint8").astype(numpy.int16))
    (tmp_path / "in" / "b.raw").write_bytes(values("uint16").tobytes())
    tifffile.imwrite(tmp_path / "in" / "c.tif", values("float32"))
    command = [sys.executable, "-m", "deal", "enhance", "-i", "in", "-o", "out", "-m", "deal-u-small"]
    done = subprocess.run(
        [*command, "--raw", f"{WIDTH}x{HEIGHT}:y16le"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0 and "3 done" in done.stdout, done.stderr
    assert numpy.load(tmp_path / "out" / "a.npy").dtype == numpy.int16
    assert (tmp_path / "out" / "b.raw").stat().st_size == 2 * HEIGHT * WIDTH
    result = tifffile.imread(tmp_path / "out" / "c.tif")
    assert result.dtype == numpy.float32 and abs(result.mean() - values("float32").mean()) < 0.1


def test_damaged_metadata_is_left_out(tmp_path, monkeypatch):
    def damaged(self):
        raise SyntaxError("not a TIFF file")

    Image.fromarray(values("uint8")).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "getexif", damaged)
    with pytest.warns(UserWarning, match=r"a.jpg: its metadata is damaged and left out: not a TIFF file"):
        image = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.png", image.frame.pixels, image.metadata)
    assert same(read_frame(tmp_path / "b.png").pixels, image.frame.pixels)


def test_metadata_that_cannot_be_written_is_left_out(tmp_path):
    Image.fromarray(values("uint16")).save(tmp_path / "a.tif", tiffinfo={270: "roof"})
    image = read_image(tmp_path / "a.tif")
    image.metadata.tiff_tags.tagtype[270] = 12  # which is a number
    with pytest.warns(UserWarning, match=r"b.tif is without the metadata of its source, which cannot be written"):
        write_image(tmp_path / "b.tif", image.frame.pixels, image.metadata)
    assert same(read_frame(tmp_path / "b.tif").pixels, values("uint16"))


def test_a_reference_from_the_command_line(tmp_path):
    """A pattern in the frames of the shutter and in the frame is gone, also one that is no pattern of columns."""
    pattern = (300 * numpy.random.default_rng(3).standard_normal((HEIGHT, WIDTH))).astype(int)
    for number in range(2):
        Image.fromarray((30000 + pattern).astype(numpy.uint16)).save(tmp_path / f"shutter{number}.tif")
    Image.fromarray((29000 + pattern).astype(numpy.uint16)).save(tmp_path / "frame.tif")
    command = [sys.executable, "-m", "deal", "enhance", "-i", "frame.tif", "-o", "out", "-m", "deal-u-small"]
    done = subprocess.run(
        [*command, "--reference", "shutter0.tif", "shutter1.tif"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = tifffile.imread(tmp_path / "out" / "frame.tif").astype(float)
    assert abs(result - 29000 - pattern.mean()).max() <= 2
    numpy.save(tmp_path / "frame.npy", numpy.zeros((HEIGHT, WIDTH), numpy.float32))
    command[command.index("frame.tif")] = "frame.npy"
    done = subprocess.run(
        [*command, "--reference", "shutter0.tif"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    message = (
        f"frame.npy has {HEIGHT} x {WIDTH} pixels of float32, and the reference {HEIGHT} x {WIDTH} pixels of uint16"
    )
    assert done.returncode == 1 and message in done.stderr
