"""Screenshots of the page in the documents, taken again.

    image-finder demo --home HOME
    python -m tests.screenshots HOME [--to infra/screenshots]

Serves the demo's library and photographs the page in Chromium. Look at them before you commit them.
"""

import argparse
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

QUERY = "a lobster on the beach"
WIDTH, HEIGHT = 1200, 800
PATIENCE_S = 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="Folder that `image-finder demo --home` has filled.")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "infra" / "screenshots")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        library = given.home / "library"
        with serving("serve", "--library", library, ready="/health/ready") as server:
            photograph_page(context.new_page(), server, given.to)
        browser.close()


def photograph_page(page: Any, server: str, folder: Path) -> None:
    page.goto(server)
    page.locator("#examples button").first.wait_for()
    settle(page)
    save(page.screenshot(), folder / "page_start.png")
    page.locator("#text").fill(QUERY)
    page.wait_for_url("**q=*")
    settle(page)
    save(page.screenshot(), folder / "page.png")
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Explain match", pressed=False).click()
    page.locator("#viewer-image[data-shows^='blob:']").wait_for()
    settle(page)
    save(page.screenshot(), folder / "page_viewer.png")


def settle(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    time.sleep(1)


def save(png: bytes, path: Path) -> None:
    """With a palette: a quarter of the size."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    sys.stdout.write(f"{path.stat().st_size / 1000:,.0f} kB  {path}\n")


@contextlib.contextmanager
def serving(*words: object, ready: str) -> Iterator[str]:
    """A command that serves on a free port; yields its address once `ready` answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "image_finder", *map(str, words), "--port", server.rpartition(":")[2]]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(server + ready, timeout=5):
                    break
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
