"""Clips through `deal serve`: the endpoint and the page."""

import contextlib
import json
import signal
import threading
import time

import browser
import numpy
import pytest
import served
from conftest import DATA

from deal import cli
from deal.io.video import Clip, Decoded

av, httpx, *_ = map(served.imported, ("av", "httpx", "starlette", "uvicorn", "selenium.webdriver"))

M2VD = DATA / "data" / "m2vd" / "0111_1716.mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A short clip with stripes."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    random = numpy.random.default_rng(0)
    stripes, ramp = 10 * random.standard_normal(128), numpy.linspace(60, 180, 96)[:, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(12):
            pixels = (ramp + number + stripes).clip(0, 255).astype(numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "gray")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(folder):
    with served.command(folder, "--max-megabytes", "8") as address:
        yield address
    assert served.written(folder) == []


def frames_of(path):
    with Clip(path) as opened:
        return numpy.stack([item.pixels for item in opened.items() if isinstance(item, Decoded)])


def columns_of(frames):
    return abs(numpy.diff(frames.astype(numpy.float64).mean((0, 1)))).mean()


def test_the_result_is_the_clip_that_enhance_writes(address, folder, clip, tmp_path):
    expected = tmp_path / "expected.mp4"
    options = ["-i", str(clip), "-o", str(expected), "-m", "deal-u-small", "--threads", "1", "--quiet"]
    assert cli.main(["enhance", *options]) == 0
    answer = httpx.post(f"{address}enhance", content=clip.read_bytes(), timeout=120)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    (tmp_path / "result.mp4").write_bytes(answer.content)
    result = frames_of(tmp_path / "result.mp4")
    assert numpy.array_equal(result, frames_of(expected))
    assert columns_of(result) < columns_of(frames_of(clip)) / 3
    told = json.loads(answer.headers["deal-image"])
    assert (told["frames"], told["width"], told["height"], told["ending"]) == (12, 128, 96, ".mp4")
    assert served.written(folder) == []


def test_a_broken_clip_gives_the_frames_before_its_fault(address, folder, tmp_path):
    broken = httpx.post(f"{address}enhance", content=b"\0\0\0\x20ftypisom" + bytes(2000), timeout=120)
    assert broken.status_code == 422 and broken.json()["error"].startswith("the file cannot be read as a clip")
    none = httpx.post(f"{address}preview", content=b"RIFF\0\0\0\0AVI LIST", timeout=60)
    assert none.status_code == 422 and "/" not in none.json()["error"]
    with av.open(str(tmp_path / "cut.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(10):
            pixels = numpy.random.default_rng(number).integers(0, 256, (48, 64), numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "gray").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    whole = (tmp_path / "cut.avi").read_bytes()
    cut = httpx.post(f"{address}enhance", content=whole[: len(whole) * 6 // 10], timeout=120)
    assert cut.status_code == 200
    told = json.loads(cut.headers["deal-image"])
    assert 3 <= told["frames"] <= 7 and any("is broken after" in note for note in told["notes"])
    assert served.written(folder) == []


def test_a_client_that_goes_away_stops_its_clip(address, folder):
    if not M2VD.exists():
        served.missing(f"{M2VD} is not there")
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=httpx.Timeout(60, read=2)) as impatient:
        impatient.post(f"{address}enhance", content=M2VD.read_bytes())
    begin = time.monotonic()
    while httpx.get(f"{address}health").json()["requests"] or served.written(folder):
        assert time.monotonic() - begin < 30
        time.sleep(0.1)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_while_a_clip_is_computed(tmp_path, end):
    if not M2VD.exists():
        served.missing(f"{M2VD} is not there")

    def send():
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{address}enhance", content=M2VD.read_bytes(), timeout=60)

    with served.command(tmp_path, end=end) as address:
        sent = threading.Thread(target=send)
        sent.start()
        begin = time.monotonic()
        while not served.written(tmp_path):
            assert time.monotonic() - begin < 60
            time.sleep(0.1)
        begin = time.monotonic()
    assert time.monotonic() - begin < 30
    sent.join(60)
    assert served.written(tmp_path) == []


def test_a_clip_on_the_page(address, clip, tmp_path):
    with browser.opened(tmp_path) as driver:
        at = lambda id: driver.find_element("id", id)  # noqa: E731

        def wait(condition):
            begin = time.monotonic()
            while not condition():
                assert time.monotonic() - begin < 60, at("status").text
                time.sleep(0.1)

        driver.get(address)
        at("file").send_keys(str(clip))
        wait(lambda: at("status").text.startswith("Restored in "))
        assert at("caption").text.startswith("clip.mp4: 128 \N{MULTIPLICATION SIGN} 96, the first of 12 frames, uint8")
        assert not at("video").is_displayed()
        at("download").click()
        wait(lambda: at("status").text == "clip_restored.mp4 is downloaded.")
        wait((tmp_path / "downloads" / "clip_restored.mp4").exists)
        wait(lambda: driver.execute_script("return document.getElementById('video').videoWidth") == 128)
        assert at("video").is_displayed()
        assert len(frames_of(tmp_path / "downloads" / "clip_restored.mp4")) == 12
        assert [each for each in driver.get_log("browser") if each["level"] == "SEVERE"] == []
