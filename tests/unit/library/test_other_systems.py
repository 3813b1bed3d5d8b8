"""A library where the system is taken for macOS or Windows; what only those systems have is substituted."""

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from image_finder.components import system
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.library import scan
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.search.finder import Finder

fcntl = pytest.importorskip("fcntl", reason="substitutes what this system has")
pytestmark = pytest.mark.linux


def locking(descriptor, mode, n_bytes):
    """msvcrt.locking, with flock."""
    assert (mode, n_bytes) == (2, 1)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


@pytest.fixture(params=["darwin", "win32"])
def other_system(request, monkeypatch):
    spelt = SimpleNamespace(
        F_GETPATH=50,
        fcntl=lambda descriptor, *_: os.fsencode(os.readlink(f"/proc/self/fd/{descriptor}")) + b"\0",  # noqa: PTH115
        **{name: getattr(fcntl, name) for name in ("flock", "LOCK_EX", "LOCK_NB")},
    )
    monkeypatch.setattr(system, "fcntl", spelt)
    monkeypatch.setattr(system, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    monkeypatch.setattr(system, "_drive_type", lambda _: 3)
    monkeypatch.setattr(system, "_DESCRIPTORS", Path("/absent"))
    for name in ("O_BINARY", "O_NOINHERIT"):
        monkeypatch.setattr(os, name, 0, raising=False)
    monkeypatch.setattr(scan, "is_link", lambda entry: entry.is_symlink())  # stat of Linux has no reparse tag
    monkeypatch.setattr(sys, "platform", request.param)
    return request.param


@pytest.mark.usefixtures("other_system")
def test_a_library_is_built_updated_and_searched_on_other_systems(colour_bundle, tmp_path):
    warned = []
    images, library = tmp_path / "images", Library(tmp_path / "home" / "library")
    options = IndexOptions(config=EmbeddingConfig(device="cpu"), bundle=colour_bundle.path)
    for name, colour in {"a/red": (220, 30, 30), "b/green": (30, 180, 50), "b/blue": (40, 60, 220)}.items():
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), colour).save(images / f"{name}.png")
    assert update(library, [images], options, warn=warned.append).added == 3
    (images / "b" / "blue.png").rename(images / "a" / "blue.png")
    (images / "b" / "green.png").unlink()
    changed = update(library, [], options, warn=warned.append)
    assert (changed.moved, changed.removed, changed.embedded) == (1, 1, 0)
    assert warned == []
    finder = Finder.open(library.root)
    assert [hit.uri for hit in finder.search("red", k=1).hits] == [(images / "a" / "red.png").as_posix()]
    assert finder.search("blue", k=1, folders=["images/a"]).hits[0].uri.endswith("/a/blue.png")
    assert not [path for path in library.root.rglob(".*") if path.suffix in {".if-tmp", ".if-old", ".if-lock"}]
