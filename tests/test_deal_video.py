"""Clips through `deal enhance`, as a user sends them."""

import csv
import os
import re
import sys
from fractions import Fraction

import numpy
import pytest
from conftest import DATA
from peak_memory import peak_of_enhance

from deal import cli
from deal.inference.enhancer import Enhancer
from deal.inference.sequence import Sequence
from deal.io.clip_frames import ColourOrGrey, to_video
from deal.io.clip_length import is_cut
from deal.io.synthetic import SyntheticScenes
from deal.io.values import UnusableImage
from deal.io.video import Clip, Decoded, rewrite

av = pytest.importorskip("av")
MODEL = "deal-u-small"
HEIGHT, WIDTH = 48, 64
M2VD = DATA / "data" / "m2vd" / "0111_1716.mp4"


def scene(count, *, pattern=0.04):
    """Frames of a pan in [0, 1], with a fixed pattern of columns."""
    wide = SyntheticScenes(1, HEIGHT, WIDTH + count, seed=3)[0][0].numpy()
    columns = pattern * numpy.random.default_rng(0).standard_normal(WIDTH)
    return [(0.1 + 0.8 * wide[:, k : k + WIDTH] + columns).clip(0, 1) for k in range(count)]


def eight_bits(count):
    return [(255 * frame).round().astype(numpy.uint8) for frame in scene(count)]


def sixteen_bits(count):
    return [(7000 + 4000 * frame).round().astype(numpy.uint16) for frame in scene(count)]


def write(path, frames, codec="libx264", stored="yuv420p", *, times=None, sound=False, title=None, options=None):
    """A clip at 25 frames a second, or with these time stamps in milliseconds."""
    with av.open(str(path), "w", options={} if options is None else options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = stored
        base = Fraction(1, 1000) if times else Fraction(1, 25)
        stream.codec_context.time_base = base
        voice = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        if title:
            container.metadata["title"] = title
        kind = {"uint8": "gray", "uint16": "gray16le"}[str(frames[0].dtype)] if frames[0].ndim == 2 else "rgb24"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, kind)
            frame.pts, frame.time_base = times[number] if times else number, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            random = numpy.random.default_rng(0)
            for number in range(30):
                noise = random.uniform(-0.1, 0.1, (1, 1024)).astype(numpy.float32)
                frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * number, Fraction(1, 48000)
                container.mux(voice.encode(frame))
            container.mux(voice.encode())


def read(path):
    """Frames and their times in seconds."""
    with Clip(path) as clip:
        items = [item for item in clip.items() if isinstance(item, Decoded)]
        assert not clip.fault
    return [item.pixels for item in items], [item.frame.pts * item.frame.time_base for item in items]


def packets(path, kind):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def enhance(source, to, *more):
    command = ["enhance", "-i", str(source), "-o", str(to), "-m", MODEL, "--threads", "1", *more]
    return cli.main(command)


