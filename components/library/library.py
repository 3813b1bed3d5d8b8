"""Library: the directory of a library and its writer lock; knows nothing of the content.

catalog.sqlite   files and their metadata          vectors-<maker>/  vectors by content, computed once
index/           published generations             bundles/          bundles of the generations: a library is self-contained
writer.lock, writer.json                           thumbnails/       of the server; may be removed at any time
progress.json    of the update that runs now
"""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from image_finder.components.errors import StorageError
from image_finder.components.home import default_library, home_root
from image_finder.components.index.generations import is_published_root
from image_finder.components.storage import make_private, write_errors, write_text_atomically
from image_finder.components.system import resolved
from image_finder.components.temporaries import remove_leftovers


class Library:
    PROGRESS = "progress.json"

    def __init__(self, root: Path) -> None:
        self.root = resolved(root)
        self.catalog = self.root / "catalog.sqlite"
        self.index = self.root / "index"
        self.bundles = self.root / "bundles"
        self._lock = self.root / "writer.lock"
        self._writer = self.root / "writer.json"

    @contextlib.contextmanager
    def writing(self, *, wait_s: float = 0) -> Iterator[None]:
        """Hold the writer lock. Raises StorageError naming the holder after wait_s, and if the folder is read-only."""
        lock = FileLock(self._lock)
        with write_errors(self.root):
            make_private(self.root)
            try:
                lock.acquire(timeout=wait_s)
            except Timeout as error:
                raise StorageError(
                    f"library {self.root} is being written by {self._holder()}; wait for it or stop it"
                ) from error
        try:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            for folder in self._written():
                remove_leftovers(folder)
            write_text_atomically(self._writer, json.dumps({"pid": os.getpid(), "since": now}) + "\n")
            yield
        finally:
            lock.release()

    def _written(self) -> list[Path]:
        """Directories in which a killed writer may have left temporaries."""
        index = [self.index, self.index / "generations", self.bundles]
        return [self.root, *index, *self.root.glob("vectors-*"), self.root / "thumbnails"]

    def _holder(self) -> str:
        try:
            holder = json.loads(self._writer.read_bytes())
            since = datetime.fromisoformat(holder["since"]).astimezone()
            return f"process {int(holder['pid'])} since {since:%Y-%m-%d %H:%M:%S}"
        except (OSError, ValueError, TypeError, KeyError):  # it has not written its name yet
            return "another process"


def default_index() -> Path:
    """The index of the home's library, which is searched unless another one is named.

    A home of an earlier version is brought up to date first; if it cannot be written and its library is not published,
    its former index is searched. Raises StorageError.
    """
    home, index = home_root(), default_library() / "index"
    former = home / "index"
    if is_published_root(former):
        from image_finder.components.library.former_home import bring_up_to_date

        bring_up_to_date(home)
        if is_published_root(former) and not is_published_root(index):
            return former
    return index


def shown(path: bytes) -> str:
    r"""A path as text; bytes that are not UTF-8 are written as \xff."""
    return path.decode("utf-8", "backslashreplace")
