"""The page in Chromium: first paint, search as one types, and scrolling through a large library.

    python -m tests.benchmarks.bench_page BUNDLE [--count 118287] [--tiles 50000] [--rounds 5]

Data: a real index of random unit vectors with items like COCO's, served by `image-finder serve`; all images are links to
a few files of 300 x 200 px. Needs chromium on the PATH.
First paint is First Contentful Paint in a new browser context. A search as one types is measured from the end of the
pause after which the page searches until its tiles are drawn. Scrolling loads and draws all images without a query,
then jumps to 100 places of the list; a long task blocks the page for 50 ms or more. Memory is the JavaScript heap
after a collection.
"""

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from image_finder.components.bundle.bundle import Bundle
from tests.benchmarks.measuring import COCO_TRAIN, sentences, show, write_random_index

PATIENCE_MS = 120_000
_MEMORY_TILES = 5000  # where memory is measured first
_JUMPS = 100
_LINKS = 30_000

_OBSERVE = """
window.tasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((each) => tasks.push(each.duration)))
    .observe({ type: "longtask", buffered: true });
const fetched = window.fetch;
window.fetch = (address, options) => {
    if (String(address).endsWith("/search")) window.requested = performance.now();
    return fetched(address, options);
};
"""
_FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
# Milliseconds from the request of the search until its tiles are drawn.
_TYPE = """
async ([text, before]) => {
    const field = document.getElementById("text");
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    const grid = document.getElementById("grid");
    const fresh = () => grid.querySelector(".tile[data-name]")?.dataset.id !== before;
    while (grid.getAttribute("aria-busy") !== "true") await new Promise(requestAnimationFrame);
    while (grid.getAttribute("aria-busy") === "true" || !fresh()) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return [performance.now() - window.requested, grid.querySelector(".tile").dataset.id];
}
"""
_LAST = "() => Math.max(0, ...[...document.querySelectorAll('#grid .cell')].map((cell) => cell.ariaPosInSet))"
_END = "() => scrollTo(0, document.documentElement.scrollHeight)"
_HEAP_MB = "() => { gc(); gc(); return performance.memory.usedJSHeapSize / 1e6; }"


def write_images(root: Path, count: int) -> None:
    """The files of measuring.random_items, as links: a file system limits the links to one file."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for number in range(count):
        path = root / f"train2017/{number % 10}/{number:012d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % _LINKS == 0:
            original = path
            Image.fromarray(noise).resize((300, 200)).save(path, "JPEG", quality=80)
        else:
            path.hardlink_to(original)


@contextlib.contextmanager
def served(index: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "image_finder", "serve", "--index", str(index), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready"):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@contextlib.contextmanager
def pages(address: str) -> Iterator[Any]:
    """opened(): the page in a new browser context."""
    arguments = ["--no-sandbox", "--js-flags=--expose-gc", "--enable-precise-memory-info"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)

        def opened() -> Page:
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.add_init_script(_OBSERVE)
            page.goto(address)
            page.wait_for_selector("#grid .tile[data-name]")
            return page

        yield opened
        browser.close()


def typing_ms(page: Page, texts: list[str]) -> list[float]:
    times, before = [], ""
    for text in texts:
        ms, before = page.evaluate(_TYPE, [text, before])
        times.append(ms)
    return times


def scrolled(page: Page, tiles: int) -> tuple[float, float]:
    """Scrolls until so many images are in the list; returns the heap in MB at _MEMORY_TILES and at the end."""
    early = 0.0
    while (last := page.evaluate(_LAST)) < tiles:
        if last >= _MEMORY_TILES and not early:
            early = page.evaluate(_HEAP_MB)
        page.evaluate(_END)
        while page.evaluate(_LAST) == last:
            page.wait_for_timeout(5)
    for share in np.random.default_rng(0).random(_JUMPS):
        page.evaluate(f"() => scrollTo(0, {share} * document.documentElement.scrollHeight)")
        page.wait_for_timeout(30)
    return early, page.evaluate(_HEAP_MB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=COCO_TRAIN)
    parser.add_argument("--tiles", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        write_images(Path(folder) / "images", given.count)
        write_random_index(index, Bundle.open(given.bundle), given.count, root=str(Path(folder) / "images"))
        with served(index) as address, pages(address) as opened:
            opened()  # warms the server
            paints = [opened().evaluate(_FIRST_PAINT) for _ in range(given.rounds)]
            page = opened()
            searches = typing_ms(page, sentences(4 * given.rounds))[given.rounds :]
            page = opened()
            early, late = scrolled(page, given.tiles)
            tasks = page.evaluate("() => tasks")
            elements = page.evaluate("() => document.querySelectorAll('*').length")
    show(
        [
            (f"{given.count:,} images", "median", "highest"),
            ("first paint, ms", median(paints), max(paints)),
            ("search as one types, ms", median(searches), max(searches)),
        ]
    )
    print()
    show(
        [
            (f"scrolling through {given.tiles:,} images", ""),
            ("tasks of 50 ms or more", len(tasks)),
            ("longest of them, ms", max(tasks, default=0.0)),
            (f"heap after {_MEMORY_TILES:,} images, MB", early),
            ("heap at the end, MB", late),
            ("elements of the page at the end", elements),
        ]
    )


if __name__ == "__main__":
    main()
