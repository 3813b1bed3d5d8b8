"""Reading: image files to catalogue rows, their vectors to the cache; what was done is kept whatever stops it."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path

from tqdm import tqdm

from image_finder.components.arrays import Rows
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ImageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.exif import image_facts
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder
from image_finder.components.library.catalog import Catalog, FileRow
from image_finder.components.library.scan import Scan
from image_finder.components.moments import is_exact

PUBLISHED = "published"  # setting: name of the generation that holds what the catalogue says, "" if none does
_COMMIT_ROWS = 1000
_COMMIT_S = 10.0
_PATHS_AT_ONCE = 10_000  # between two of them the machine idles for some 0.3 s
# FAT keeps times to 2 s: a file that changes so soon after its last change may look the same afterwards.
_UNSETTLED_NS = 2_000_000_000
_ANONYMOUS = re.compile(r"^image \([\d,]+ bytes\): ")  # how an image is named that was decoded from memory
_EXCUSED = ("cannot be read:", "not enough memory")  # both may pass without the file changing


class Reader:
    """Reads files a scan found and keeps what it finds, in `known` and in the catalogue, a thousand at a time."""

    def __init__(self, catalog: Catalog, known: Rows, scan: Scan, homes: Mapping[int, int]) -> None:
        """homes: the catalogue's id of each position in scan.roots."""
        self.vanished: set[bytes] = set()
        self.failed: dict[bytes, str] = {}
        self.cut: dict[bytes, str] = {}  # JPEGs whose end is missing: how much of them
        self._catalog = catalog
        self._known = known
        self.scan = scan
        self._homes = homes
        self._bases = [root.rstrip(b"/") + b"/" for root in scan.roots]
        self._facts: dict[str, FileRow] = {}
        self._pending: list[FileRow] = []
        self._dirty = False
        self._committed_at = time.monotonic()

    def read(
        self, bundle: Bundle, cache: ContentCache, paths: Sequence[bytes], config: EmbeddingConfig, *, progress: bool
    ) -> None:
        """Read files; embed those whose content is not in the cache. Raises StorageError, BundleError."""
        if not paths:
            return
        encoder = throughput_encoder(bundle, config)
        self._facts = {row.sha256: row for row in self._known.values() if row.sha256}
        with tqdm(total=len(paths), desc="indexing", unit="pic", disable=not progress) as bar:
            notes: dict[str, str] = {}  # by content

            def take(file: Path, sha256: str, failure: str) -> None:
                bar.update()
                self._take(file, sha256, failure)
                if sha256 in notes:
                    self.cut[os.fsencode(file)] = notes[sha256]

            try:
                for start in range(0, len(paths), _PATHS_AT_ONCE):
                    files = [Path(os.fsdecode(path)) for path in paths[start : start + _PATHS_AT_ONCE]]
                    cache_vectors(encoder, files, cache, config, on_image=take, cut=notes)
            finally:
                self.commit()

    def keep(self, path: bytes, row: FileRow) -> None:
        """Keep a row under the root its file was found from."""
        row = row._replace(folder=self._homes[self.scan.files[path][0]], path=self._inner(path))
        old = self._known.get(path)
        self._dirty |= old is None or old._replace(settled=row.settled) != row
        self._known[path] = row
        self._pending.append(row)
        if len(self._pending) >= _COMMIT_ROWS or time.monotonic() - self._committed_at > _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Write what is pending to the disk. Raises StorageError."""
        if self._pending:
            self._catalog.put(self._pending)
        if self._dirty:
            self._catalog.set(**{PUBLISHED: ""})
        self._catalog.commit()
        self._pending, self._dirty, self._committed_at = [], False, time.monotonic()

    def _take(self, file: Path, sha256: str, failure: str) -> None:
        """Keep what was found about one file, with the size and time it had before it was read."""
        path = os.fsencode(file)
        if failure:
            self._take_failure(path, _ANONYMOUS.sub("", failure))
            return
        row = self._row(path, sha256=sha256)
        if sha256 not in self._facts:
            try:
                self._facts[sha256] = _with_facts(row, file)
            except ImageError:  # it changed since it was decoded a moment ago
                self.keep(path, row._replace(settled=0))
                return
        alike = self._facts[sha256]
        self.keep(path, alike._replace(size=row.size, mtime_ns=row.mtime_ns, settled=row.settled))

    def _take_failure(self, path: bytes, reason: str) -> None:
        if not os.path.lexists(path):  # it went after it was found: no failure, and not there
            self.vanished.add(path)
            return
        self.failed[path] = reason
        row = self._row(path, error=reason)
        self.keep(path, row._replace(settled=0) if reason.startswith(_EXCUSED) else row)

    def _inner(self, path: bytes) -> bytes:
        return path[len(self._bases[self.scan.files[path][0]]) :]

    def _row(self, path: bytes, *, sha256: str = "", error: str = "") -> FileRow:
        position, size, mtime_ns = self.scan.files[path]
        settled = (
            is_exact(mtime_ns)
            and not self.scan.began_ns - _UNSETTLED_NS <= mtime_ns <= self.scan.ended_ns + _UNSETTLED_NS
        )
        return FileRow(
            folder=self._homes[position],
            path=self._inner(path),
            size=size,
            mtime_ns=mtime_ns,
            settled=int(settled),
            sha256=sha256,
            width_px=0,
            height_px=0,
            taken_s=None,
            camera="",
            latitude=None,
            longitude=None,
            error=error,
        )


def _with_facts(row: FileRow, file: Path) -> FileRow:
    facts = image_facts(file)
    return row._replace(
        width_px=facts.width_px,
        height_px=facts.height_px,
        taken_s=int(facts.taken_at.replace(tzinfo=UTC).timestamp()) if facts.taken_at else None,
        camera=facts.camera,
        latitude=facts.latitude,
        longitude=facts.longitude,
    )
