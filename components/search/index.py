"""Vector index: stores unit vectors and answers nearest-neighbour queries; knows nothing of images or models.

vectors.npy    (count, dim) float32 unit rows, memory-mapped; one exact pass is a matrix product at memory speed
items.parquet  a row a vector: ITEM_SCHEMA
index.json     IndexManifest: format, count, sha256 of the bundle and of every other file, the self-check
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from components.configs import first_fault
from components.errors import BundleError, IndexMismatchError, QueryError, StorageError
from components.records import Record
from components.search.arrow import bools, text_scalar
from components.search.published import current_generation, is_published_root
from components.storage import sha256_of_bytes, sha256_of_file

FORMAT_VERSION = 2
MANIFEST = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("root", pa.int16()),  # row of IndexManifest.roots
        ("path", pa.binary()),  # POSIX path relative to root, as the file system has it
        ("folder", pa.string()),
        ("name", pa.string()),
        ("sha256", pa.string()),
        ("dhash", pa.uint64()),
        ("bytes", pa.int64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("captions", pa.list_(pa.string())),
        ("taken_at", pa.timestamp("s")),
        ("modified_at", pa.timestamp("s")),
        ("camera", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)
_UNIT_TOLERANCE = 1e-3
# 8 MB. One query takes all of COCO in one call: between two calls the threads of BLAS wait for each other.
_PRODUCTS_A_CALL = 1 << 21
_SIFTED_ROWS = 8_192
_EXACT_ROWS = 4_096
_ROUNDING = 1e-5  # float32 products of a unit row and a unit query of 512 components are off by some 1e-7

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


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
    roots: tuple[str, ...]  # absolute folders; no picture outside them is ever opened
    failed: dict[str, str]  # uri -> reason, of pictures that are not in the index
    self_check: SelfCheck | None
    files_sha256: dict[str, str]


class Neighbours(NamedTuple):
    """Nearest rows. scores: (n_queries, k) float32 cosines, falling; rows: (n_queries, k) int64."""

    scores: Vectors
    rows: Rows


class VectorIndex:
    """An opened index."""

    def __init__(self, path: Path, manifest: IndexManifest, vectors: Vectors, items: pa.Table) -> None:
        """Use VectorIndex.open."""
        self.path = path
        self.manifest = manifest
        self.vectors = vectors
        self.items = items

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "VectorIndex":
        """Open an index: its folder, or a published root whose generation in force is taken.

        verify: compare the hash of every file (0.5 s a GB). Raises StorageError.
        """
        if is_published_root(path):
            path = current_generation(path)
        manifest = _read_manifest(path)
        _check_files(path, manifest, verify=verify)
        try:
            vectors = np.asarray(np.load(path / VECTORS, mmap_mode="r", allow_pickle=False))
            # Not read_table: it goes through pyarrow.dataset, which imports pandas, a fifth of a second.
            with pq.ParquetFile(path / ITEMS, memory_map=True) as stored:
                items = stored.read(use_threads=False).cast(ITEM_SCHEMA)
            pa.default_memory_pool().release_unused()  # what the reader kept: as much again as the items
        except Exception as error:  # numpy and pyarrow raise whatever their parsers meet
            reason = " ".join(str(error).split())[:200]
            raise _corrupted(path, reason or type(error).__name__) from error
        if vectors.dtype != np.float32:
            raise _corrupted(path, f"vectors are {vectors.dtype}, expected float32")
        if vectors.shape != (manifest.count, manifest.embedding_dim) or items.num_rows != manifest.count:
            expected = f"expected ({manifest.count}, {manifest.embedding_dim})"
            raise _corrupted(path, f"vectors {vectors.shape} and {items.num_rows} items, {expected}")
        return cls(path, manifest, vectors, items)

    def require_bundle(self, bundle_sha256: str) -> None:
        """Raises IndexMismatchError unless the index was made with this bundle."""
        if bundle_sha256 != self.manifest.bundle_sha256:
            raise IndexMismatchError(
                f"index {self.path} was made with bundle {self.manifest.bundle_sha256[:12]}, the bundle given is "
                f"{bundle_sha256[:12]}; embed the pictures again or name the right bundle"
            )

    def search(self, queries: Vectors, k: int, *, allowed: Sequence[NDArray[np.bool_] | None] = ()) -> Neighbours:
        """The k rows nearest to each query, exact. queries: (n, dim); the score is the product with a unit row.

        allowed: for each query which rows may be found, (count,) bool, or None for all; then as many columns come back
        as the query with the most such rows has, and places that cannot be filled hold row -1 and score -inf. Ties:
        the lower row first.

        One float32 pass finds whatever may be among the nearest; float64 decides between those. In float32 alone the
        scores of equal rows differ in the last bit with their place, and so would their order.
        """
        masks = allowed or [None] * len(queries)
        near = [_Contenders(k, _ROUNDING * max(1.0, float(np.linalg.norm(query)))) for query in queries]
        step = max(_PRODUCTS_A_CALL // max(len(queries), 1), 1)
        for start in range(0, self.manifest.count, step):
            part = queries @ self.vectors[start : start + step].T
            for found, line, mask in zip(near, part, masks, strict=True):
                found.add(start, line, None if mask is None else mask[start : start + step])
        answers = [self._nearest(query, found.rows, k) for query, found in zip(queries, near, strict=True)]
        width = max((len(answer.rows) for answer in answers), default=0)
        scores = np.full((len(queries), width), -np.inf, np.float32)
        rows = np.full((len(queries), width), -1, np.int64)
        for place, answer in enumerate(answers):
            scores[place, : len(answer.rows)], rows[place, : len(answer.rows)] = answer
        return Neighbours(scores, rows)

    def _nearest(self, query: Vectors, rows: Rows, k: int) -> Neighbours:
        """The k best of some rows, which ascend, for one query: (k,) each."""
        exact_query = query.astype(np.float64)
        parts = np.split(rows, range(_EXACT_ROWS, len(rows), _EXACT_ROWS))
        exact = [self.vectors[part].astype(np.float64) @ exact_query for part in parts]
        scores = np.concatenate(exact).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        return Neighbours(scores[best], rows[best])

    def items_at(self, rows: Rows) -> list[dict[str, Any]]:
        """The items of rows, each by column."""
        # An array made from a buffer: pa.array() would import pandas, half a second.
        places = pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])
        return list(self.items.take(places).to_pylist())

    def item(self, row: int) -> dict[str, Any]:
        """One row of the items, by column."""
        return self.items_at(np.array([row], np.int64))[0]

    def row_of_id(self, identity: str) -> int:
        """Row of the picture with this id. Raises QueryError if there is none."""
        row = int(pc.index(self.items["id"], text_scalar(identity)).as_py())
        if row < 0:
            raise QueryError(f"no picture has the id {identity[:64]!r}; it may have left the index, search again")
        return row

    def rows_of_content(self, sha256: str) -> Rows:
        """Rows of the pictures with this content: (n,) int64, ascending."""
        return np.flatnonzero(bools(pc.equal(self.items["sha256"], text_scalar(sha256))))

    def file_of(self, row: int) -> Path:
        """Absolute path of a picture's file, not resolved and not looked at."""
        return self.file_of_item(self.item(row))

    def file_of_item(self, item: dict[str, Any]) -> Path:
        """Absolute path of the file of what `item` gave."""
        return Path(self.manifest.roots[item["root"]], os.fsdecode(item["path"]))


