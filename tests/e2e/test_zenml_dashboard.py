"""ZenML's dashboard on a copy of a home's store, in Chromium: graph and reports are shown, and the home stays as it was."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from image_finder.components.storage import hash_directory
from tests.support.checkout import CHECKOUT
from tests.support.servers import free_port, running, wait_until

pytestmark = pytest.mark.slow

PIPELINE = CHECKOUT / "tests" / "pipeline"
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))},
    "PYTHONPATH": f"{CHECKOUT / '.typing'}{os.pathsep}{CHECKOUT}",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home after one run of the scratch pipeline."""
    root = tmp_path_factory.mktemp("dashboard")
    subprocess.run(
        [sys.executable, PIPELINE / "scratch.py", root / "home"],
        cwd=root,
        env={**ENVIRONMENT, "ZENML_CUSTOM_SOURCE_ROOT": str(CHECKOUT / "tests")},
        check=True,
        capture_output=True,
    )
    return root / "home"


@pytest.fixture(scope="module")
def server(home, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    before = hash_directory(home)
    command = [sys.executable, "-m", "image_finder", "ui", "--zenml", "--no-open", "--port", port, "--home", home]
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    with running(command, folder / "log", env=environment, cwd=folder) as process:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: status(f"{address}/health") == 200, process, folder / "log")
        yield address
    assert hash_directory(home) == before
    assert [path.name for path in folder.iterdir()] == ["log"], "the copy was left behind"


def status(address, method="GET", **headers):
    request = urllib.request.Request(address, method=method, headers=headers, data=b"{}" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_dashboard_opens_on_the_runs_and_shows_graph_and_artefacts(server, chromium):
    requested = []
    page = chromium.new_page()
    page.on("requestfinished", lambda request: requested.append(request.url))
    page.goto(f"{server}/projects/default/runs")
    page.get_by_role("link", name="scratch").first.wait_for()
    run = page.locator("a[href*='/runs/']").first.get_attribute("href")
    page.goto(f"{server}{run}")
    for name in ("make_parts", "use_parts", "folder", "interval", "table", "summary"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.get_by_text("table", exact=True).first.click(force=True)
    page.get_by_role("tab", name="Visualization").click()
    page.get_by_role("button", name="Load Preview").click()
    expect(page.get_by_text("ein Hündchen").first).to_be_visible()
    assert [url for url in requested if url.startswith("http") and not url.startswith(server)] == []


def test_nothing_can_be_changed_and_other_host_names_are_refused(server):
    with urllib.request.urlopen(f"{server}/api/v1/info", timeout=10) as answer:
        assert json.load(answer)["active"]
    assert status(f"{server}/api/v1/login", "POST") != 403
    for path in ("components", "run_metadata", "users"):
        assert status(f"{server}/api/v1/{path}", "POST") == 403
    assert status(f"{server}/api/v1/runs/some", "DELETE") == 403
    assert status(f"{server}/api/v1/info", Host="attacker.example") == 400


def test_the_dashboard_is_not_served_to_other_machines(home):
    command = [sys.executable, "-m", "image_finder", "ui", "--zenml", "--host", "0.0.0.0", "--home", home]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the dashboard has no login" in done.stderr


def test_a_home_without_runs_is_an_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "image_finder", "ui", "--zenml", "--no-open", "--home", tmp_path]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"Error: no pipeline runs in {tmp_path} yet: run 'image-finder demo' first"
    assert list(tmp_path.iterdir()) == []
