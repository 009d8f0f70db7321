"""Chromium without a window, for tests of the page."""

import contextlib
import shutil

import served

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--window-size=1200,900",
)  # fmt: skip
PROGRAMS = ("chromium", "chromedriver")


@contextlib.contextmanager
def opened(folder, *flags):
    """A browser with a new profile, which saves files in folder / "downloads"."""
    paths = [shutil.which(name) for name in PROGRAMS]
    if None in paths:
        served.missing("the page is tested in Chromium: install the packages chromium and chromium-driver")
    webdriver = served.imported("selenium.webdriver")
    (folder / "downloads").mkdir(parents=True)
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", *flags):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    try:
        yield driver
    finally:
        driver.quit()
