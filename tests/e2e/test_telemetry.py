"""Neither the product nor its dependencies contact another host or leave a file that identifies a user.

The commands of the documents, training among them, and the demo are observed in the same way in their tests.
"""

import os
import subprocess
import sys

import pytest

from image_finder.components import telemetry
from tests.support.checkout import CHECKOUT

DEVICE_ID = ".cache/Microsoft/DeveloperTools/.onnxruntime/deviceid"
FINDER = """
from image_finder.components.search.finder import Finder
print(Finder.open({library!r}).search("red", k=1).hits[0].uri)
"""
CLIENT = """
import json, time, urllib.request
def read(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8080" + path, data, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60).read().decode()
for _ in range(600):
    try:
        read("/health/ready")
        break
    except OSError:
        time.sleep(0.1)
read("/")
print(read("/api/v1/search", {"terms": [{"text": "red"}], "k": 1}))
"""


RAY = """
import os
from image_finder.components.scaling.ray_session import ray_session
with ray_session("", cpus=1):
    import ray
    home = ray.remote(lambda: os.environ["HOME"])
    print(ray.get(home.remote()))
"""


def run(network, *words, **variables):
    done = subprocess.run(
        network.words(*words, cwd=CHECKOUT),
        env={**network.environment, "PYTHONPATH": str(CHECKOUT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def finder(network, *words, **variables):
    return run(network, sys.executable, "-m", "image_finder", *words, **variables)


def test_index_search_and_finder_contact_no_other_host(isolated_network, new_library):
    images, bundle = new_library.parent / "images", new_library.parent / "bundle"
    library = new_library.parent / "another"
    finder(isolated_network, "index", images, "--library", library, "--bundle", bundle)
    assert "red.jpg" in finder(isolated_network, "search", "red", "-k", "1", "--library", library, "--json")
    assert "red.jpg" in run(isolated_network, sys.executable, "-c", FINDER.format(library=str(library)))
    assert isolated_network.attempted() == []
    assert isolated_network.files() == []


def test_serve_contacts_no_other_host(isolated_network, painted_library):
    command = ("-m", "image_finder", "serve", "--library", painted_library, "--port", "8080")
    server = subprocess.Popen(
        isolated_network.words(sys.executable, *command, cwd=CHECKOUT),
        env={**isolated_network.environment, "PYTHONPATH": str(CHECKOUT)},
        stderr=subprocess.DEVNULL,
    )
    with server:
        try:
            assert "red.jpg" in run(isolated_network, sys.executable, "-c", CLIENT)
        finally:
            server.terminate()
    assert isolated_network.attempted() == []
    assert isolated_network.files() == []


@pytest.mark.slow
def test_ray_contacts_no_other_host_and_its_workers_have_the_users_home(isolated_network):
    """Includes metadata services of clouds, which Ray calls even without usage statistics."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    assert run(isolated_network, sys.executable, "-c", RAY) == f"{isolated_network.user_home}\n"
    assert isolated_network.attempted() == []
    assert isolated_network.files() == [".ray/auth_token"]  # the key of the local session


def test_a_user_who_opts_in_gets_telemetry_and_is_observed_here(isolated_network, painted_library):
    words = ("search", "red", "--library", painted_library)
    finder(isolated_network, *words, ORT_DISABLE_TELEMETRY="0")
    assert DEVICE_ID in isolated_network.files()
    lookup = "import socket\ntry: socket.getaddrinfo('a.example', 443)\nexcept OSError: pass\n"
    run(isolated_network, sys.executable, "-c", f"{lookup}socket.socket(2, 2).sendto(b'', ('192.0.2.1', 9))")
    assert {"looked up a.example", "called 192.0.2.1"} <= set(isolated_network.attempted())


@pytest.mark.parametrize("package", ["image_finder", "image_finder.steps"])
def test_every_package_switches_telemetry_off_before_its_modules_import_anything(package):
    kept = {name: value for name, value in os.environ.items() if name not in telemetry.OFF}
    program = f"import {package}, os, sys; print(dict(os.environ)); print([m for m in sys.modules if 'onnx' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": str(CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "", "RAY_USAGE_STATS_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    environment, imported = map(eval, done.stdout.splitlines())
    assert telemetry.OFF.items() - environment.items() == {("RAY_USAGE_STATS_ENABLED", "0")}
    assert environment["RAY_USAGE_STATS_ENABLED"] == "1"  # set by the user; the empty one is not
    assert imported == []
