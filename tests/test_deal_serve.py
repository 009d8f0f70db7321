"""The endpoint of `deal serve`: its results, its errors, hostile requests, and its queue."""

import io
import json
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy
import pytest
import served
from PIL import Image

from deal import cli
from deal.io.images import read_frame, read_frames

httpx, *_ = map(served.imported, ("httpx", "starlette", "uvicorn"))

from deal.serve import body  # noqa: E402
from deal.serve.app import Limits, application  # noqa: E402
from deal.serve.restorer import Remembering, Restorer, Result  # noqa: E402

FRAME = served.ROOT / "deal" / "frames" / "0112_1732_0423.png"


@pytest.fixture(scope="module")
def restorer():
    return Restorer(Remembering("deal-u-small", device="cpu"))


@pytest.fixture
def client(restorer):
    with served.in_thread(application(restorer)) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    numpy.save(file, pixels) if kind == "NPY" else Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def counts(height=48, width=64):
    return numpy.random.default_rng(0).integers(7000, 9000, (height, width), numpy.uint16)


def error_of(answer):
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["error"]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming_png(width, height):
    """A PNG of few bytes that claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("ending", "media_type", "pixels"),
    [
        ("png", "image/png", counts()),
        ("tif", "image/tiff", counts()),
        ("tif", "image/tiff", counts().astype(numpy.float32)),
        ("jpg", "image/jpeg", (counts() >> 6).astype(numpy.uint8)),
        ("bmp", "image/bmp", (counts() >> 6).astype(numpy.uint8)),
        ("npy", "application/octet-stream", counts().astype(numpy.int32)),
    ],
)
@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, []),
        ({"parts": "columns,detail", "strength": "0.5", "radiometric": "no"},
         ["--parts", "columns", "detail", "--strength", ".5", "--no-radiometric"]),
    ],
)  # fmt: skip
def test_the_result_is_the_file_that_enhance_writes(
    client, tmp_path, ending, media_type, pixels, parameters, options
):  # fmt: skip
    kinds = {"png": "PNG", "tif": "TIFF", "jpg": "JPEG", "bmp": "BMP", "npy": "NPY"}
    metadata = {"dpi": (300, 300)} if ending in ("png", "tif", "jpg") else {}
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    source.write_bytes(encoded(pixels, kinds[ending], **metadata))
    assert cli.main(["enhance", "-i", str(source), "-o", str(target), "-m", "deal-u-small", "--quiet", *options]) == 0
    answer = client.post("/enhance", params=parameters, content=source.read_bytes())
    assert answer.status_code == 200 and answer.headers["content-type"] == media_type
    assert answer.content == target.read_bytes() != source.read_bytes()


def test_what_is_told_of_an_image(client):
    told = json.loads(client.post("/enhance", content=encoded(counts())).headers["deal-image"])
    assert (told["width"], told["height"], told["type"], told["ending"]) == (64, 48, "uint16", ".png")
    assert told["radiometric"] and told["parts"] == ["columns", "rows"] and told["notes"] == []
    assert 6999 < told["window"][0] < told["window"][1] < 9001


def test_all_pages_of_a_file_are_restored(client, tmp_path):
    stack = numpy.stack([counts(), counts()[::-1], counts() // 2])
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    numpy.save(tmp_path / "in.npy", stack)
    for ending in ("tif", "npy"):
        source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
        assert cli.main(["enhance", "-i", str(source), "-o", str(target), "-m", "deal-u-small", "--quiet"]) == 0
        answer = client.post("/enhance", content=source.read_bytes())
        assert answer.content == target.read_bytes() and json.loads(answer.headers["deal-image"])["frames"] == 3
    assert len(list(read_frames(target))) == 3


def test_a_preview_is_stretched_by_the_window_of_the_original(client):
    pixels = counts()
    answer = client.post("/preview", params={"strength": 0}, content=encoded(pixels, "TIFF"))
    low, high = json.loads(answer.headers["deal-image"])["window"]
    shown = numpy.array(Image.open(io.BytesIO(answer.content)))
    assert shown.dtype == numpy.uint8
    expected = 255 * ((pixels.astype(numpy.float64) - low) / (high - low)).clip(0, 1)
    assert abs(shown - expected).max() <= 0.51
    white_is_zero = client.post(
        "/preview", params={"strength": 0}, content=encoded(pixels, "TIFF", tiffinfo={262: 0})
    )  # fmt: skip
    assert numpy.array_equal(numpy.array(Image.open(io.BytesIO(white_is_zero.content))), 255 - shown)
    wide = client.post("/preview", params={"strength": 0}, content=encoded(numpy.zeros((10, 4096), numpy.uint8)))
    assert Image.open(io.BytesIO(wide.content)).size == (2048, 5)


def test_the_network_runs_once_for_an_image(client, restorer, monkeypatch):
    runs = []
    compute = Remembering._compute
    monkeypatch.setattr(Remembering, "_compute", lambda self, *of: runs.append(1) or compute(self, *of))
    first, second = encoded(counts()), encoded(counts()[::-1])
    answers = [
        client.post("/enhance", params={"parts": parts}, content=content)
        for content, parts in ((first, "columns"), (first, "rows"), (first, ""), (second, "rows"))
    ]
    assert len(runs) == 2 and len({answer.content for answer in answers}) == 4
    assert numpy.array_equal(numpy.array(Image.open(io.BytesIO(answers[2].content))), counts())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"parts": "columns,colums"},
            "a part must be one of 'columns', 'rows', 'shading', 'detail', 'tone'; got ",
        ),
        ({"strength": "much"}, "strength must be a number; got 'much'"),
        ({"strength": "nan"}, "strength must be "),
        ({"strength": "2.5"}, "strength must be from 0 to 2; got 2.5"),
        ({"radiometric": "perhaps"}, "radiometric must be one of 'auto', 'yes', 'no'; got 'perhaps'"),
        ({"name": "../../etc/passwd"}, "a parameter must be one of 'parts', 'strength', 'radiometric'; got 'name'"),
    ],
)
def test_wrong_options(client, parameters, message):
    answer = client.post("/enhance", params=parameters, content=encoded(counts()))
    assert answer.status_code == 400
    assert error_of(answer).startswith(message)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 415, "there is no image in the request"),
        (b"<html><script>alert(1)</script></html>", 415, "is not in a format that is read"),
        (b"\0\0\0 ftypisom" + bytes(100), 422, "the file cannot be read as a clip"),
        (b"GIF89a" + bytes(100), 415, "is not in a format that is read"),
        (encoded(counts())[:-2000], 422, "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "the file cannot be read as an image"),
        (claiming_png(60000, 60000), 422, "decompression bomb"),
        (claiming_png(10000, 9000), 422, "decompression bomb"),
        (encoded(numpy.full((9, 9), numpy.nan, numpy.float32), "TIFF"), 422, "pixels that are not finite"),
        (encoded(numpy.zeros((9000, 10000), numpy.bool_), "NPY")[:200], 422, "the file"),
        (encoded(counts(), "NPY").replace(b"(48, 64), }    ", b"(99999, 9999), }"), 422, "the file"),
    ],
    ids=["nothing", "html", "clip", "gif", "cut", "zeros", "bomb", "small bomb", "nan", "bool", "claims"],
)  # fmt: skip
def test_files_that_are_no_images_or_hostile(client, content, status, message):
    answer = client.post("/enhance", content=content)
    assert answer.status_code == status and message in error_of(answer)
    assert "/tmp" not in error_of(answer) and "Traceback" not in error_of(answer)
    assert client.post("/enhance", content=encoded(counts())).status_code == 200
    assert client.get("/health").json()["requests"] == 0


def test_too_large_arrays_are_refused_as_too_large_pictures_are(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    answer = client.post("/enhance", content=encoded(counts(), "NPY"))
    assert answer.status_code == 422 and error_of(answer) == "the file has 3072 pixels: at most 1000 are accepted"


def test_errors_of_the_server_itself(client, restorer, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(Remembering, "enhance_frame", broken)
    answer = client.post("/enhance", content=encoded(counts()))
    assert answer.status_code == 500 and error_of(answer) == "the server failed at this image; its log says why"

    def exhausted(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    monkeypatch.setattr(Remembering, "enhance_frame", exhausted)
    answer = client.post("/enhance", content=encoded(counts()))
    assert answer.status_code == 422 and error_of(answer) == "the image needs more memory than there is"


def test_other_routes_and_the_page(client):
    assert client.get("/health").json() == {"status": "ok", "max_bytes": 64_000_000, "max_queue": 8, "requests": 0}
    page = client.get("/")
    assert page.status_code == 200 and "<h1>DEAL</h1>" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in page.headers
    for file in ("page.js", "page.css", "icon.svg"):
        text = client.get(f"/{file}").text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert (client.get("/enhance").status_code, client.get("/enhance").headers["allow"]) == (405, "POST")
    assert error_of(client.get("/nothing")) == "there is nothing at /nothing"
    for path in ("/nothing", "/../app.py", "/%2e%2e/app.py", "//etc/passwd"):
        said = served.said_to(str(client.base_url), f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert said.startswith("HTTP/1.1 404 ") and "there is nothing at" in said


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("LOCALHOST", 200),
        ("evil.example", 400), ("localhost.evil.example", 400), ("127.0.0.1.evil.example", 400), ("", 400), ("[", 400),
    ],
)  # fmt: skip
def test_hosts_of_other_names_are_refused(client, host, status):
    answer = client.get("/health", headers={"Host": host})
    assert answer.status_code == status
    assert status == 200 or "there is no host" in error_of(answer)
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"Origin": "its own"}, 200), ({"Origin": "its own", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://localhost:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site", "Origin": "its own"}, 403),
    ],
)  # fmt: skip
def test_posts_of_other_origins_are_refused(client, headers, status):
    own = str(client.base_url).rstrip("/")
    headers = {name: own if value == "its own" else value for name, value in headers.items()}
    assert client.post("/enhance", headers=headers, content=encoded(counts())).status_code == status


def test_files_are_held_to_the_size_limit_while_they_arrive(restorer):
    app = application(restorer, Limits(megabytes=0.01))
    with served.in_thread(app) as address:
        head = b"POST /enhance HTTP/1.1\r\nHost: localhost\r\n"
        claimed = served.said_to(address, head + b"Content-Length: 99999999999999\r\n\r\n")
        unclaimed = served.said_to(
            address, head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1000\r\n" + bytes(0x1000) + b"\r\n"] * 5
        )  # fmt: skip
        for said in (claimed, unclaimed):
            assert said.startswith("HTTP/1.1 413 ") and "the file is larger than 0.01 MB" in said
        assert httpx.post(f"{address}enhance", content=bytes(15_000)).status_code == 413
        assert httpx.post(f"{address}enhance", content=encoded(counts(20, 20))).status_code == 200
        assert httpx.get(f"{address}health").json()["requests"] == 0


def test_files_that_do_not_arrive(restorer, monkeypatch):
    monkeypatch.setattr(body, "LONGEST", 0.5)
    with served.in_thread(application(restorer)) as address:
        said = served.said_to(address, b"POST /enhance HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nabc")
        assert said.startswith("HTTP/1.1 408 ") and "did not arrive within 0.5 s" in said
        assert httpx.get(f"{address}health").json()["requests"] == 0


class Held(Restorer):
    """Begins, and goes on when it is told to."""

    def __init__(self, enhancer):
        super().__init__(enhancer)
        self.begun, self.free, self.seen = threading.Event(), threading.Event(), []

    def file(self, content, wanted, stop):
        self.seen.append(content)
        self.begun.set()
        assert self.free.wait(60)
        return Result(content, "image/png", {})


@pytest.fixture
def held(restorer):
    """A restorer whose first image is being computed, the address of its server, which has two places, and a client."""
    held = Held(restorer.enhancer)
    with served.in_thread(application(held, Limits(waiting=1))) as address, httpx.Client(timeout=60) as client:
        first = threading.Thread(target=client.post, args=(f"{address}enhance",), kwargs={"content": b"first"})
        first.start()
        assert held.begun.wait(60)
        yield held, address, client
        held.free.set()
        first.join(60)


def wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_full_queue_says_when_to_come_again(held):
    held, address, client = held
    places = lambda: client.get(f"{address}health").json()["requests"]  # noqa: E731
    answers = []
    second = threading.Thread(target=lambda: answers.append(client.post(f"{address}enhance", content=b"second")))
    second.start()
    wait_for(lambda: places() == 2)
    third = client.post(f"{address}enhance", content=b"third" * 100_000)
    assert third.status_code == 503 and 1 <= int(third.headers["retry-after"]) <= 60
    assert error_of(third) == f"the queue is full: try again in {third.headers['retry-after']} s"
    held.free.set()
    second.join(60)
    assert [answer.status_code for answer in answers] == [200] and held.seen == [b"first", b"second"]
    wait_for(lambda: places() == 0)
    assert client.post(f"{address}enhance", content=b"third").status_code == 200


def test_a_client_that_goes_away_frees_its_place(held):
    held, address, client = held
    places = lambda: client.get(f"{address}health").json()["requests"]  # noqa: E731
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=httpx.Timeout(60, read=0.5)) as impatient:
        impatient.post(f"{address}enhance", content=b"second")
    wait_for(lambda: places() == 1)
    held.free.set()
    assert client.post(f"{address}enhance", content=b"third").status_code == 200
    assert held.seen == [b"first", b"third"]


def test_the_command_serves_many_at_once_and_writes_nothing(tmp_path):
    content = FRAME.read_bytes()
    statuses = []

    def upload(address):
        with httpx.Client(timeout=120) as client:
            statuses.append(client.post(f"{address}enhance", content=content).status_code)

    with served.command(tmp_path, "--max-queue", "4") as address:
        threads = [threading.Thread(target=upload, args=(address,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(statuses) == 10 and set(statuses) <= {200, 503} and statuses.count(200) >= 5
        answer = httpx.post(f"{address}enhance", content=encoded(counts())[:-2000], timeout=60)
        assert answer.status_code == 422
        port = address.rstrip("/").rpartition(":")[2]
        taken = [sys.executable, "-m", "deal", "serve", "--port", port, "-m", "deal-u-small"]
        second = subprocess.run(taken, capture_output=True, text=True, cwd=served.ROOT, timeout=120)
        assert second.returncode == 1
        expected = f"deal: error: cannot listen at 127.0.0.1, port {port}: the port is in use: --port takes another"
        assert second.stderr.strip() == expected
        told = httpx.get(f"{address}health").json()
        assert told["model"] == "deal-u-small" and told["device"] == "cpu" and told["max_queue"] == 4
    assert served.written(tmp_path) == [] and (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "port must be from 0 to 65535; got 65536"),
        (["--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid, port 8000"),
        (["--max-queue", "-1"], "max-megabytes must be more than 0 and max-queue at least 0; got 64 and -1"),
    ],
)
def test_commands_that_cannot_serve(capsys, options, message):
    assert cli.main(["serve", *options]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"deal: error: {message}")


def test_the_extra_is_named_where_it_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve"]) == 1
    assert "pip install 'deal-kernels[app]'" in capsys.readouterr().err


def test_the_result_is_read_again(client, tmp_path):
    (tmp_path / "out.tif").write_bytes(client.post("/enhance", content=encoded(counts(), "TIFF")).content)
    assert read_frame(tmp_path / "out.tif").pixels.dtype == numpy.uint16
