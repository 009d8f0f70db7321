"""`deal enhance` in a pipe, as a user runs it: one image, and raw frames of a camera."""

import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest
import tifffile
import torch
from PIL import Image, PngImagePlugin

from deal import cli
from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.io.images import read_frame
from deal.io.raw import RawFormat

HEIGHT, WIDTH, COUNT = 48, 64, 4
COUNTS = RawFormat.parse(f"{WIDTH}x{HEIGHT}:y16le")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cameras.md"
LONG = 120  # seconds
SMALL = ("-m", "deal-u-small")


def command(*arguments, name="enhance"):
    # As many threads as here: the same sums in the same order.
    return [sys.executable, "-m", "deal", name, *arguments, "--threads", str(torch.get_num_threads())]


def deal(*arguments, given=b"", code=0, name="enhance"):
    """What a command says and writes."""
    done = subprocess.run(command(*arguments, name=name), input=given, capture_output=True, timeout=LONG)
    assert done.returncode == code, done.stderr
    return done


def frames(kind="y16le", count=COUNT):
    """Of a camera with a pattern of columns."""
    random = numpy.random.default_rng(0)
    scene = 8000 + 900 * numpy.sin(numpy.arange(HEIGHT)[:, None] / 9) * numpy.cos(numpy.arange(WIDTH) / 7)
    noisy = scene + 80 * random.standard_normal(WIDTH) + 20 * random.standard_normal((count, HEIGHT, WIDTH))
    raw = RawFormat.parse(f"{WIDTH}x{HEIGHT}:{kind}")
    values = noisy if raw.dtype.itemsize > 1 else (noisy - 6000) / 20
    values = numpy.stack([values] * 3, -1) if kind == "rgb24" else values
    return raw, list(values.astype(raw.dtype.newbyteorder("=")))


def as_bytes(raw, pixels):
    return b"".join(map(raw.encode, pixels))


