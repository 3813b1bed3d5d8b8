"""Reading: image files become catalogue rows, and vectors in the cache."""

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from itertools import groupby
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig
from image_finder.components.errors import ImageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.images.exif import ImageFacts, image_facts
from image_finder.components.images.image_folder import is_uri, opened_folder
from image_finder.components.index.vector_cache import cache_vectors, throughput_encoder
from image_finder.components.library.catalog import Catalog, FileRow
from image_finder.components.library.scan import Scan
from image_finder.components.library.update_plan import Rows
from image_finder.components.moments import is_exact

PUBLISHED = "published"  # setting: generation that matches the catalogue, "" if none does
_COMMIT_ROWS = 1000
_COMMIT_S = 10.0
_PATHS_AT_ONCE = 10_000  # between two batches the machine idles for about 0.3 s
# FAT stores times to 2 s: a file changed again within that time may have the same time.
_UNSETTLED_NS = 2_000_000_000
_ANONYMOUS = re.compile(r"^image \([\d,]+ bytes\): ")  # prefix of errors about images decoded from memory
_EXCUSED = ("cannot be read:", "not enough memory")  # the error may disappear although the file stays the same
_UNKNOWN = ImageFacts(width_px=0, height_px=0, taken_at=None, camera="", latitude=None, longitude=None)
_THIS_MACHINE = "/"  # folder of all directories of this machine


class OnFile(Protocol):
    """What takes each file that was read."""

    def __call__(self, path: Path, sha256: str, failure: str, facts: ImageFacts | None = None) -> None:
        """path: below the folder. sha256: of its content, "" if failure says why it cannot be read."""


class Engine(Protocol):
    """Reads files and makes sure that the cache holds the vector of each readable one."""

    def __call__(
        self,
        bundle: Bundle,
        folder: str,
        paths: Sequence[Path],
        cache: ContentCache,
        config: EmbeddingConfig,
        *,
        on_file: OnFile,
        cut: dict[str, str],
    ) -> None:
        """folder: directory or URI, as ImageFolder takes it; paths: below it. cut: takes a note by content for each JPEG
        whose end is missing, before on_file is called for it. Raises StorageError, BundleError, ConfigError.
        """


def embed_here(
    bundle: Bundle,
    folder: str,
    paths: Sequence[Path],
    cache: ContentCache,
    config: EmbeddingConfig,
    *,
    on_file: OnFile,
    cut: dict[str, str],
) -> None:
    """The engine that embeds with threads of this process."""
    images, facts = opened_folder(folder), dict[Path, ImageFacts]()

    def read(path: Path) -> bytes:
        content = images.read(path)
        if is_uri(folder):  # for local files the header is read later, only if the content is new
            facts[path] = known_facts(content)
        return content

    cache_vectors(
        throughput_encoder(bundle, config),
        paths,
        cache,
        config,
        on_image=lambda path, sha256, failure: on_file(path, sha256, failure, facts.pop(path, None)),
        read=read,
        cut=cut,
    )


def known_facts(source: Path | bytes) -> ImageFacts:
    """Facts of an image (a file, or a file's bytes); all unknown if its header cannot be read."""
    try:
        return image_facts(source)
    except ImageError:  # the file changed after it was embedded
        return _UNKNOWN


