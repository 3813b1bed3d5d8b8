"""Vector index: stores unit vectors and answers nearest-neighbour queries; knows nothing of images or models.

vectors.npy    (count, dim) float32 unit rows, memory-mapped; one exact pass is a matrix product at memory speed
items.parquet  a row a vector: id, uri, sha256, width_px, height_px, captions
index.json     IndexManifest: format, count, sha256 of the bundle and of every other file, the self-check
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from components.configs import first_fault
from components.errors import BundleError, IndexMismatchError, StorageError
from components.records import Record
from components.storage import new_directory, sha256_of_file

FORMAT_VERSION = 1
MANIFEST = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("sha256", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("captions", pa.list_(pa.string())),
    ]
)
_UNIT_TOLERANCE = 1e-3
_PASS_ROWS = 65_536
_EXACT_ROWS = 4_096
_ROUNDING = 1e-5  # float32 cosines of 512 components are off by some 1e-7

Vectors = NDArray[np.float32]


class SelfCheck(Record):
    """What the writer measured on the finished index."""

    n_pictures: int
    found_themselves_first: int  # the picture, or one of equal content or equal vector
    recall_at_10: float  # of the index against an exact search in float64


class IndexManifest(Record):
    """Content of index.json."""

    format_version: int
    kind: Literal["exact"]
    count: int
    embedding_dim: int
    bundle_sha256: str
    bundle_uri: str
    gallery: str
    failed: dict[str, str]  # uri -> reason, of pictures that are not in the index
    self_check: SelfCheck | None
    files_sha256: dict[str, str]


class Neighbours(NamedTuple):
    """Nearest rows. scores: (n_queries, k) float32 cosines, falling; rows: (n_queries, k) int64."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


class VectorIndex:
    """An opened index."""

    def __init__(self, path: Path, manifest: IndexManifest, vectors: Vectors, items: pa.Table) -> None:
        """Use VectorIndex.open."""
        self.path = path
        self.manifest = manifest
        self.vectors = vectors
        self.items = items

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> "VectorIndex":
        """Open an index directory; verify compares the hash of every file. Raises StorageError."""
        manifest = _read_manifest(path)
        for name, expected in manifest.files_sha256.items():
            if not (path / name).is_file():
                raise StorageError(f"index {path} is incomplete: {name} is missing; build it again")
            if verify and (measured := sha256_of_file(path / name)) != expected:
                raise StorageError(
                    f"index {path} is corrupted: {name} has sha256 {measured[:12]}, expected {expected[:12]}; build it again"
                )
        try:
            vectors = np.load(path / VECTORS, mmap_mode="r", allow_pickle=False)
            # Not read_table: it goes through pyarrow.dataset, which imports pandas, a fifth of a second.
            with pq.ParquetFile(path / ITEMS, memory_map=True) as stored:
                items = stored.read().cast(ITEM_SCHEMA)
        except Exception as error:  # numpy and pyarrow raise whatever their parsers meet
            reason = " ".join(str(error).split())[:200]
            raise StorageError(
                f"index {path} is corrupted: {reason or type(error).__name__}; build it again"
            ) from error
        if vectors.dtype != np.float32:
            raise StorageError(
                f"index {path} is corrupted: vectors are {vectors.dtype}, expected float32; build it again"
            )
        if vectors.shape != (manifest.count, manifest.embedding_dim) or items.num_rows != manifest.count:
            raise StorageError(
                f"index {path} is corrupted: vectors {vectors.shape} and {items.num_rows} items, expected "
                f"({manifest.count}, {manifest.embedding_dim}); build it again"
            )
        return cls(path, manifest, vectors, items)

    def require_bundle(self, bundle_sha256: str) -> None:
        """Raises IndexMismatchError unless the index was made with this bundle."""
        if bundle_sha256 != self.manifest.bundle_sha256:
            raise IndexMismatchError(
                f"index {self.path} was made with bundle {self.manifest.bundle_sha256[:12]}, the bundle given is "
                f"{bundle_sha256[:12]}; embed the pictures again or name the right bundle"
            )

    def search(self, queries: Vectors, k: int) -> Neighbours:
        """The k rows nearest to each query by cosine, exact. queries: (n, dim) unit rows. Ties: the lower row first.

        One float32 pass finds whatever may be among the nearest; float64 decides between those. In float32 alone the
        cosines of equal rows differ in the last bit with their place, and so would their order.
        """
        k = min(k, self.manifest.count)
        near: list[list[NDArray[np.int64]]] = [[] for _ in queries]
        for start in range(0, self.manifest.count, _PASS_ROWS):
            part = queries @ self.vectors[start : start + _PASS_ROWS].T
            for found, line in zip(near, part, strict=True):
                found.append(start + _contenders(line, k))
        answers = [self._nearest(query, np.concatenate(rows), k) for query, rows in zip(queries, near, strict=True)]
        scores = np.array([answer.scores for answer in answers], np.float32).reshape(len(queries), k)
        return Neighbours(scores, np.array([answer.rows for answer in answers], np.int64).reshape(len(queries), k))

    def _nearest(self, query: Vectors, rows: NDArray[np.int64], k: int) -> Neighbours:
        """The k best of some rows, which ascend, for one query: (k,) each."""
        exact_query = query.astype(np.float64)
        parts = np.split(rows, range(_EXACT_ROWS, len(rows), _EXACT_ROWS))
        exact = [self.vectors[part].astype(np.float64) @ exact_query for part in parts]
        scores = np.concatenate(exact).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        return Neighbours(scores[best], rows[best])

    def items_at(self, rows: NDArray[np.int64]) -> Iterator[dict[str, object]]:
        """Items of rows, in their order, as dictionaries of the columns."""
        for row in rows.tolist():  # not take(): its array of rows would make pyarrow import pandas, half a second
            yield from self.items.slice(row, 1).to_pylist()