@pytest.fixture
def deal_here(monkeypatch, capfdbinary):
    """The same as `deal` in this process, which is faster."""

    def run(*arguments, given=b"", code=0):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert cli.main(["enhance", *arguments]) == code
        said = capfdbinary.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with images in `in`, and with what the file route makes of them in `out`."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "in").mkdir()
    counts = frames()[1][0]
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("Camera", "number 7")
    notes.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    exif = Image.Exif()
    exif[271] = "A maker"
    exif.get_ifd(0x8825)[1] = "N"  # GPS: north
    Image.fromarray(counts).save(folder / "in" / "a.png", pnginfo=notes, exif=exif)
    tifffile.imwrite(
        folder / "in" / "b.tif", counts, photometric="minisblack", description="flight 3", software="a logger",
        extratags=[(65000, 4, 1, 77, True)],
    )  # fmt: skip
    Image.fromarray((counts // 40).astype(numpy.uint8)).save(folder / "in" / "c.jpg", exif=exif)
    numpy.save(folder / "in" / "d.npy", counts.astype(numpy.int16))
    deal("-i", str(folder / "in"), "-o", str(folder / "out"), *SMALL)
    return folder


@pytest.mark.parametrize("name", ["a.png", "b.tif", "c.jpg", "d.npy"])
def test_an_image_is_that_of_the_file_route(files, name, deal_here):
    run = deal if name in ("a.png", "b.tif") else deal_here
    done = run("-i", "-", "-o", "-", *SMALL, given=(files / "in" / name).read_bytes())
    assert done.stdout == (files / "out" / name).read_bytes() != (files / "in" / name).read_bytes()
    assert re.fullmatch(rb"1 done in [\d.]+ s\n", done.stderr)


@pytest.mark.parametrize("name", ["pages.tif", "pages.npy"])
@pytest.mark.parametrize("options", [(), ("--sequence",)])
def test_all_pages_pass(tmp_path, name, options, deal_here):
    source, target, stack = tmp_path / name, tmp_path / "out" / name, numpy.stack(frames()[1])
    numpy.save(source, stack) if name.endswith("npy") else tifffile.imwrite(source, stack, photometric="minisblack")
    assert cli.main(["enhance", "-i", str(source), "-o", str(target), "--quiet", *SMALL, *options]) == 0
    done = deal_here("-i", "-", "-o", "-", *SMALL, *options, given=source.read_bytes())
    assert done.stdout == target.read_bytes()
    deal_here("-i", "-", "-o", str(tmp_path / name), *SMALL, *options, given=source.read_bytes())
    assert source.read_bytes() == target.read_bytes()


def test_metadata_passes(files):
    """Which the file route writes, and so the pipe."""
    with Image.open(files / "out" / "a.png") as image:
        assert image.text["Camera"] == "number 7" and "xmpmeta" in image.text["XML:com.adobe.xmp"]
        assert image.getexif()[271] == "A maker" and image.getexif().get_ifd(0x8825)[1] == "N"
    with tifffile.TiffFile(files / "out" / "b.tif") as file:
        tags = file.pages[0].tags
        assert (tags[270].value, tags[305].value, tags[65000].value) == ("flight 3", "a logger", 77)
        assert file.asarray().dtype == numpy.uint16


def test_from_a_file_and_to_a_file(files, tmp_path, deal_here):
    """In the format that the file or --ext names."""
    done = deal("-i", str(files / "in" / "b.tif"), "-o", "-", "--quiet", *SMALL)
    assert (done.stdout, done.stderr) == ((files / "out" / "b.tif").read_bytes(), b"")
    target = tmp_path / "new" / "b.tif"
    done = deal_here("-i", "-", "-o", str(target), *SMALL, given=(files / "in" / "b.tif").read_bytes())
    assert target.read_bytes() == (files / "out" / "b.tif").read_bytes() and done.stdout == b""
    done = deal_here("-i", str(files / "in" / "b.tif"), "-o", "-", "--ext", "png", *SMALL)
    (tmp_path / "b.png").write_bytes(done.stdout)
    assert done.stdout.startswith(b"\x89PNG")
    assert numpy.array_equal(read_frame(tmp_path / "b.png").pixels, read_frame(files / "out" / "b.tif").pixels)


def test_degrade_in_a_pipe(files, tmp_path):
    deal("-i", str(files / "in" / "a.png"), "-o", str(tmp_path), name="degrade")
    done = deal("-i", "-", "-o", "-", name="degrade", given=(files / "in" / "a.png").read_bytes())
    assert done.stdout == (tmp_path / "a.png").read_bytes()


def test_a_format_that_is_only_read(deal_here, tmp_path):
    Image.fromarray(frames("y8")[1][0]).save(tmp_path / "a.webp", lossless=True)
    given = (tmp_path / "a.webp").read_bytes()
    assert b"name another one by --ext" in deal_here("-i", "-", "-o", "-", *SMALL, given=given, code=1).stderr
    assert deal_here("-i", "-", "-o", "-", "--ext", "tif", *SMALL, given=given).stdout.startswith(b"II*\0")


@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        ("y16le", (), {}),
        ("y16be", ("--no-sequence", "--strength", "0.5"), {"strength": 0.5}),
        ("s16le", ("--window", "7000", "9000", "--parts", "columns"), {"parts": ["columns"]}),
        ("f32be", ("--scale", "2"), {"scale": 2}),
        ("rgb24", ("--radiometric",), {"radiometric": True}),
    ],
)
def test_raw_frames_are_those_of_the_python_interface(kind, options, settings, deal_here):
    raw, given = frames(kind)
    done = deal_here("--raw", str(raw), "-i", "-", "-o", "-", *SMALL, *options, given=as_bytes(raw, given))
    enhancer = Enhancer("deal-u-small", device="cpu", **settings)
    process = enhancer if "--no-sequence" in options else Sequence(enhancer)
    window = (7000, 9000) if "--window" in options else "auto"
    expected = [process(frame, window) for frame in given]
    assert done.stdout == as_bytes(raw, expected) and not numpy.array_equal(expected[0], given[0])
    assert re.fullmatch(rb"4 frames, [\d.]+ frames a second; latency .* \(largest\)\n", done.stderr), done.stderr


