"""The search image is built and run: buildah builds it without a daemon, on a base image made by debootstrap."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.slow

BASE, IMAGE = "docker.io/library/python:3.11-slim", "localhost/image-finder"
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
# Of this machine, where they exist: its certificates and pip's configuration.
CONFIGURATION = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")
ADDED_MB = 375  # python:3.11-slim has 125 MB, and the image at most 500
TOKEN = "a-token-of-more-than-16-characters"


class Buildah:
    """buildah with its storage in one folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ("--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs")

    def words(self, command, *arguments):
        return ["buildah", *map(str, self._options), command, *map(str, arguments)]

    def __call__(self, command, *arguments):
        done = subprocess.run(self.words(command, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"buildah {command} {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def size_mb(self, image):
        (found,) = json.loads(self("images", "--json", image))
        number, unit = re.fullmatch(r"([\d.]+) ([KMG]B)", found["size"]).groups()
        return float(number) * {"KB": 1e-3, "MB": 1, "GB": 1e3}[unit]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        message = f"apt-get install {' '.join(missing)}" if missing else "images are built as root"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("images")
    yield Buildah(folder)
    shutil.rmtree(folder, ignore_errors=True)  # gigabytes


@pytest.fixture(scope="module")
def image(buildah, tmp_path_factory):
    """The built image; its base is imported under the name that the Dockerfile has."""
    base = tmp_path_factory.mktemp("base")
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", base]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    (base / "usr" / "bin" / "python").symlink_to("python3")
    container = buildah("from", "scratch")
    buildah("add", "-q", container, base, "/")
    buildah("commit", "-q", container, BASE)
    buildah("rm", container)
    shutil.rmtree(base)
    volumes = [word for path in CONFIGURATION if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
    dockerfile = CHECKOUT / "infra" / "docker" / "serve.Dockerfile"
    chroot = ("--isolation", "chroot", "--network", "host", "--pull-never")
    buildah("bud", *chroot, *volumes, "-f", dockerfile, "-t", IMAGE, CHECKOUT)
    return IMAGE


@pytest.fixture(scope="module")
def inspected(buildah, image):
    return json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]


@pytest.fixture(scope="module")
def address(buildah, image, inspected, painted_library, tmp_path_factory):
    """Address of a server in a container, with the image's user and options, another port, and a read-only library."""
    folder = tmp_path_factory.mktemp("mounted")
    shutil.copytree(painted_library, folder / "library")
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, int(inspected["User"]))
        path.chmod(0o500 if path.is_dir() else 0o400)
    container = buildah("from", "--pull-never", image)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # Not /library, where buildah mounts the volume of the image.
    changed = {"8080": port, "/library": "/data/library"}
    command = [*inspected["Entrypoint"], *(changed.get(word, word) for word in inspected["Cmd"])]
    mounts = ("-v", f"{folder}:/data:ro")
    words = ("--isolation", "chroot", "--network", "host", "--user", inspected["User"], *mounts)
    environment = {**os.environ, "IMAGE_FINDER_TOKEN": TOKEN}
    run = buildah.words("run", *words, "--env", f"IMAGE_FINDER_TOKEN={TOKEN}", container, "--", *command)
    with (folder / "log").open("w") as log, subprocess.Popen(run, env=environment, stderr=log) as server:
        try:
            yield f"http://127.0.0.1:{port}", container, folder / "log"
        finally:
            subprocess.run(
                ["pkill", "-TERM", "-f", f"serve --library /data/library --host 0.0.0.0 --port {port}"], check=False
            )
            server.wait(30)


def answer(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as got:
        return json.load(got)


def test_the_image_is_small(buildah, image):
    assert buildah.size_mb(image) - buildah.size_mb(BASE) < ADDED_MB


def test_it_answers_as_its_user_with_a_read_only_library(address):
    url, _, log = address
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            assert answer(f"{url}/health/ready")["status"] == "ready"
            break
        time.sleep(0.2)
    else:
        pytest.fail(log.read_text()[-3000:])
    found = answer(f"{url}/api/v1/search?q=red&k=1", Authorization=f"Bearer {TOKEN}")
    assert found["hits"][0]["name"] == "red.jpg"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        answer(f"{url}/api/v1/search?q=red&k=1")


def test_its_health_check_passes(buildah, inspected, address):
    url, container, _ = address
    check = (CHECKOUT / "infra" / "docker" / "serve.Dockerfile").read_text().split("HEALTHCHECK")[1]
    words = json.loads(re.search(r"CMD (\[.*\])", check)[1])
    words = [word.replace("8080", url.rpartition(":")[2]) for word in words]
    run = ("--isolation", "chroot", "--network", "host", "--user", inspected["User"])
    buildah("run", *run, container, "--", *words)


def test_it_indexes_with_a_given_model(buildah, image, inspected, painted_library, tmp_path):
    shutil.copytree(painted_library.parent, tmp_path / "data")
    for path in (tmp_path, *tmp_path.rglob("*")):
        shutil.chown(path, int(inspected["User"]))
    container = buildah("from", "--pull-never", image)
    run = ("--isolation", "chroot", "--user", inspected["User"], "-v", f"{tmp_path}/data:/data", container, "--")
    options = ("--library", "/data/new", "--bundle", "/data/bundle")
    printed = buildah("run", *run, "image-finder", "index", "/data/images", *options)
    assert "images searchable in /data/new" in printed
