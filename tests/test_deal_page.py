"""The page of `deal serve` in Chromium, used as a person uses it."""

import base64
import io
import threading
import time
import urllib.request

import browser
import numpy
import pytest
import served
from PIL import Image

from deal import cli

webdriver, select, keys, *_ = map(
    served.imported,
    (
        "selenium.webdriver",
        "selenium.webdriver.support.select",
        "selenium.webdriver.common.keys",
        "starlette",
        "uvicorn",
    ),
)
Keys = keys.Keys
FRAME = served.ROOT / "deal" / "frames" / "0112_1732_0423.png"
SIZE = "640 \N{MULTIPLICATION SIGN} 480"
PARTS = ["columns", "rows", "shading", "detail", "tone"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with served.command(folder, "--max-queue", "3", "--max-megabytes", "2") as address:
        yield address
    assert served.written(folder) == []


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def chromium(profile):
    with browser.opened(profile) as driver:
        yield driver


@pytest.fixture
def page(chromium, address):
    """The page, as it is opened. Afterwards nothing that it did was against its policy or an error."""
    chromium.get(address)
    yield Page(chromium)
    complaints = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert [each for each in complaints if "the server responded with a status of" not in each] == []


class Page:
    def __init__(self, driver):
        self.driver = driver

    def at(self, id):
        return self.driver.find_element("id", id)

    def box(self, part):
        return self.driver.find_element("css selector", f"input[value={part}]")

    def choose(self, path):
        self.at("file").send_keys(str(path))

    def said(self):
        return self.at("status").text

    def press(self, key):
        """Presses a key where the focus is."""
        webdriver.ActionChains(self.driver).send_keys(key).perform()

    def wait(self, condition, seconds=60):
        limit = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < limit, self.said()
            time.sleep(0.05)
        return found

    def wait_until_restored(self):
        self.wait(lambda: self.said().startswith("Restored in "))

    def change(self, action):
        """Does something, and waits until the picture is another one."""
        before = self.at("after").get_attribute("src")
        action()
        self.wait(lambda: self.at("after").get_attribute("src") != before)
        self.wait_until_restored()

    def pixels(self, id):
        """The values of a picture, as the browser has it."""
        script = """
            const image = document.getElementById(arguments[0]), canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png").split(",")[1];
        """
        content = base64.b64decode(self.driver.execute_script(script, id))
        return numpy.array(Image.open(io.BytesIO(content)).convert("L"))

    def split(self):
        script = "return getComputedStyle(document.getElementById('pictures')).getPropertyValue('--split')"
        return self.driver.execute_script(script)


@pytest.fixture(scope="module")
def thermal(tmp_path_factory):
    """The bundled frame with stripes, and as counts of 16 bits."""
    folder = tmp_path_factory.mktemp("thermal")
    picture = numpy.array(Image.open(FRAME)).astype(numpy.float64)
    stripes = 12 * numpy.random.default_rng(0).standard_normal(picture.shape[1])
    striped = (picture + stripes).clip(0, 255)
    Image.fromarray(striped.round().astype(numpy.uint8)).save(folder / "frame.png")
    Image.fromarray((7000 + 8 * striped).round().astype(numpy.uint16)).save(folder / "counts.tif")
    return folder


def columns_of(pixels):
    """How much neighbouring columns differ in their means."""
    return abs(numpy.diff(pixels.astype(numpy.float64).mean(0))).mean()


def test_an_image_is_shown_before_and_after(page, thermal):
    page.choose(thermal / "frame.png")
    page.wait_until_restored()
    before, after = page.pixels("before"), page.pixels("after")
    assert numpy.array_equal(before, numpy.array(Image.open(thermal / "frame.png")))
    assert columns_of(after) < columns_of(before) / 3
    assert page.at("caption").text == f"frame.png: {SIZE}, uint8, temperatures not kept"
    assert page.at("download").is_enabled()
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_the_slider_is_moved_by_keys(page, thermal):
    page.choose(thermal / "frame.png")
    page.wait_until_restored()
    slider = page.at("split")
    assert page.split() == "50%"
    page.driver.execute_script("document.getElementById('file').focus()")
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element == slider
    handle = "return getComputedStyle(document.querySelector('.pictures')).outlineStyle"
    assert page.driver.execute_script(handle) == "solid"
    for key, expected in ((Keys.ARROW_RIGHT, "51%"), (Keys.ARROW_LEFT, "50%"), (Keys.HOME, "0%"), (Keys.END, "100%")):
        page.press(key)
        assert page.split() == expected and slider.get_attribute("value") == expected[:-1]
    assert slider.accessible_name.startswith("Where the restored image begins")


def test_everything_is_reached_by_keys_and_has_a_name(page, thermal):
    page.choose(thermal / "frame.png")
    page.wait_until_restored()
    page.driver.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(10):
        page.press(Keys.TAB)
        element = page.driver.switch_to.active_element
        assert element.accessible_name, element.get_attribute("outerHTML")
        reached.append(element.get_attribute("id") or element.get_attribute("value"))
    assert reached == ["file", "split", *PARTS, "strength", "radiometric", "download"]


def test_a_part_is_left_in_the_image(page, thermal):
    page.choose(thermal / "frame.png")
    page.wait_until_restored()
    whole = page.pixels("after")
    page.change(lambda: page.box("columns").send_keys(Keys.SPACE))
    without = page.pixels("after")
    assert not page.box("columns").is_selected() and columns_of(without) > 3 * columns_of(whole)
    page.change(lambda: page.box("columns").send_keys(Keys.SPACE))
    assert numpy.array_equal(page.pixels("after"), whole)
    page.change(lambda: page.at("strength").send_keys(Keys.HOME))
    assert page.at("amount").text == "0.00" and numpy.array_equal(page.pixels("after"), page.pixels("before"))


def test_temperatures_are_kept_or_not(page, thermal):
    page.choose(thermal / "counts.tif")
    page.wait_until_restored()
    assert page.at("caption").text.startswith(f"counts.tif: {SIZE}, uint16, shown from 7")
    assert page.at("caption").text.endswith("temperatures kept")
    assert [page.box(part).is_selected() for part in PARTS] == [True, True, False, False, False]
    assert not page.box("tone").is_enabled()
    page.change(
        lambda: (
            served.imported("selenium.webdriver.support.select").Select(page.at("radiometric")).select_by_value("no")
        )
    )
    assert page.at("caption").text.endswith("temperatures not kept")
    assert all(page.box(part).is_selected() and page.box(part).is_enabled() for part in PARTS)


@pytest.mark.parametrize("name", ["frame.png", "counts.tif"])
def test_the_download_is_the_file_that_enhance_writes(page, profile, thermal, tmp_path, name):
    expected = tmp_path / name
    options = ["-i", str(thermal / name), "-o", str(expected), "-m", "deal-u-small", "--threads", "1", "--quiet"]
    assert cli.main(["enhance", *options, "--parts", "columns", "--strength", "0.95"]) == 0
    page.choose(thermal / name)
    page.wait_until_restored()
    for part in PARTS[1:]:
        if page.box(part).is_selected():
            page.change(page.box(part).click)
    page.change(lambda: page.at("strength").send_keys(Keys.ARROW_LEFT))
    page.at("download").click()
    stem, _, ending = name.partition(".")
    page.wait(lambda: page.said() == f"{stem}_restored.{ending} is downloaded.")
    saved = profile / "downloads" / f"{stem}_restored.{ending}"
    page.wait(saved.exists)
    assert saved.read_bytes() == expected.read_bytes()


def test_hostile_files_are_refused_and_the_page_goes_on(page, thermal, tmp_path):
    html = tmp_path / "<img src=x onerror=document.title='owned'>.png"
    html.write_text("<html><script>document.title = 'owned'</script></html>")
    cut = tmp_path / "cut.png"
    cut.write_bytes((thermal / "frame.png").read_bytes()[:5000])
    large = tmp_path / "large.npy"
    large.write_bytes(bytes(2_000_001))
    for path, message in (
        (html, "The file is not in a format that is read"),
        (cut, "truncated"),
        (large, "large.npy is larger than 2 MB, which is the limit here."),
    ):
        page.choose(path)
        page.wait(lambda message=message: message in page.said())
        assert "error" in page.at("status").get_attribute("class")
        assert not page.at("download").is_enabled()
    named = html.with_name(f"{html.stem} 2.png")
    named.write_bytes((thermal / "frame.png").read_bytes())
    page.choose(named)
    page.wait_until_restored()
    assert page.at("caption").text.startswith(named.name)
    assert page.driver.title == "DEAL: thermal images restored"


def test_an_image_is_dropped(page, thermal):
    content = base64.b64encode((thermal / "frame.png").read_bytes()).decode()
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), (each) => each.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "dropped.png"));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    """
    page.driver.execute_script(script, content)
    page.wait_until_restored()
    assert page.at("caption").text.startswith("dropped.png")


def test_ten_uploads_at_once_all_get_an_answer(page, thermal):
    content = base64.b64encode((thermal / "frame.png").read_bytes()).decode()
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), (each) => each.charCodeAt(0)), done = arguments[1];
        const upload = (number) => fetch(`enhance?strength=${number / 10}`, { method: "POST", body: bytes });
        Promise.all(Array.from({ length: 10 }, (_, number) => upload(number)))
            .then((answers) => done(answers.map((answer) => answer.status)), (error) => done(`${error}`));
    """
    page.driver.set_script_timeout(120)
    statuses = page.driver.execute_async_script(script, content)
    assert len(statuses) == 10 and set(statuses) <= {200, 503} and statuses.count(200) >= 4
    page.choose(thermal / "frame.png")
    page.wait_until_restored()


