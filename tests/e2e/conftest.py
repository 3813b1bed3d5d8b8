"""Fixtures of the end-to-end tests: a browser and a served library of painted images."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.isolated_network import IsolatedNetwork, isolated
from tests.support.colour_bundle import write_colour_bundle
from tests.support.servers import PATIENCE_MS

_START_S = 180
_NO_NETWORK = "no network namespace can be made: run as root with unshare and nsenter (util-linux)"
_WRITTEN_S = 1_700_000_000
Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium under Playwright; its absence fails in CI and skips elsewhere.

    Of one module: while Playwright lives its thread has a running event loop, and no test may start another one there.
    """
    program = shutil.which("chromium")
    if program is None:
        message = "no chromium on PATH: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def painted_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of 52 painted images with a bundle that knows colours; one file is missing."""
    library = _paint_library(tmp_path_factory.mktemp("page"))
    (library.parent / "images" / "town" / "gone.jpg").unlink()
    return library


@pytest.fixture
def new_library(tmp_path: Path) -> Path:
    """A new such library with all files, for tests that change it; its images are in ../images."""
    return _paint_library(tmp_path)


@pytest.fixture(scope="module")
def isolated_network(observed_network: IsolatedNetwork | None) -> IsolatedNetwork:
    """A network without outside access; where impossible, fails in CI and skips elsewhere."""
    if observed_network is None:
        pytest.skip(_NO_NETWORK)
    return observed_network


@pytest.fixture(scope="module")
def observed_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedNetwork | None]:
    """A network without outside access; where impossible, fails in CI and is None elsewhere."""
    with isolated(tmp_path_factory.mktemp("network")) as network:
        if network is None and os.environ.get("CI"):
            pytest.fail(_NO_NETWORK)
        yield network


@pytest.fixture(scope="session")
def image_finder() -> Callable[..., None]:
    """image_finder(*words): run the command, which must succeed."""
    return _image_finder


def _paint_library(folder: Path) -> Path:
    bundle = write_colour_bundle(folder / "bundle")
    _paint_all(folder / "images")
    _image_finder("index", folder / "images", "--library", folder / "library", "--bundle", bundle.path)
    return folder / "library"


@pytest.fixture(scope="session")
def serve(painted_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """serve(port=0, token="", library=..., health="ready", options=()): a context with a running server; yields its URL."""
    logs = tmp_path_factory.mktemp("serve")  # in files: a full pipe would block the server

    @contextlib.contextmanager
    def run(
        port: int = 0,
        token: str = "",
        library: Path = painted_library,
        health: str = "ready",
        options: Sequence[str] = (),
    ) -> Iterator[str]:
        port = port or _free_port()
        log = logs / f"{port}.jsonl"
        command = _command("serve", "--library", library, "--port", port, *options)
        environment = {**os.environ, **({"IMAGE_FINDER_TOKEN": token} if token else {})}
        with log.open("w") as stream, subprocess.Popen(command, env=environment, stderr=stream) as process:
            try:
                _wait_until_healthy(process, port, log, health)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(timeout=20)

    return run


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return _free_port


@pytest.fixture(scope="session")
def address(serve: Serve) -> Iterator[str]:
    """Address of a server for the whole session."""
    with serve() as running:
        yield running


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "image_finder", *map(str, arguments)]


def _image_finder(*arguments: object) -> None:
    done = subprocess.run(_command(*arguments), check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, log: Path, health: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}: {log.read_text()[-3000:]}")
        with (
            contextlib.suppress(OSError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
        ):
            connection.request("GET", f"/health/{health}")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    pytest.fail(f"the server was not ready after {_START_S} s")


def _paint_all(folder: Path) -> None:
    rng = np.random.default_rng(11)
    red = _paint(folder / "garden" / "red.jpg", (255, 0, 0), rng, size=(480, 320), exif=_canon_with_place())
    _paint(folder / "garden" / "yellow.jpg", (255, 255, 0), rng, size=(320, 480), exif=_exif("Pixel 8", "2023:08:02"))
    _paint(folder / "garden" / "deep" / "green.jpg", (0, 255, 0), rng, size=(480, 320))
    _paint(folder / "town" / "blue.jpg", (0, 0, 255), rng, size=(400, 400))
    _paint(folder / "town" / "gone.jpg", (255, 128, 0), rng, size=(480, 320))
    _paint(folder / "town" / "<img src=x onerror=alert(1)>.png", (255, 0, 255), rng, size=(300, 200))
    paler = Image.blend(red, Image.new("RGB", red.size, "grey"), 0.2).resize((240, 160))
    paler.save(folder / "town" / "red copy.jpg", quality=70)
    for number in range(45):
        _paint(folder / "many" / f"grey{number:02}.jpg", (200, 200, 200), rng, size=(180, 120))
    for path in folder.rglob("*.*"):
        os.utime(path, (_WRITTEN_S, _WRITTEN_S))  # files written just before a scan are read again by the next one


def _paint(
    path: Path, colour: tuple[int, int, int], rng: np.random.Generator, *, size: tuple[int, int], exif: Any = None
) -> Image.Image:
    """One hue in blocks of varying brightness, so that no image is a near-duplicate of another."""
    blocks = rng.uniform(0.6, 1.0, (8, 9, 1)) * np.array(colour)
    image = Image.fromarray(blocks.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"exif": exif} if exif else {}))
    return image


def _exif(model: str, day: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = model
    exif.get_ifd(0x8769)[0x9003] = f"{day} 10:20:30"
    return exif


def _canon_with_place() -> Image.Exif:
    exif = _exif("Canon EOS 80D", "2020:05:17")
    exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 30.0, 0.0), 3: "E", 4: (7.0, 54.0, 0.0)})
    return exif
