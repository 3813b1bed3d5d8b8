"""A folder is added on the page with the address that `image-finder serve` prints to a terminal."""

import contextlib
import os
import re
import subprocess
import sys
import threading

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.servers import PATIENCE_MS

pytestmark = [pytest.mark.slow, pytest.mark.posix]


@pytest.fixture
def printed_address(tmp_path, free_port):
    """The address that a server of an empty library prints to its terminal."""
    import pty

    library = tmp_path / "library"
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "image_finder", "serve", "--library", str(library), "--port", str(free_port())]
    environment = {**os.environ, "IMAGE_FINDER_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, stderr=end, env=environment) as process:
        os.close(end)
        try:
            printed = ""
            while (found := re.search(r"to add folders on the page, open (\S+)\r?\n", printed)) is None:
                printed += os.read(terminal, 4096).decode()
            threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
            yield found[1]
        finally:
            process.terminate()
            process.wait(timeout=60)


def _drain(terminal):
    """Read what the server logs, which would otherwise block it."""
    with contextlib.suppress(OSError):  # once the server has ended
        while os.read(terminal, 4096):
            pass
    os.close(terminal)


def test_a_folder_is_added_on_the_page(chromium, printed_address, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(tmp_path / "photos" / f"{name}.png")
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(printed_address)
    expect(page).to_have_url(printed_address.partition("#")[0])  # the key is removed
    page.get_by_role("button", name="Add a folder of images").click()
    page.get_by_label("Path on this computer").fill(str(tmp_path / "nowhere"))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#folder-error")).to_contain_text("is not a folder of this computer")
    page.get_by_label("Path on this computer").fill(str(tmp_path / "photos"))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#folder-dialog")).to_be_hidden()
    expect(page.locator("#welcome-count")).to_have_text("Search 2 images by what they show.")
    expect(page.locator("#grid .tile")).to_have_count(2)
    page.reload()
    page.get_by_role("button", name="Filters").click()
    expect(page.get_by_role("button", name="Add a folder", exact=True)).to_be_visible()
    other = context.browser.new_context().new_page()
    other.goto(printed_address.partition("#")[0])
    expect(other.locator("#welcome-count")).to_have_text("Search 2 images by what they show.")
    expect(other.locator("#add-first-folder")).to_be_hidden()
    other.context.close()
    context.close()