def test_a_busy_server_is_asked_again(chromium, thermal):
    from deal.serve.app import Limits, application
    from deal.serve.restorer import Remembering, Restorer, Result

    begun, free = threading.Event(), threading.Event()

    class Held(Restorer):
        def file(self, content, wanted, stop):
            begun.set()
            assert free.wait(60)
            return Result(content, "image/png", {})

    app = application(Held(Remembering("deal-u-small", device="cpu")), Limits(waiting=0))
    with served.in_thread(app) as address:
        request = urllib.request.Request(f"{address}enhance", (thermal / "frame.png").read_bytes())
        other = threading.Thread(target=lambda: urllib.request.urlopen(request, timeout=60).read())
        other.start()
        assert begun.wait(60)
        chromium.get(address)
        page = Page(chromium)
        page.choose(thermal / "frame.png")
        page.wait(lambda: page.said() == "The server is busy. Next attempt in 1 s.")
        free.set()
        page.wait_until_restored()
        other.join(60)
        chromium.get("about:blank")


def test_other_sites_cannot_use_the_server(chromium, address):
    """A page of another origin, whose request needs no permission that the browser would ask for."""
    chromium.get("data:text/html,<title>another site</title>")
    script = """
        const done = arguments[1], options = { method: "POST", body: "x", mode: "no-cors" };
        fetch(arguments[0] + "enhance", options).then((answer) => done(answer.type), () => done("refused"));
    """
    assert chromium.execute_async_script(script, address) == "refused"
