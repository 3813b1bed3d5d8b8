"""Fixtures every test may use."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import CHECKOUT

# ZenML looks for the folder of the running program, which a worker of pytest-xdist does not have; without steps, see
# pipelines/stores.py.
os.environ.setdefault("ZENML_CUSTOM_SOURCE_ROOT", str(CHECKOUT / "tests" / "support"))

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the programs they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the system lacks; files with slow tests first, so that no worker is left alone with one."""
    lacking = {"darwin": {"linux"}, "win32": {"linux", "posix"}}.get(sys.platform, set())
    reasons = dict(marker.split(": ", 1) for marker in config.getini("markers") if marker.split(":")[0] in lacking)
    for item in items if reasons else ():
        for name in {mark.name for mark in item.iter_markers()} & set(reasons):
            item.add_marker(pytest.mark.skip(reason=reasons[name]))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the sizes of images that tests recorded with record_property."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "size":
                terminalreporter.write_line(f"size of image {value}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real captioned photographs; absent it is a failure in CI and a named skip elsewhere."""
    default = CHECKOUT.parent / "shared" / "data"
    path = Path(os.environ.get("IMAGE_FINDER_TEST_DATA", default))
    if not (path / "flickr8k").is_dir():
        message = f"no real photographs at {path}: set IMAGE_FINDER_TEST_DATA to a folder with flickr8k/ and coco/"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
