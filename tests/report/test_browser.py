"""Reports in headless Chromium: no message of an error, pictures with pixels, narrow screens, shared zoom and print."""

import base64
import dataclasses
import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from ptycho_backend.report.comparison import agreements_of, comparison_page
from ptycho_backend.report.content import Content
from ptycho_backend.report.page import page_of, write_page

BROWSERS, DRIVER = ("chromium", "chromium-browser", "google-chrome"), "chromedriver"
HOSTILE = "<img src=x onerror=alert(1)>$$\\frac{1}{2}$$\\[x\\]</script>"
WAIT_S = 20.0
# Shadow trees hold the canvases; a drawn one has pixels that are not transparent.
CANVASES = """
const found = [];
const walk = node => {
  for (const child of node.querySelectorAll('*')) {
    if (child.tagName === 'CANVAS') found.push(child);
    if (child.shadowRoot) walk(child.shadowRoot);
  }
};
walk(document);
return found.filter(c => c.width && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)).length;
"""
OVERFLOW = """
const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
return [document.documentElement.scrollWidth, document.body.scrollWidth, wide.map(e => e.className).join(' ')];
"""
DONE = "return window.Bokeh !== undefined && Bokeh.documents.length > 0 && Bokeh.documents.every(d => d.is_idle)"
ZOOM = """
const plots = Bokeh.documents[0].roots();
plots[0].x_range.start = 0.5; plots[0].x_range.end = 1.0;
return [plots[1].x_range.start, plots[1].x_range.end];
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    """Return headless Chromium with its log; skip where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which(DRIVER)
    if binary is None or driver is None:
        pytest.skip(f"no browser: install {BROWSERS[0]} and its {DRIVER}")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module", params=["run", "comparison"])
def page(request, make_content, make_image, tmp_path_factory):
    """Return the file of a page with hostile names."""
    path = tmp_path_factory.mktemp("page") / "report page#1.html"
    first = make_content(HOSTILE, warnings=(HOSTILE,), files=(HOSTILE, "a" * 300))
    if request.param == "run":
        return write_page(path, page_of(first))
    contents = [first, make_content("second", make_image(seed=1)), make_content("third" * 40, make_image(pixel_m=None))]
    return write_page(path, comparison_page(contents, agreements_of(contents)))


@pytest.fixture
def opened(browser, page):
    """Return a function that opens the page with some width and waits for its pictures."""

    def open_page(width, file=page):
        size = {"width": width, "height": 3000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(file.as_uri())
        end = time.monotonic() + WAIT_S
        while not browser.execute_script(DONE):
            assert time.monotonic() < end, "the pictures are not drawn"
            time.sleep(0.1)
        return browser

    return open_page


@pytest.mark.parametrize("width", [400, 1280])
def test_pictures_are_drawn_without_an_error(opened, width):
    browser = opened(width)
    messages = browser.get_log("browser")
    assert [entry for entry in messages if entry["level"] not in ("INFO", "DEBUG")] == []
    n_pictures = browser.execute_script("return document.querySelectorAll('[role=img]').length")
    assert n_pictures >= 8
    assert browser.execute_script(CANVASES) >= n_pictures
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_no_horizontal_scrolling(opened, width):
    whole, body, wide = opened(width).execute_script(OVERFLOW)
    assert (whole <= width, body <= width, wide) == (True, True, "")


@pytest.fixture
def corner_page(make_image, tmp_path):
    """Return the page of an object whose phase is high in the corner with small y and x."""
    obj = np.ones((96, 96), np.complex64)
    obj[:40, :30] = np.exp(0.5j)
    return write_page(tmp_path / "corner.html", page_of(Content("corner", dataclasses.replace(make_image(), obj=obj))))


def test_small_y_is_above_and_small_x_left(opened, corner_page):
    browser = opened(400, corner_page)
    canvas = browser.find_elements("css selector", ".canvas")[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(canvas.screenshot_as_base64))).convert("RGB"))
    red, _, blue = np.moveaxis(picture[:330].astype(int), -1, 0)  # without the colour bar below
    high, low = np.argwhere(red > blue + 80), np.argwhere((blue > red + 20) & (red < 60))
    assert len(high) > 1000
    assert len(low) > 1000
    assert (high.mean(axis=0) < low.mean(axis=0) - 20).all()


def test_pictures_zoom_together(opened):
    assert opened(1280).execute_script(ZOOM) == [0.5, 1.0]


def test_print(opened):
    content = base64.b64decode(opened(1280).print_page())
    assert content.startswith(b"%PDF")
    assert len(content) > 50_000
