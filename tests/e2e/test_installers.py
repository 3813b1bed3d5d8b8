"""The wheel as users install it: by pip, pipx and uv; what goes wrong there is one line with the command that helps.

Installers use this account's package caches; everything else is in a home directory of the test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from image_finder.components.starter import FOLDER
from image_finder.components.starter.manifest import StarterManifest
from tests.support.installed import CONSTRAINTS, build_wheel, finished, refusal, run
from tests.support.package_index import package_index

pytestmark = pytest.mark.slow

PACKAGE = "text-guided-image-finder"
OURS = re.compile("image.finder|text.guided")
FETCH = "Run: image-finder starter fetch\n"


class Installed(NamedTuple):
    """A program of one installer, in a user's home directory."""

    finder: Path
    user: Path
    variables: dict[str, Any]
    uninstall: tuple[object, ...]
    install_hint: str

    def run(self, *words):
        return run(self.finder, *words, **self.variables)

    def refusal(self, *words, **more):
        return refusal(self.finder, *words, **self.variables, **more)

    def paths(self):
        """What `info --paths` prints."""
        return [*map(Path, json.loads(self.run("info", "--paths", "--json")))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """Directory of the programs pipx and uv."""
    root = tmp_path_factory.mktemp("tools")
    venv.create(root, with_pip=True)
    run(root / "bin" / "python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS, "pipx", "uv")
    return root / "bin"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Painted images of few bytes, far apart for any model."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(noise).resize((80, 60)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module", params=["pip", "pipx", "uv"])
def installed(request, wheel, tools, tmp_path_factory):
    user = tmp_path_factory.mktemp(request.param) / "user"
    user.mkdir()
    caches = Path.home() / ".cache"
    variables = {
        "HOME": user,
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", caches / "pip"),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", caches / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    finder = user / ".local" / "bin" / "image-finder"
    local = f"{PACKAGE}[search] @ {wheel.as_uri()}"
    if request.param == "pip":
        env = user / "env"
        venv.create(env, with_pip=True)
        pip = (env / "bin" / "python", "-m", "pip")
        run(*pip, "install", "-q", "--no-compile", "-c", CONSTRAINTS, local, **variables)
        uninstall: tuple[object, ...]
        finder, uninstall = env / "bin" / "image-finder", (*pip, "uninstall", "-q", "-y", PACKAGE)
        hint = "pip install"
    elif request.param == "pipx":
        words = ("install", "-q", "--python", sys.executable, f"--pip-args=-c {CONSTRAINTS}", local)
        run(tools / "pipx", *words, **variables)
        uninstall, hint = (tools / "pipx", "uninstall", PACKAGE), "pipx install --force"
    else:
        run(tools / "uv", "tool", "install", "-q", "--python", sys.executable, "-c", CONSTRAINTS, local, **variables)
        uninstall, hint = (tools / "uv", "tool", "uninstall", "-q", PACKAGE), "uv tool install"
    return Installed(finder, user, variables, uninstall, hint)


def files_below(folder):
    """Files and links, except byte code, which Python writes into an environment."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder) for path in files if path.suffix != ".pyc"}


SMALL_DISK = """
set -e
mkdir -p "$1"
mount -t tmpfs -o size="$2" none "$1"
shift 2
exec "$@"
"""


@pytest.mark.linux
def test_a_disk_too_small_for_the_assembly_is_one_line(images, tmp_path):
    _require_mounts()
    home = tmp_path / "home"
    # With the packages of the tests, which include the trunk.
    words = ("unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", home, "60m", sys.executable, "-m", "image_finder")
    line = refusal(*words, "index", images, IMAGE_FINDER_HOME=home)
    assert re.fullmatch(r"Error: cannot write .*: No space left on device; nothing was changed there, free .*\n", line)


@pytest.mark.linux
def test_a_disk_too_small_for_the_download_is_one_line_before_it(installed, images, tmp_path):
    _require_mounts()
    home = tmp_path / "home"
    words = ("unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", home, "150m", installed.finder, "starter", "fetch")
    line = refusal(*words, **installed.variables, IMAGE_FINDER_HOME=home)
    assert line.startswith(f"Error: disk too small: {home}/bundles has 1")
    assert "the starter model needs 274 MB; free some space, or set IMAGE_FINDER_HOME to another disk" in line


def _require_mounts():
    command = ["unshare", "--mount", "true"]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made: run as root with unshare (util-linux)")


@pytest.mark.linux
def test_fetching_without_a_network_is_one_line(installed, tmp_path):
    _require_mounts()
    variables = {**installed.variables, "PIP_NO_CACHE_DIR": "1", "IMAGE_FINDER_HOME": tmp_path / "home"}
    done = finished("unshare", "--net", installed.finder, "starter", "fetch", **variables)
    assert done.returncode == 1
    announcement, error = done.stderr.splitlines()
    text = StarterManifest.verified(FOLDER).trunks["text"]
    assert announcement.startswith(f"downloading {text.package} {text.version} ")
    assert error.startswith(f"Error: cannot fetch {text.package} {text.version}: ")
    command = error.rpartition(" run: ")[2]
    assert command.startswith(installed.install_hint.split()[0])
    assert f"{text.package.replace('-', '_')}-{text.version}-py3-none-any.whl" in command
    kept = tmp_path / "home" / "bundles"
    assert [path.name for path in kept.iterdir()] == []


def test_from_installation_to_search_to_uninstallation(installed, images):
    """In one test, as each part needs the one before; the last one of each installer."""
    assert installed.refusal("index", images).endswith(f"0.1.0, which is not installed. {FETCH}")
    before = files_below(installed.user)
    printed = installed.run("starter", "fetch")
    assert printed.startswith("starter model ready: ")
    installed.run("index", images)
    assert len(json.loads(installed.run("search", "colourful", "--json"))["hits"]) == 3
    installed.run("classify", images / "0.png", "--labels", "red,blue")

    (home,) = (path for path in installed.paths() if path.name == "image-finder")
    assert home == installed.user / ".local" / "share" / "image-finder"
    new = files_below(installed.user) - before
    assert [path for path in new if not (installed.user / path).is_relative_to(home)] == []

    bundle = Path(printed.removeprefix("starter model ready: ").strip())
    (bundle / "text_encoder.onnx").write_bytes(b"cut")
    another = ("--library", installed.user / "another")
    assert installed.refusal("index", images, *another).endswith(FETCH)
    installed.run("starter", "fetch")
    installed.run("index", images, *another)
    assert installed.user / "another" in [*map(Path, json.loads(installed.run("info", "--json", *another))["stored"])]

    hint = f"which is not installed: {installed.install_hint} '{PACKAGE}[pipeline]'\n"
    for words in (("pipeline", "run", "training", "--config", "demo"), ("demo",), ("models", "list")):
        assert installed.refusal(*words).endswith(hint)

    run(*installed.uninstall, **installed.variables)
    assert not installed.finder.exists()
    shutil.rmtree(home)
    shutil.rmtree(installed.user / "another")
    left = [path for path in files_below(installed.user) if OURS.search(str(path))]
    assert [path for path in left if path.name != f".{PACKAGE}.lock"] == [], "except a lock of pipx"


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The command of the wheel without an extra."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root, with_pip=True)
    run(root / "bin" / "python", "-m", "pip", "install", "-q", "--no-compile", "-c", CONSTRAINTS, wheel)
    return root / "bin" / "image-finder"


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("search", "cats"), "search"),
        (("index", "."), "search"),
        (("serve",), "search"),
        (("classify", "x.png", "--labels", "a,b"), "search"),
        (("starter", "fetch"), "search"),
        (("data", "check", "."), "data"),
        (("pipeline", "run", "training", "--config", "demo"), "pipeline"),
        (("demo",), "pipeline"),
        (("models", "list"), "pipeline"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(bare, tmp_path, words, extra):
    line = refusal(bare, *words, IMAGE_FINDER_HOME=tmp_path)
    assert line.endswith(f"which is not installed: pip install '{PACKAGE}[{extra}]'\n")


def test_without_an_extra_the_paths_of_stored_data_are_printed(bare, tmp_path):
    assert run(bare, "info", "--paths", IMAGE_FINDER_HOME=tmp_path).startswith(f"{tmp_path}  home")


@pytest.mark.parametrize("version", ["3.10", "3.15"])
def test_an_unsupported_python_is_refused_with_the_supported_ones(wheel, tools, tmp_path, version):
    with package_index(tmp_path / "index") as index:
        page = index.folder / "simple" / PACKAGE / "index.html"
        page.parent.mkdir()
        shutil.copy(wheel, index.folder)
        link = f'<a href="../../{wheel.name}" data-requires-python="&gt;=3.11,&lt;3.15">{wheel.name}</a>'
        page.write_text(f"<!DOCTYPE html>{link}")
        variables = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url, "PIP_FIND_LINKS": ""}
        options = ("--no-deps", "--only-binary=:all:", "--python-version", version, "-d", tmp_path)
        by_pip = finished(tools / "python", "-m", "pip", "download", *options, PACKAGE, **variables)
    assert by_pip.returncode == 1
    assert "Requires-Python <3.15,>=3.11" in by_pip.stderr or "Requires-Python >=3.11,<3.15" in by_pip.stderr
    asked = tmp_path / "requirements.in"
    asked.write_text(f"{PACKAGE} @ {wheel.as_uri()}")
    by_uv = finished(tools / "uv", "pip", "compile", "-q", "--offline", "--python-version", version, asked)
    assert by_uv.returncode == 1
    if version == "3.10":  # uv ignores upper limits until it installs
        assert "(>=3.10) does not satisfy Python>=3.11,<3.15" in " ".join(by_uv.stderr.split())
