"""MLflow pages: addresses of the runs and of the champions in MLflow's UI, and a program that opens one of them.

MLflow 3 opens on its pages for language models; the addresses lead past them.
"""

import os
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from image_finder.model_registry.registry import Registry

_WAIT_S = 120


def mlflow_pages(registry: "Registry", server: str, experiment: str) -> dict[str, str]:
    """Address by content: the runs of an experiment, and the champion of each model. server: address of the UI."""
    pages = {}
    found = registry.client.get_experiment_by_name(experiment)
    if found is not None:
        pages["runs"] = f"{server}/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
    for name in registry.model_names():
        if (version := registry.champion_version(name)) is not None:
            pages[f"champion of {name}, version {version}"] = f"{server}/#/models/{quote(name)}/versions/{version}"
    return pages


def has_browser() -> bool:
    """Whether a browser with windows can be expected; in a terminal alone, another program would take it over."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform != "linux" or any(os.environ.get(name) for name in names)


def open_when_ready(server: str, page: str) -> bool:
    """Open a page in the browser once the server answers; returns whether a browser was found."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server}/health", timeout=5):  # noqa: S310 - an address of ours
                return webbrowser.open(page)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    open_when_ready(*sys.argv[1:3])
