"""The chat page in a real browser, for tests: headless Chromium, over a server that answers what a test asks for.

CHROMIUM and CHROMEDRIVER name the programs where they are not on the path.
"""

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from .fake_openai import FakeServer

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip  # noqa: E501
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
# Where to leave pictures of the page, for people to look at.
PICTURES = os.environ.get("FASTLLM_PAGE_PICTURES")


class Page:
    """The page, as its user sees it."""

    def __init__(self, driver, server):
        self.driver = driver
        self.server = server

    def open(self):
        self.driver.get(self.server.url)
        self.until(lambda: self.script("return !document.querySelector('#model').disabled"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        found = self.all(selector)
        assert len(found) == 1, f"{len(found)} of {selector}"
        return found[0]

    def script(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def until(self, condition, seconds=10):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(StaleElementReferenceException):
                if found := condition():
                    return found
            time.sleep(0.02)
        raise AssertionError(f"it did not happen within {seconds} s; the page shows:\n{self.one('body').text}")

    def send(self, text):
        self.script("document.getElementById('input').focus()")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})  # the driver's own typing knows no emoji
        self.one("#input").send_keys(Keys.ENTER)

    def ask(self, text, script):
        """Sends a message, and waits for the whole answer."""
        self.server.script = script
        self.send(text)
        self.until(lambda: self.all(".message[data-role=assistant][aria-busy=false]"))
        self.until(lambda: not self.all("[aria-busy=true]"))
        return self.all(".message[data-role=assistant] .parts")[-1]

    def settings(self, **values):
        self.one("#open-settings").click()
        for name, value in values.items():
            self.script(
                "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))",
                name,
                value,
            )
        self.one("#settings .title button").click()

    def picture(self, name):
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(PICTURES) / f"{name}.png"))


@pytest.fixture(scope="session")
def driver():
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed (CHROMIUM and CHROMEDRIVER name them)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,800"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def server():
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def page(driver, server):
    """A fresh page. At the end: nothing came from elsewhere, and the console is empty but for what the test expects."""
    page = Page(driver, server)
    page.expected = ()
    driver.get_log("browser")
    page.open()
    yield page
    resources = page.script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert all(name.startswith(server.url) for name in resources), resources
    page.script("localStorage.clear(); sessionStorage.clear()")
    driver.get("about:blank")
    log = [entry["message"] for entry in driver.get_log("browser")]
    assert [line for line in log if not any(part in line for part in page.expected)] == []
