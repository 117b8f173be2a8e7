"""A real Chromium without a window, and the pages that `tests/html.rs` has made for it.

`cargo test --test html -- --include-ignored` makes the pages and runs these tests; by hand:

    LAYERDIFF_PAGES=DIR pytest tests/html     # DIR/healthy/report.html, faulty, set and hostile
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PAGES = os.environ.get("LAYERDIFF_PAGES")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


def missing() -> str | None:
    """Why nothing can be tested here."""
    if PAGES is None:
        return "no pages: set LAYERDIFF_PAGES, or run `cargo test --test html`"
    if CHROMIUM is None or DRIVER is None:
        return "no Chromium with its driver: `apt-get install chromium chromium-driver`"
    return None


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium(_possible: None) -> Iterator[object]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Chromium's sandbox needs rights that containers do not have; the pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(chromium: object) -> Callable[..., object]:
    """Opens a page in a window of some width, light or dark."""

    def opened(name: str, width: int = 1280, scheme: str = "light") -> object:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get_log("browser")  # what earlier pages have said
        chromium.get((Path(PAGES) / name / "report.html").resolve().as_uri())
        # The charts are drawn in the first frame.
        wait = "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 50))"
        chromium.execute_async_script(wait)
        return chromium

    return opened