def item_id(root: Path, path: bytes) -> str:
    """Id of the picture at a path below a root: 16 hex digits, the same as long as the file keeps its place."""
    return sha256_of_bytes(os.fsencode(root) + b"\0" + path)[:16]


def write_index(path: Path, vectors: Vectors, items: pa.Table, manifest: IndexManifest) -> IndexManifest:
    """Write an index into an empty folder; the caller makes that folder whole or absent. Rows must be unit vectors.

    Returns the manifest with its hashes. Raises BundleError if vectors are not unit rows.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) if len(vectors) else np.ones(1, np.float32)
    worst = float(np.abs(norms - 1).max())
    if not worst <= _UNIT_TOLERANCE:
        raise BundleError(
            f"cannot index {len(vectors)} vectors: a norm is off 1 by {worst:.3g}, allowed {_UNIT_TOLERANCE}; check the bundle"
        )
    np.save(path / VECTORS, np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
    # Columns of values that hardly repeat are read four times as fast without dictionaries.
    pq.write_table(items.cast(ITEM_SCHEMA), path / ITEMS, use_dictionary=["folder", "camera"])
    hashes = {name: sha256_of_file(path / name) for name in (VECTORS, ITEMS)}
    manifest = manifest.model_copy(update={"files_sha256": hashes})
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


class _Contenders:
    """Rows, ascending, that may be among the k best of those seen: the k best in float32, and what is within rounding."""

    def __init__(self, k: int, rounding: float) -> None:
        self.rows: Rows = np.empty(0, np.int64)
        self._scores: Vectors = np.empty(0, np.float32)
        self._limit = -np.inf
        self._k = k
        self._rounding = rounding

    def add(self, start: int, scores: Vectors, mask: NDArray[np.bool_] | None) -> None:
        """Look at the rows from start on, a part at a time: what the first parts hold spares most of the later ones."""
        for at in range(0, len(scores), _SIFTED_ROWS):
            part = slice(at, at + _SIFTED_ROWS)
            self._add_part(start + at, scores[part], None if mask is None else mask[part])

    def _add_part(self, start: int, scores: Vectors, mask: NDArray[np.bool_] | None) -> None:
        good = scores >= self._limit
        places = np.flatnonzero(good if mask is None else good & mask)
        if not len(places):
            return
        self.rows = np.concatenate([self.rows, start + places])
        self._scores = np.concatenate([self._scores, scores[places]])
        if len(self.rows) > self._k:
            at = len(self.rows) - self._k
            self._limit = float(np.partition(self._scores, at)[at]) - self._rounding
            kept = self._scores >= self._limit
            self.rows, self._scores = self.rows[kept], self._scores[kept]


def _check_files(path: Path, manifest: IndexManifest, *, verify: bool) -> None:
    if set(manifest.files_sha256) != {VECTORS, ITEMS}:
        raise _corrupted(path, f"{MANIFEST} does not list {VECTORS} and {ITEMS}")
    for name, expected in manifest.files_sha256.items():
        if not (path / name).is_file():
            raise StorageError(f"index {path} is incomplete: {name} is missing; build it again")
        if verify and (measured := sha256_of_file(path / name)) != expected:
            raise _corrupted(path, f"{name} has sha256 {measured[:12]}, expected {expected[:12]}")


def _corrupted(path: Path, reason: str) -> StorageError:
    return StorageError(f"index {path} is corrupted: {reason}; build it again")


def _read_manifest(path: Path) -> IndexManifest:
    if not (path / MANIFEST).is_file():
        raise StorageError(f"no index at {path}: {MANIFEST} is missing; build one with 'image-finder index FOLDER'")
    content = (path / MANIFEST).read_bytes()
    try:
        version = json.loads(content)["format_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path / MANIFEST} is not an index manifest; build it again") from error
    if version != FORMAT_VERSION:
        raise StorageError(f"index {path} has format {version}, this version reads {FORMAT_VERSION}; build it again")
    try:
        return IndexManifest.model_validate_json(content)
    except ValidationError as error:
        raise StorageError(
            f"{path / MANIFEST} is not an index manifest: {first_fault(error)}; build it again"
        ) from error
