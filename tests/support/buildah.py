"""Container images built by buildah without a daemon, on a base image made by debootstrap."""

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

BASE = "docker.io/library/python:3.11-slim"  # the name in each FROM
_BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
# Of this machine, where they exist: its certificates, pip's configuration and the folders of packages named there.
_CONFIGURATION = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip", "/root/.config/pip", "/opt/pypi", "/opt/pypi-more")
_CHROOT = ("--isolation", "chroot", "--network", "host")


class Buildah:
    """buildah with its storage, caches and temporary files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ("--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs")
        self.environment = {**os.environ, "TMPDIR": str(folder / "temporary")}
        (folder / "temporary").mkdir(parents=True)

    def words(self, command, *arguments):
        return ["buildah", *map(str, self._options), command, *map(str, arguments)]

    def __call__(self, command, *arguments):
        done = subprocess.run(
            self.words(command, *arguments), capture_output=True, text=True, check=False, env=self.environment
        )
        assert done.returncode == 0, f"buildah {command} {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def import_base(self, folder: Path) -> None:
        """Make Debian 12 with its Python in folder and import it under the name in the Dockerfiles."""
        command = ["debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", "bookworm", folder]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        (folder / "usr" / "bin" / "python").symlink_to("python3")
        container = self("from", "scratch")
        self("add", "-q", container, folder, "/")
        self("commit", "-q", container, BASE)
        self("rm", container)
        shutil.rmtree(folder)

    def build(self, dockerfile: str, image: str, **arguments: str) -> str:
        """Build a Dockerfile of infra/docker; returns the image's full name."""
        volumes = [word for path in _CONFIGURATION if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
        options = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        path = CHECKOUT / "infra" / "docker" / dockerfile
        name = f"localhost/{image}"
        self("bud", *_CHROOT, "--pull-never", *volumes, *options, "-f", path, "-t", name, CHECKOUT)
        return name

    def config_of(self, image: str) -> dict:
        """User, Entrypoint, Cmd, Env, Labels and Volumes."""
        return json.loads(self("inspect", "--type", "image", image))["OCIv1"]["config"]

    def size_mb(self, image: str) -> float:
        (found,) = json.loads(self("images", "--json", image))
        number, unit = re.fullmatch(r"([\d.]+) ([KMG]B)", found["size"]).groups()
        return float(number) * {"KB": 1e-3, "MB": 1, "GB": 1e3}[unit]

    def sizes(self, image: str) -> str:
        """One line for the tests' summary."""
        return f"{image.rpartition('/')[2]}: {self.size_mb(image):,.0f} MB, its base {self.size_mb(BASE):,.0f} MB"


@contextlib.contextmanager
def buildah_in(folder: Path):
    """Context with buildah and an imported base image; where impossible, fails in CI and skips elsewhere."""
    missing = [program for program in ("buildah", "debootstrap") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        message = f"apt-get install {' '.join(missing)}" if missing else "images are built as root"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    try:
        buildah = Buildah(folder)
        buildah.import_base(folder / "base")
        yield buildah
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gigabytes
