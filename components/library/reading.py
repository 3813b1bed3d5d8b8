"""Reading: image files become catalogue rows, and vectors in the cache."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from itertools import groupby
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import ImageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.exif import ImageFacts, image_facts
from image_finder.components.images.image_folder import opened_folder
from image_finder.components.library.catalog import PUBLISHED, Catalog, FileRow, Rows, base_of
from image_finder.components.library.engine import Batch, embed_here
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.library import Library
from image_finder.components.library.progress import reported
from image_finder.components.library.scan import Scan
from image_finder.components.moments import is_exact
from image_finder.components.system import all_files, openable, openable_path, path_bytes

_COMMIT_ROWS = 1000
_COMMIT_S = 10.0
_PATHS_AT_ONCE = 10_000  # between two batches the machine idles for about 0.3 s
# FAT stores times to 2 s: a file changed again within that time may have the same time.
_UNSETTLED_NS = 2_000_000_000
_ANONYMOUS = re.compile(r"^image \([\d,]+ bytes\): ")  # prefix of errors about images decoded from memory
_EXCUSED = ("cannot be read:", "not enough memory")  # the error may disappear although the file stays the same


@dataclass
class Reader:
    """Reads scanned files into `known` and, a thousand at a time, into the catalogue."""

    catalog: Catalog
    known: Rows
    scan: Scan
    folder_ids: Mapping[int, int]  # catalogue id of each position in scan.roots
    uris: Mapping[bytes, str]  # of object stores, by root
    bundle: Bundle
    cache: ContentCache
    options: IndexOptions
    library: Library
    on_image: Callable[[], None] | None = None  # called after each file that was read
    vanished: set[bytes] = field(default_factory=set, init=False)  # deleted since the scan
    failed: dict[bytes, str] = field(default_factory=dict, init=False)
    cut: dict[bytes, str] = field(default_factory=dict, init=False)  # JPEGs without their end: how much is missing
    _facts: dict[str, FileRow] = field(default_factory=dict, init=False)  # by content
    _pending: list[FileRow] = field(default_factory=list, init=False)
    _dirty: bool = field(default=False, init=False)
    _committed_at: float = field(default_factory=time.monotonic, init=False)

    def read(self, paths: Sequence[bytes]) -> None:
        """Read files; embed those whose content is not in the cache. Raises StorageError, BundleError."""
        self._facts = {row.sha256: row for row in self.known.values() if row.sha256}
        options = self.options
        with reported(self.library, len(paths), shown=options.progress) as progress:
            notes: dict[str, str] = {}  # by content
            for folder, base, batch in self._batches(paths):

                def take(path: Path, sha256: str, failure: str, facts: ImageFacts | None) -> None:
                    progress.advance()
                    whole = base + path_bytes(path)  # noqa: B023 - called before the next batch
                    self._take(whole, sha256, failure, facts)
                    if sha256 in notes:
                        self.cut[whole] = notes[sha256]
                    if self.on_image is not None:
                        self.on_image()

                try:
                    options.engine(Batch(folder, batch, self.bundle, self.cache, options.config, take, notes))
                finally:
                    self.commit()
        self.commit()

    def content_of(self, path: bytes) -> bytes:
        folder, base = self._folder_of(path)
        return opened_folder(folder).read(Path(os.fsdecode(path[len(base) :])))

    def _batches(self, paths: Sequence[bytes]) -> Iterable[tuple[str, bytes, list[Path]]]:
        for (folder, base), group in groupby(paths, self._folder_of):
            inner = [Path(os.fsdecode(path[len(base) :])) for path in group]
            size = _PATHS_AT_ONCE if self.options.engine is embed_here else len(inner)
            for start in range(0, len(inner), size):
                yield folder, base, inner[start : start + size]

    def _folder_of(self, path: bytes) -> tuple[str, bytes]:
        root = self._root_of(path)
        return (self.uris[root], base_of(root)) if root in self.uris else all_files()

    def _root_of(self, path: bytes) -> bytes:
        return self.scan.roots[self.scan.files[path][0]]

    def keep(self, path: bytes, row: FileRow) -> None:
        """Keep a row under the root of its file in the scan."""
        row = row._replace(folder=self.folder_ids[self.scan.files[path][0]], path=self._inner(path))
        old = self.known.get(path)
        self._dirty |= old is None or old._replace(settled=row.settled) != row
        self.known[path] = row
        self._pending.append(row)
        if len(self._pending) >= _COMMIT_ROWS or time.monotonic() - self._committed_at > _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        if self._pending:
            self.catalog.put(self._pending)
        if self._dirty:
            self.catalog.set(**{PUBLISHED: ""})
        self.catalog.commit()
        self._pending, self._dirty, self._committed_at = [], False, time.monotonic()

    def _take(self, path: bytes, sha256: str, failure: str, facts: ImageFacts | None) -> None:
        if failure:
            self._take_failure(path, _ANONYMOUS.sub("", failure))
            return
        row = self._row(path, sha256=sha256)
        if sha256 not in self._facts:
            try:
                self._facts[sha256] = _with_facts(row, facts or image_facts(self._source(path)))
            except (ImageError, OSError):  # it changed after it was decoded
                self.keep(path, row._replace(settled=0))
                return
        alike = self._facts[sha256]
        self.keep(path, alike._replace(size=row.size, mtime_ns=row.mtime_ns, settled=row.settled))

    def _source(self, path: bytes) -> Path | bytes:
        return self.content_of(path) if self._root_of(path) in self.uris else openable_path(Path(os.fsdecode(path)))

    def _take_failure(self, path: bytes, reason: str) -> None:
        if self._root_of(path) not in self.uris and not os.path.lexists(openable(path)):  # deleted since the scan
            self.vanished.add(path)
            return
        self.failed[path] = reason
        row = self._row(path, error=reason)
        self.keep(path, row._replace(settled=0) if reason.startswith(_EXCUSED) else row)

    def _inner(self, path: bytes) -> bytes:
        return path[len(base_of(self._root_of(path))) :]

    def _row(self, path: bytes, *, sha256: str = "", error: str = "") -> FileRow:
        position, size, mtime_ns = self.scan.files[path]
        began_ns, ended_ns = self.scan.began_ns - _UNSETTLED_NS, self.scan.ended_ns + _UNSETTLED_NS
        settled = is_exact(mtime_ns) and not began_ns <= mtime_ns <= ended_ns
        folder = self.folder_ids[position]
        return FileRow(folder, self._inner(path), size, mtime_ns, int(settled), sha256, error=error)


def _with_facts(row: FileRow, facts: ImageFacts) -> FileRow:
    taken_s = int(facts.taken_at.replace(tzinfo=UTC).timestamp()) if facts.taken_at else None
    return row._replace(**facts.model_dump(exclude={"taken_at"}), taken_s=taken_s)