class Reader:
    """Reads scanned files into `known` and, a thousand at a time, into the catalogue."""

    def __init__(
        self, catalog: Catalog, known: Rows, scan: Scan, homes: Mapping[int, int], uris: Mapping[bytes, str]
    ) -> None:
        """homes: catalogue id of each position in scan.roots; uris: of object stores, by root."""
        self.vanished: set[bytes] = set()
        self.failed: dict[bytes, str] = {}
        self.cut: dict[bytes, str] = {}  # JPEGs without their end: how much is missing
        self._catalog = catalog
        self._known = known
        self.scan = scan
        self._homes = homes
        self._uris = uris
        self._bases = [root.rstrip(b"/") + b"/" for root in scan.roots]
        self._facts: dict[str, FileRow] = {}
        self._pending: list[FileRow] = []
        self._dirty = False
        self._committed_at = time.monotonic()

    def read(
        self,
        bundle: Bundle,
        cache: ContentCache,
        paths: Sequence[bytes],
        config: EmbeddingConfig,
        *,
        engine: Engine,
        progress: bool,
    ) -> None:
        """Read files; embed those whose content is not in the cache. Raises StorageError, BundleError."""
        if not paths:
            return
        self._facts = {row.sha256: row for row in self._known.values() if row.sha256}
        with tqdm(total=len(paths), desc="indexing", unit="pic", disable=not progress) as bar:
            notes: dict[str, str] = {}  # by content
            for folder, base, batch in self._batches(paths, engine):

                def take(path: Path, sha256: str, failure: str, facts: ImageFacts | None = None) -> None:
                    bar.update()
                    whole = base + os.fsencode(path)  # noqa: B023 - called before the next batch
                    self._take(whole, sha256, failure, facts)
                    if sha256 in notes:
                        self.cut[whole] = notes[sha256]

                try:
                    engine(bundle, folder, batch, cache, config, on_file=take, cut=notes)
                finally:
                    self.commit()

    def content_of(self, path: bytes) -> bytes:
        """Content of a file that the scan found. Raises ImageError, OSError."""
        folder, base = self._folder_of(path)
        return opened_folder(folder).read(Path(os.fsdecode(path[len(base) :])))

    def _batches(self, paths: Sequence[bytes], engine: Engine) -> Iterable[tuple[str, bytes, list[Path]]]:
        """Folder for the engine, prefix of its absolute paths, and files relative to it."""
        for (folder, base), group in groupby(paths, self._folder_of):
            inner = [Path(os.fsdecode(path[len(base) :])) for path in group]
            size = _PATHS_AT_ONCE if engine is embed_here else len(inner)
            for start in range(0, len(inner), size):
                yield folder, base, inner[start : start + size]

    def _folder_of(self, path: bytes) -> tuple[str, bytes]:
        position = self.scan.files[path][0]
        uri = self._uris.get(self.scan.roots[position])
        return (_THIS_MACHINE, b"/") if uri is None else (uri, self._bases[position])

    def keep(self, path: bytes, row: FileRow) -> None:
        """Keep a row under the root of its file in the scan."""
        row = row._replace(folder=self._homes[self.scan.files[path][0]], path=self._inner(path))
        old = self._known.get(path)
        self._dirty |= old is None or old._replace(settled=row.settled) != row
        self._known[path] = row
        self._pending.append(row)
        if len(self._pending) >= _COMMIT_ROWS or time.monotonic() - self._committed_at > _COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Commit pending rows. Raises StorageError."""
        if self._pending:
            self._catalog.put(self._pending)
        if self._dirty:
            self._catalog.set(**{PUBLISHED: ""})
        self._catalog.commit()
        self._pending, self._dirty, self._committed_at = [], False, time.monotonic()

    def _take(self, path: bytes, sha256: str, failure: str, facts: ImageFacts | None) -> None:
        """Keep the result for one file, with its size and time before it was read."""
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
        return self.content_of(path) if self._is_remote(path) else Path(os.fsdecode(path))

    def _is_remote(self, path: bytes) -> bool:
        return self.scan.roots[self.scan.files[path][0]] in self._uris

    def _take_failure(self, path: bytes, reason: str) -> None:
        if not self._is_remote(path) and not os.path.lexists(path):  # deleted since the scan
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


def _with_facts(row: FileRow, facts: ImageFacts) -> FileRow:
    return row._replace(
        width_px=facts.width_px,
        height_px=facts.height_px,
        taken_s=int(facts.taken_at.replace(tzinfo=UTC).timestamp()) if facts.taken_at else None,
        camera=facts.camera,
        latitude=facts.latitude,
        longitude=facts.longitude,
    )
