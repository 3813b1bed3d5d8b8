"""Library: the folder in which all parts of a library lie, and who is writing to it; knows nothing of their content.

catalog.sqlite   what is known of each file        vectors-<maker>/  vectors by content, computed once
index/           published generations             bundles/          the bundle in use, so that a library stands alone
writer.lock, writer.json                           thumbnails/       of the server; may be removed at any time
"""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from image_finder.components.errors import StorageError
from image_finder.components.storage import make_private, write_errors, write_text_atomically
from image_finder.components.temporaries import remove_leftovers


class Library:
    """Where the parts of one library are."""

    def __init__(self, root: Path) -> None:
        """root: absolute or relative; need not exist."""
        self.root = root.expanduser().resolve()
        self.catalog = self.root / "catalog.sqlite"
        self.index = self.root / "index"
        self.bundles = self.root / "bundles"
        self._lock = self.root / "writer.lock"
        self._writer = self.root / "writer.json"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; it is free again when the process ends, however it ends.

        Raises StorageError at once, naming the holder, if another process has it, and if the folder cannot be written.
        """
        lock = FileLock(self._lock)
        with write_errors(self.root):
            make_private(self.root)
            try:
                lock.acquire(timeout=0)
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
        """Directories in which a writer that was killed may have left temporaries."""
        index = [self.index, self.index / "generations", self.bundles]
        return [self.root, *index, *self.root.glob("vectors-*"), self.root / "thumbnails"]

    def _holder(self) -> str:
        try:
            holder = json.loads(self._writer.read_bytes())
            since = datetime.fromisoformat(holder["since"]).astimezone()
            return f"process {int(holder['pid'])} since {since:%Y-%m-%d %H:%M:%S}"
        except (OSError, ValueError, TypeError, KeyError):  # it holds the lock and has not written its name yet
            return "another process"


def shown(path: bytes) -> str:
    r"""A path as text that can be written to any file: its exact characters, and bytes that are not UTF-8 as \xff."""
    return path.decode("utf-8", "backslashreplace")