def write_index(path: Path, vectors: Vectors, items: pa.Table, manifest: IndexManifest) -> IndexManifest:
    """Write an index whole or not at all. Rows must be unit vectors. Returns the manifest with its hashes.

    Raises BundleError if vectors are not unit rows, StorageError if they cannot be written.
    """
    norms = np.linalg.norm(vectors, axis=1) if len(vectors) else np.ones(1, np.float32)
    worst = float(np.abs(norms - 1).max())
    if not worst <= _UNIT_TOLERANCE:
        raise BundleError(
            f"cannot index {len(vectors)} vectors: a norm is off 1 by {worst:.3g}, allowed {_UNIT_TOLERANCE}; check the bundle"
        )
    with new_directory(path) as folder:
        np.save(folder / VECTORS, np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
        pq.write_table(items.cast(ITEM_SCHEMA), folder / ITEMS)
        hashes = {name: sha256_of_file(folder / name) for name in (VECTORS, ITEMS)}
        manifest = manifest.model_copy(update={"files_sha256": hashes})
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _contenders(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions, ascending, of the k largest scores and of those that rounding may have put below them."""
    if len(scores) <= k:
        return np.arange(len(scores))
    limit = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= limit - _ROUNDING)


def _read_manifest(path: Path) -> IndexManifest:
    if not (path / MANIFEST).is_file():
        raise StorageError(
            f"no index at {path}: {MANIFEST} is missing; build one with 'image-finder pipeline run indexing'"
        )
    try:
        manifest = IndexManifest.model_validate_json((path / MANIFEST).read_bytes())
    except ValidationError as error:
        raise StorageError(
            f"{path / MANIFEST} is not an index manifest: {first_fault(error)}; build it again"
        ) from error
    if manifest.format_version != FORMAT_VERSION:
        raise StorageError(
            f"index {path} has format {manifest.format_version}, this version reads {FORMAT_VERSION}; build it again"
        )
    return manifest