def test_a_raw_file_is_a_stream_too_and_has_a_reference(deal_here, tmp_path):
    raw, given = frames()
    (tmp_path / "a.raw").write_bytes(as_bytes(raw, given))
    tifffile.imwrite(tmp_path / "shutter.tif", given[0])
    options = ("--raw", str(raw), "-o", "-", "--quiet", "--reference", str(tmp_path / "shutter.tif"), *SMALL)
    done = deal_here("-i", str(tmp_path / "a.raw"), *options)
    sequence = Sequence(Enhancer("deal-u-small", device="cpu", reference=[given[0]]))
    assert done.stdout == as_bytes(raw, [sequence(frame) for frame in given]) and done.stderr == b""


def test_the_format_of_raw_files_does_not_matter_to_pictures(files, tmp_path, deal_here):
    """Also where the only image of a folder is one."""
    shutil.copy(files / "in" / "a.png", tmp_path)
    done = deal_here("-i", str(tmp_path), "-o", "-", "--raw", "3x3:y8", *SMALL)
    assert done.stdout == (files / "out" / "a.png").read_bytes()


def read_within(stream, count, seconds=LONG):
    """So many bytes, or fewer if they do not come in time."""
    found = bytearray()

    def read():
        while len(found) < count and (more := stream.read(count - len(found))):
            found.extend(more)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds)
    return bytes(found)


def started(*arguments):
    return subprocess.Popen(
        command("--raw", str(COUNTS), "-i", "-", "-o", "-", *SMALL, *arguments), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip


def test_each_frame_is_out_before_the_next_is_sent():
    raw, given = frames()
    sequence = Sequence(Enhancer("deal-u-small", device="cpu"))
    with started() as process:
        try:
            for frame in given:
                process.stdin.write(raw.encode(frame))
                assert read_within(process.stdout, raw.frame_bytes) == raw.encode(sequence(frame))
            process.stdin.close()
            assert process.wait(LONG) == 0 and process.stdout.read() == b""
        finally:
            process.kill()


def test_a_reader_that_is_gone():
    """It ends quietly, as programs do that the system ends for it."""
    raw, given = frames()
    with started("--quiet") as process:
        try:
            process.stdin.write(raw.encode(given[0]))
            assert len(read_within(process.stdout, raw.frame_bytes)) == raw.frame_bytes
            process.stdout.close()
            with pytest.raises(BrokenPipeError):
                for _ in range(1000):
                    process.stdin.write(raw.encode(given[0]))
                    time.sleep(0.02)
            assert process.wait(LONG) == 141 and process.stderr.read() == b""
        finally:
            process.kill()


def test_interrupted():
    """The percentiles are said even so."""
    raw, given = frames()
    with started() as process:
        try:
            process.stdin.write(raw.encode(given[0]))
            assert len(read_within(process.stdout, raw.frame_bytes)) == raw.frame_bytes
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(LONG) == 130
            said = process.stderr.read()
            assert said.startswith(b"1 frame, ") and b"interrupted" in said and b"Traceback" not in said
        finally:
            process.kill()


def test_a_cut_last_frame():
    raw, given = frames()
    done = deal("--raw", str(raw), "-i", "-", "-o", "-", *SMALL, given=as_bytes(raw, given)[:-100], code=1)
    assert len(done.stdout) == 3 * raw.frame_bytes
    summary, error = done.stderr.decode().splitlines()
    assert summary.startswith("3 frames, ")
    assert error.endswith(f"after 3 whole frames {raw} come {raw.frame_bytes - 100} bytes of {raw.frame_bytes}")


def test_a_frame_that_cannot_be_enhanced(deal_here):
    raw, given = frames("f32le")
    given[1][5, 5] = numpy.nan
    options = ("--raw", str(raw), "-i", "-", "-o", "-", *SMALL)
    done = deal_here(*options, given=as_bytes(raw, given), code=1)
    assert len(done.stdout) == raw.frame_bytes and b"frame 2 of stdin has pixels that are not finite" in done.stderr
    done = deal_here(*options, "--keep-going", given=as_bytes(raw, given), code=1)
    found = [raw.decode(done.stdout, k) for k in range(COUNT)]
    assert len(done.stdout) == COUNT * raw.frame_bytes and b"passed on as it came" in done.stderr
    assert [numpy.array_equal(*pair, equal_nan=True) for pair in zip(found, given, strict=True)] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ("-i - -o -", b"", "stdin is empty"),
        ("-i - -o - --raw 64x48:y16le", b"", "stdin is empty"),
        ("-i - -o -", b"no image", "stdin cannot be read as an image: unknown format"),
        ("-i - -o -", b"\x89PNG\r\n\x1a\n", "stdin cannot be read as an image"),
        ("-i - -o - --raw 64x48:y15", b"", "the type of raw must be"),
        ("-i - a.png -o -", b"", "input must be - alone, or files; got - a.png"),
        ("-i in -o -", b"", "output must be a folder for 4 images; got -"),
        ("-i - -o folder", b"x", "output must be an image file, "),
        ("-i - -o a.png --ext tif", b"x", "output must be an image file, .tif, or -"),
        ("-i - -o - --suffix _e", b"x", "--suffix needs names of files"),
        ("-i - -o - --skip-existing", b"x", "--skip-existing needs names of files"),
        ("-i - -o a.tif --raw 64x48:y16le", b"x", "raw frames are written as they came"),
        ("-i - -o - --raw 64x48:y16le --ext tif", b"x", "raw frames are written as they came"),
    ],
)
def test_errors(options, given, message, files, deal_here, monkeypatch):
    """One line, nothing on standard output, and no file."""
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    done = deal_here(*options.split(), *SMALL, given=given, code=1)
    assert (done.stdout, sorted(files.iterdir())) == (b"", before)
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_a_terminal(files, end):
    terminal, other = pty.openpty()
    try:
        ends = {"stdin": other, "stdout": subprocess.PIPE} if end == "stdin" else {"stdout": other}
        if end == "stdout":
            ends["stdin"] = subprocess.DEVNULL
        done = subprocess.run(command("-i", "-", "-o", "-", *SMALL), stderr=subprocess.PIPE, timeout=LONG, **ends)
    finally:
        os.close(other)
        os.close(terminal)
    assert done.returncode == 1 and f"{end} is a terminal".encode() in done.stderr and done.stderr.count(b"\n") == 1


