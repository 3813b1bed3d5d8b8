"""A library on a read-only disk: reading works, writing is a clear error."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.checkout import CHECKOUT

# Permissions do not bind root unless it drops these two capabilities.
RUNNER = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP: takes effect with the exec
            sys.exit(f"cannot drop capability {capability}: {os.strerror(ctypes.get_errno())}")
os.execv(sys.executable, [sys.executable, "-m", "image_finder", *sys.argv[1:]])
"""


@pytest.fixture
def locked(new_library):
    """A library that is read-only for everybody."""
    entries = [new_library, *new_library.rglob("*")]
    for entry in entries:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    yield new_library
    for entry in entries:
        entry.chmod(0o755 if entry.is_dir() else 0o644)


def finder(*words, **variables):
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", RUNNER, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def state_of(library):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in library.rglob("*")}


def test_a_read_only_library_can_be_searched_but_not_indexed(locked):
    before = state_of(locked)
    found = finder("search", "red", "-k", 1, "--library", locked, "--json")
    assert (found.returncode, json.loads(found.stdout)["hits"][0]["name"]) == (0, "red.jpg")
    image = finder("search", "--image", locked.parent / "images" / "town" / "blue.jpg", "--library", locked, "--json")
    assert json.loads(image.stdout)["hits"][0]["name"] == "blue.jpg"
    printed = finder("info", "--library", locked, "--json")
    assert (printed.returncode, json.loads(printed.stdout)["images"]) == (0, 52)
    (locked.parent / "images" / "town" / "blue.jpg").unlink()
    rehearsed = finder("index", "--dry-run", "--library", locked, "--json")
    assert (rehearsed.returncode, rehearsed.stderr) == (0, "")
    assert (json.loads(rehearsed.stdout)["removed"], json.loads(rehearsed.stdout)["unchanged"]) == (1, 51)
    refused = finder("index", "--library", locked)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"Error: cannot write {locked}")
    assert "Permission denied" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert state_of(locked) == before


@pytest.mark.parametrize("words", [("search", "red"), ("serve", "--port", "0")])
def test_the_home_of_another_account_is_named_in_one_line(tmp_path, words):
    home = tmp_path / "owner" / "home"
    (home / "library" / "index").mkdir(parents=True)
    for private in (home, home.parent):
        private.chmod(0)
        refused = finder(*words, IMAGE_FINDER_HOME=str(home))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"Error: home {home} cannot be read by this account: Permission denied; ")
        assert refused.stderr.count("\n") == 1
        private.chmod(0o700)
