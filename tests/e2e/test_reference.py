"""The API reference in a browser, and its example calls with curl."""

import html
import os
import re
import shutil
import subprocess
import urllib.request

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.slow
EXAMPLE_ID, OTHER_ID = "02d74b6bd8e5ce68", "cb808fcd74991169"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("appearance", ["light", "dark"])
def test_the_reference_is_readable_and_loads_nothing_from_elsewhere(chromium, address, width, appearance):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=appearance)
    faults, loaded = [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(f"{address}/docs")
    page.locator("summary").first.click()
    assert page.locator("details[open] pre").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert Axe().run(page).violations_count == 0
    assert (faults, [url for url in loaded if not url.startswith(address)]) == ([], [])
    page.close()


@pytest.fixture(scope="module")
def curl():
    if shutil.which("curl") is None:
        message = "no curl on PATH: apt-get install curl"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def test_each_example_call_is_accepted(curl, address, painted_library, tmp_path):
    with urllib.request.urlopen(f"{address}/docs", timeout=30) as answer:
        page = answer.read().decode()
    with urllib.request.urlopen(f"{address}/api/v1/images?k=1&folder=images/garden", timeout=30) as answer:
        known = re.search(r'"id":"(\w+)"', answer.read().decode())[1]
    shutil.copy(painted_library.parent / "images" / "garden" / "red.jpg", tmp_path / "photo.jpg")
    calls = [html.unescape(call) for call in re.findall(r"<code>(curl .*?)</code>", page)]
    assert len(calls) > 25
    environment = {**os.environ, "SERVER": address, "TOKEN": ""}
    for call in calls:
        line = re.sub(f"{EXAMPLE_ID}|{OTHER_ID}", known, call).replace("curl ", "curl -sS --fail ", 1)
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        # Folders are added with a key that this server has not.
        assert done.returncode == 0 or ("/folders" in line and "error: 403" in done.stderr), (line, done.stderr)