def test_what_other_code_prints_does_not_reach_the_image():
    script = """
import os
from deal.io.pipes import stdout_alone, write_all
print("before")
with stdout_alone() as file:
    print("noise")
    os.write(1, b"noise\\n")
    os.system("echo noise")
    write_all(file, b"image\\n" * 100_000)
print("after")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=LONG)
    assert done.stdout == b"before\n" + b"image\n" * 100_000 + b"after\n" and done.stderr == 3 * b"noise\n"


def test_ffmpeg(tmp_path):
    """The command of the documentation, for small frames."""
    if shutil.which("ffmpeg") is None:
        missing = pytest.fail if os.environ.get("DEAL_TEST_DATA_REQUIRED") else pytest.skip
        missing("ffmpeg is not installed")
    raw, given = frames()
    video = ("-f", "rawvideo", "-pix_fmt", "gray16le", "-video_size", f"{WIDTH}x{HEIGHT}")
    subprocess.run(
        ["ffmpeg", "-v", "error", *video, "-i", "-", "-c:v", "ffv1", tmp_path / "flight.mkv"], check=True,
        input=as_bytes(raw, given), timeout=LONG,
    )  # fmt: skip
    [documented] = re.findall(r"^ffmpeg .*?enhanced\.mkv$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert documented.count("640x512") == 2 and "| deal enhance " in documented
    line = documented.replace("640x512", f"{WIDTH}x{HEIGHT}").replace("| deal ", f"| {sys.executable} -m deal ")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        ["bash", "-c", f"set -e -o pipefail; {line}"], cwd=tmp_path, env=environment, check=True, timeout=LONG
    )
    back = ["ffmpeg", "-v", "error", "-i", tmp_path / "enhanced.mkv", "-f", "rawvideo", "-pix_fmt", "gray16le", "-"]
    found = subprocess.run(back, capture_output=True, check=True, timeout=LONG).stdout
    sequence = Sequence(Enhancer(device="cpu"))
    assert found == as_bytes(raw, [sequence(frame) for frame in given])