def rows(folder):
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return {row["source"].rpartition("/")[2]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def enhancer():
    return Enhancer(MODEL, device="cpu")


def test_time_stamps_sound_and_metadata(tmp_path, capsys):
    """Also those of a clip without a constant rate."""
    times = [0, 40, 80, 150, 190, 300, 310, 400]
    write(tmp_path / "a.mp4", eight_bits(8), times=times, sound=True, title="flight 7")
    assert enhance(tmp_path / "a.mp4", tmp_path / "b.mp4") == 0
    said = capsys.readouterr()
    assert said.out.startswith("1 done in ") and re.search(r"a\.mp4: .*[1-8]/8 .*frame/s", said.err)
    assert read(tmp_path / "b.mp4")[1] == read(tmp_path / "a.mp4")[1] == [Fraction(each, 1000) for each in times]
    assert packets(tmp_path / "b.mp4", "audio") == packets(tmp_path / "a.mp4", "audio")
    with av.open(str(tmp_path / "b.mp4")) as container:
        [stream] = container.streams.video
        assert container.metadata["title"] == "flight 7"
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_frame_rate(tmp_path):
    write(tmp_path / "a.mp4", eight_bits(6))
    assert enhance(tmp_path / "a.mp4", tmp_path / "b.mp4", "--quiet") == 0
    rates = []
    for name in ("a.mp4", "b.mp4"):
        with av.open(str(tmp_path / name)) as container:
            rates.append((container.streams.video[0].average_rate, container.duration))
    assert rates[0] == rates[1] and rates[0][0] == 25


def test_a_clip_is_a_sequence(tmp_path, enhancer):
    frames = eight_bits(6)
    write(tmp_path / "a.mkv", frames, "ffv1", "gray")
    for options, expected in (
        ((), Sequence(enhancer)(numpy.stack(frames))),
        (("--no-sequence",), enhancer(numpy.stack(frames))),
    ):
        assert enhance(tmp_path / "a.mkv", tmp_path / "b.mkv", "--quiet", *options) == 0
        assert numpy.array_equal(read(tmp_path / "b.mkv")[0], expected)


@pytest.mark.parametrize("stored", ["gray16le", "gray10le", "gray12le"])
def test_counts_are_kept(tmp_path, enhancer, stored):
    """Frames of more than 8 bits come and go without loss, between the lowest and the highest value of their type."""
    bits = int(re.search(r"\d+", stored)[0])
    frames = [numpy.uint16(((1 << bits) - 1) * frame) for frame in scene(3)]
    frames[1][:4] = 0
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, stored
        empty = av.VideoFrame(WIDTH, HEIGHT, stored)
        for number, pixels in enumerate(frames):
            frame = to_video(pixels, empty, stored)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert numpy.array_equal(read(path)[0], frames)
    assert enhance(path, tmp_path / "b.mkv", "--quiet") == 0
    expected = Sequence(enhancer)(numpy.stack(frames)).clip(0, (1 << bits) - 1)
    assert numpy.array_equal(read(tmp_path / "b.mkv")[0], expected)
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == stored


@pytest.mark.parametrize(
    ("name", "codec", "stored", "becomes"),
    [
        ("a.avi", "mpeg4", "yuv420p", "mpeg4"), ("a.mkv", "mpeg4", "yuv420p", "h264"),
        ("a.mov", "mjpeg", "yuvj420p", "mjpeg"), ("a.mjpeg", "mjpeg", "yuvj420p", "mjpeg"),
        ("a.mkv", "ffv1", "bgr0", "ffv1"), ("a.avi", "rawvideo", "gray", "ffv1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_codecs(tmp_path, name, codec, stored, becomes, colour):
    """A clip that is written unchanged hardly differs; without loss it does not."""
    frames = eight_bits(5)
    if colour:
        stored = "bgr24" if codec == "rawvideo" else stored
        frames = [numpy.stack([frame, 255 - frame // 2, frame // 3], 2).repeat(2, 0).repeat(2, 1) for frame in frames]
    write(tmp_path / name, frames, codec, stored, options={})
    before, times = read(tmp_path / name)
    (tmp_path / "out").mkdir()
    with Clip(tmp_path / name) as clip:
        assert rewrite(clip, tmp_path / "out" / name, lambda pixels: pixels) == 5
        assert clip.expected in (5, None)
    after, later = read(tmp_path / "out" / name)
    assert later == times and {each.shape for each in before} == {frames[0].shape}
    loss = numpy.abs(numpy.stack(after).astype(float) - numpy.stack(before))
    assert loss.max() == 0 if becomes == "ffv1" else loss.mean() < 2
    with av.open(str(tmp_path / "out" / name)) as container:
        assert container.streams.video[0].codec_context.name == becomes


def test_odd_sides_and_scale(tmp_path):
    frames = [frame[:45, :63] for frame in eight_bits(2)]
    write(tmp_path / "a.mkv", frames, "ffv1", "yuv420p")
    with Clip(tmp_path / "a.mkv") as clip:
        rewrite(clip, tmp_path / "b.mp4", lambda pixels: pixels)
    assert [each.shape for each in read(tmp_path / "b.mp4")[0]] == 2 * [(45, 63)]
    assert enhance(tmp_path / "a.mkv", tmp_path / "c.mp4", "--scale", "2", "--quiet") == 0
    assert read(tmp_path / "c.mp4")[0][0].shape == (90, 126)


def test_colours_from_the_first_frame_that_has_any():
    grey, colour = (
        av.VideoFrame.from_ndarray(numpy.full((16, 16, 3), (90, 90, each), numpy.uint8)) for each in (90, 10)
    )
    seen = ColourOrGrey("a clip")
    shapes = [seen.pixels(frame.reformat(format="yuv420p")).shape for frame in (grey, colour, grey)]
    assert shapes == [(16, 16), (16, 16, 3), (16, 16, 3)]


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this release of av cannot write it")
def test_rotation(tmp_path):
    write(tmp_path / "a.mp4", eight_bits(1))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as turned:
        copy = turned.add_stream_from_template(source.streams.video[0])
        copy.set_display_rotation(90)
        for packet in source.demux():
            if packet.size:
                packet.stream = copy
                turned.mux(packet)
    with Clip(tmp_path / "b.mp4") as clip:
        rewrite(clip, tmp_path / "c.mp4", lambda pixels: pixels)
    angles = []
    for name in ("b.mp4", "c.mp4"):
        with Clip(tmp_path / name) as clip:
            angles.append(next(clip.items()).frame.rotation)
    assert angles[0] == angles[1] and abs(angles[0]) == 90


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.mjpeg"])
def test_a_cut_clip(tmp_path, capsys, name):
    """The frames before the fault are in a whole file, and the fault is told in one line."""
    options = {"movflags": "faststart"} if name in ("a.mp4", "a.mov") else {}
    write(tmp_path / name, eight_bits(20), "mjpeg", "yuvj420p", options=options)
    assert not is_cut(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content[: len(content) * 6 // 10])
    assert is_cut(tmp_path / "in" / name)
    assert enhance(tmp_path / "in" / name, tmp_path / f"one-{name}", "--quiet", "--no-sequence") == 1
    said = capsys.readouterr().err
    found = re.fullmatch(r"deal: error: \S+ is broken after (\d+) frames, which are in \S+: .+\n", said)
    assert found and 5 < int(found[1]) < 19
    frames, times = read(tmp_path / f"one-{name}")
    whole, all_times = read(tmp_path / name)
    assert len(frames) == int(found[1]) and times == all_times[: len(times)]
    # A batch goes on with --keep-going.
    write(tmp_path / "in" / "z.mkv", whole[:2], "ffv1", "gray")
    assert enhance(tmp_path / "in", tmp_path / "out", "--keep-going", "--quiet") == 1
    table = rows(tmp_path / "out")
    assert (table[name]["status"], table["z.mkv"]["status"], table["z.mkv"]["message"]) == (
        "failed",
        "done",
        "2 frames",
    )
    assert f"is broken after {found[1]} frames" in table[name]["message"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([name, "manifest.csv", "z.mkv"])


def test_what_is_no_clip(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1\n/etc/hostname\n")  # names other files to read
    write(tmp_path / "b.mkv", sixteen_bits(2), "ffv1", "gray16le")
    for source, to, message in (
        ("a.mp4", "c.mp4", "a.mp4 cannot be read as a clip: it is no MP4"),
        ("b.mkv", "c.png", "c.png cannot hold a clip: the ending must be one of .mp4"),
        ("b.mkv", "c.mjpeg", "c.mjpeg cannot hold more than 8 bits; .mkv can"),
    ):
        assert enhance(tmp_path / source, tmp_path / to, "--quiet") == 1
        assert message in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mkv"]


def test_a_frame_that_fails_leaves_no_file(tmp_path):
    write(tmp_path / "a.mkv", eight_bits(5), "ffv1", "gray")
    seen = []

    def change(pixels):
        seen.append(pixels)
        if len(seen) == 3:
            raise UnusableImage("frame 3")
        return pixels

    with Clip(tmp_path / "a.mkv") as clip, pytest.raises(UnusableImage, match="frame 3"):
        rewrite(clip, tmp_path / "b.mkv", change)
    assert os.listdir(tmp_path) == ["a.mkv"]


def test_a_budget_for_a_clip(tmp_path, capsys):
    """Its first frame tells which network holds the budget."""
    write(tmp_path / "a.mkv", eight_bits(3), "ffv1", "gray")
    command = ["enhance", "-i", str(tmp_path / "a.mkv"), "-o", str(tmp_path / "b.mkv"), "--budget", "60000"]
    assert cli.main([*command, "--threads", "1"]) == 0
    said = capsys.readouterr().err
    assert f"a frame of {WIDTH} x {HEIGHT}, within 60000 ms" in said and "3 frames, " in said


def test_without_av(tmp_path, capsys, monkeypatch):
    write(tmp_path / "a.mkv", eight_bits(1), "ffv1", "gray")
    monkeypatch.setitem(sys.modules, "av", None)
    assert enhance(tmp_path / "a.mkv", tmp_path / "b.mkv", "--quiet") == 1
    said = capsys.readouterr().err
    assert "clips are read by the package av: pip install 'deal-kernels[video]'" in said and said.count("\n") == 1


def test_clips_beside_images(tmp_path):
    """Clips keep their ending where --ext names that of images, and other commands leave them out."""
    from PIL import Image

    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mkv", eight_bits(2), "ffv1", "gray")
    Image.fromarray(eight_bits(1)[0]).save(tmp_path / "in" / "b.png")
    assert enhance(tmp_path / "in", tmp_path / "out", "--ext", "tif", "--quiet") == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["a.mkv", "b.tif", "manifest.csv"]
    assert enhance(tmp_path / "in" / "*.mkv", tmp_path / "pattern", "--quiet") == 0
    assert cli.main(["degrade", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "bad"), "--quiet"]) == 0
    assert sorted(os.listdir(tmp_path / "bad")) == ["b.png", "manifest.csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_length(tmp_path):
    """Were 450 frames kept, in any form, it would grow by 30 MB."""
    peaks = []
    for count in (50, 500):
        frames = [numpy.tile(frame, (2, 2)) for frame in sixteen_bits(25)]
        write(tmp_path / f"{count}.mkv", count // 25 * frames, "ffv1", "gray16le")
        peaks.append(peak_of_enhance(tmp_path / f"{count}.mkv", tmp_path / f"out{count}.mkv"))
    assert len(read(tmp_path / "out500.mkv")[0]) == 500
    assert peaks[1] < 1.1 * peaks[0], peaks


@pytest.mark.skipif(not M2VD.exists(), reason="set DEAL_TEST_DATA to the folder that holds data/")
def test_a_real_clip(tmp_path):
    """The first frames of a clip of a drone, which is stored with colours and is grey."""
    with av.open(str(M2VD)) as source, av.open(str(tmp_path / "a.mp4"), "w") as short:
        copy = short.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[:6]:
            packet.stream = copy
            short.mux(packet)
    before, times = read(tmp_path / "a.mp4")
    assert before[0].shape == (480, 640)
    assert enhance(tmp_path / "a.mp4", tmp_path / "b.mp4", "--quiet") == 0
    after, later = read(tmp_path / "b.mp4")
    assert later == times and len(after) == len(before)
    expected = Sequence(Enhancer(MODEL, device="cpu"))(numpy.stack(before))
    assert numpy.abs(numpy.stack(after).astype(float) - expected).mean() < 2
