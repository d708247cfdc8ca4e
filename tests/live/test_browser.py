"""Page of the live view in a headless Chromium: no error on its console, readable at 400 px, texts stay texts."""

import logging
import shutil
import time

import pytest

from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.data.run_claim import claimed
from ptycho_backend.events import EpochEvent, StageEvent, ignore
from ptycho_backend.live import record as record_module
from ptycho_backend.live.record import recorded
from ptycho_backend.live.server import serving
from ptycho_backend.live.state import RunState

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=document.title=1>"
FIGURES = ("amplitude", "phase", "probe", "errors", "losses")


@pytest.fixture
def browser(tmp_path):
    """Return a browser of 400 px; without Chromium and selenium the test is skipped."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("Chromium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(argument)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield found
    found.quit()


def until(condition, seconds=20.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_page_follows_a_run(browser, make_image, tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "WRITE_EVERY_S", 0.0)
    folder = tmp_path / "a <b>run"
    folder.mkdir()

    def shown(name):
        return browser.find_element("id", name).is_displayed()

    def status():
        return browser.find_element("id", "status").text

    with serving(RunState(folder)) as server:
        with claimed(folder), recorded(folder, ignore) as on_event:
            browser.get(server.url)
            until(lambda: status() == "running")
            assert shown("waiting")
            assert not any(map(shown, FIGURES))
            make_image(provenance={INCOMPLETE: HOSTILE}, name=HOSTILE).save(folder / RECONSTRUCTION)
            logging.getLogger("ptycho_backend.somewhere").warning("%s", HOSTILE)
            for number in (1, 2):
                on_event(EpochEvent(number, 2, {f"{HOSTILE}_loss": 1 / number}))
                on_event(StageEvent("iterations", number, 4, HOSTILE, error=1 / number))
            until(lambda: all(map(shown, FIGURES)))
            assert shown("incomplete")
            assert browser.find_element("tag name", "h1").text == "a <b>run"
            assert HOSTILE in browser.find_element("id", "messages").text
            assert browser.title == "a <b>run – running"
            assert browser.execute_script("return document.querySelectorAll('img').length") == 3
            width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
            assert width[0] <= width[1] == 400
        make_image(2).save(folder / RECONSTRUCTION, overwrite=True)
        until(lambda: status() == "complete")
        assert not shown("incomplete")
        assert browser.get_log("browser") == []
    until(lambda: status() == "the server has ended")
