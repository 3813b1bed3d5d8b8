"""Vector index: stores unit vectors and answers nearest-neighbour queries; knows nothing of images or models.

vectors.npy        (count, dim) float32 unit rows, memory-mapped; one exact pass is a matrix product at memory speed
items.parquet      a row a vector: ITEM_SCHEMA
index.json         IndexManifest: format, count, sha256 of the bundle, of every other file and of itself, the self-check
approximate.faiss  above a million rows only (image_finder.components.index.tiers): names candidates, which are compared exactly
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from image_finder.components.arrays import Mask, Rows, Vectors
from image_finder.components.configs import first_fault
from image_finder.components.errors import BundleError, ConfigError, IndexMismatchError, QueryError, StorageError
from image_finder.components.index import exact, stored_paths
from image_finder.components.index.approximate import Approximate
from image_finder.components.index.arrow import bools, number_array, text_scalar
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.generations import pointer_stamp, published_root, resolve
from image_finder.components.index.tiers import Parameters
from image_finder.components.records.base import Record
from image_finder.components.storage import sealed, sha256_of_bytes, sha256_of_file, unsealed
from image_finder.components.text import one_line

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
MANIFEST = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
APPROXIMATE = "approximate.faiss"
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
_OPENING_TRIES = 3  # a writer that publishes twice while a generation is being opened removes it
_FEW = 1 / 4  # of the rows: up to so many, reading them alone costs less than a pass over all


class SelfCheck(Record):
    """What the writer measured on the finished index."""

    former_names: ClassVar[Mapping[str, str]] = {"n_pictures": "n_images"}

    n_images: int
    found_themselves_first: int  # the image, or one of equal content or equal vector
    recall_at_10: float  # of the index against an exact search in float64


class ApproximateFacts(Record):
    """What the approximate file was made with, and what was measured on it."""

    parameters: Parameters
    recall_at_10: float  # share of the 10 nearest of an exact search that are found, mean over the texts
    texts: Literal["captions", "sentences"]  # the gallery's own captions, or made ones
    n_texts: int
    made_by: str


class IndexManifest(Record):
    """Content of index.json."""

    format_version: int
    kind: Literal["exact", "hnsw", "ivfpq"]
    count: int
    embedding_dim: int
    bundle_sha256: str
    bundle_uri: str
    gallery: str
    roots: tuple[str, ...]  # absolute folders; no image outside them is ever opened
    failed: dict[str, str]  # uri -> reason, of images that are not in the index
    self_check: SelfCheck | None
    files_sha256: dict[str, str]
    approximate: ApproximateFacts | None = None  # of kinds other than exact
    uris: dict[str, str] = Field(default_factory=dict)  # root -> URI with its options, of roots that are object stores


class VectorIndex:
    """An opened index. approximate: what names candidates, None if every row is compared; fault: why it is not used
    although it should be, "" if it is or need not be.
    """

    def __init__(
        self,
        path: Path,
        manifest: IndexManifest,
        vectors: Vectors,
        items: pa.Table,
        *,
        approximate: Approximate | None = None,
    ) -> None:
        """Use VectorIndex.open."""
        self.path = path
        self.manifest = manifest
        self.vectors = vectors
        self.items = items
        self.approximate = approximate
        self.fault = ""

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "VectorIndex":
        """Open an index: its directory, or the current generation of a published root or library.

        verify: compare the hash of every file (0.5 s per GB). Without it every row is compared with a query, as an
        unverified approximate file could give wrong answers; a damaged one is ignored with a warning. Raises
        StorageError.
        """
        root = published_root(path)
        for tries_left in reversed(range(_OPENING_TRIES)):
            stamp = pointer_stamp(root)
            try:
                return cls._open_directory(resolve(root), verify=verify)
            except OSError as error:
                fault = StorageError(f"index {root} cannot be read: {error.strerror}; check its permissions")
                fault.__cause__ = error
            except StorageError as error:
                fault = error
            if not tries_left or pointer_stamp(root) == stamp:
                break
        raise fault

    @classmethod
    def _open_directory(cls, path: Path, *, verify: bool) -> "VectorIndex":
        manifest = read_manifest(path)
        _check_files(path, manifest, verify=verify)
        try:
            vectors = np.asarray(np.load(path / VECTORS, mmap_mode="r", allow_pickle=False))
            # Not read_table: it goes through pyarrow.dataset, which imports pandas, a fifth of a second.
            with pq.ParquetFile(path / ITEMS, memory_map=True) as stored:
                items = stored.read(use_threads=False).cast(ITEM_SCHEMA)
            pa.default_memory_pool().release_unused()  # what the reader kept: as much again as the items
        except Exception as error:  # numpy and pyarrow raise whatever their parsers meet
            raise _corrupted(path, one_line(error)) from error
        if vectors.dtype != np.float32:
            raise _corrupted(path, f"vectors are {vectors.dtype}, expected float32")
        if vectors.shape != (manifest.count, manifest.embedding_dim) or items.num_rows != manifest.count:
            expected = f"expected ({manifest.count}, {manifest.embedding_dim})"
            raise _corrupted(path, f"vectors {vectors.shape} and {items.num_rows} items, {expected}")
        index = cls(path, manifest, vectors, items)
        if verify and manifest.approximate is not None:
            index._open_approximate(manifest.approximate.parameters)
        return index

    def require_bundle(self, bundle_sha256: str) -> None:
        """Raises IndexMismatchError unless the index was made with this bundle."""
        if bundle_sha256 != self.manifest.bundle_sha256:
            raise IndexMismatchError(
                f"index {self.path} was made with bundle {self.manifest.bundle_sha256[:12]}, the bundle given is "
                f"{bundle_sha256[:12]}; embed the images again or name the right bundle"
            )

    def search(self, queries: Vectors, k: int, *, allowed: Sequence[Mask | None] = ()) -> Neighbours:
        """The k rows nearest to each query. queries: (n, dim); the score is the product with a unit row.

        allowed: for each query which rows may be found, (count,) bool, or None for all; then as many columns come back
        as the query with the most such rows has, and places that cannot be filled hold row -1 and score -inf. Ties:
        the lower row first.

        On the exact tier these are the nearest. On an approximate one some may be missing (manifest.approximate says
        how many of ten are found on average), never their number, and scores and order are the exact ones all the same.
        """
        masks = allowed or [None] * len(queries)
        answers = self._near(queries, k, masks)
        left = [place for place in range(len(queries)) if place not in answers]
        passed = exact.nearest(self.vectors, queries[left], k, [masks[place] for place in left]) if left else []
        answers.update(zip(left, passed, strict=True))
        return exact.stacked([answers[place] for place in range(len(queries))])

    def _near(self, queries: Vectors, k: int, masks: Sequence[Mask | None]) -> dict[int, Neighbours]:
        """The answers, by place, that need no pass over all rows."""
        answers: dict[int, Neighbours] = {}
        if self.approximate is None:
            return answers
        for place, rows in enumerate(self.approximate.candidates(queries, k, masks)):
            mask, query = masks[place], queries[place]
            if rows is not None:
                answers[place] = exact.nearest_of(self.vectors, query, rows, k)
            elif mask is not None and np.count_nonzero(mask) <= _FEW * self.manifest.count:
                answers[place] = exact.nearest_among(self.vectors, query, np.flatnonzero(mask), k)
        return answers

    def _open_approximate(self, parameters: Parameters) -> None:
        path, manifest = self.path / APPROXIMATE, self.manifest
        hint = "every row is compared instead, which is right but slow"
        try:
            _require_hash(path, manifest.files_sha256[APPROXIMATE])
            self.approximate = Approximate.open(path, parameters, count=manifest.count, dim=manifest.embedding_dim)
        except ConfigError as error:
            logger.warning("index %s: %s; %s", self.path, error, hint)
        except (StorageError, OSError) as error:
            self.fault = str(error)
            logger.warning("index %s: %s; %s; build it again", self.path, error, hint)

    def items_at(self, rows: Rows) -> list[dict[str, Any]]:
        """The items of rows, each by column."""
        return list(self.items.take(number_array(rows, pa.int64())).to_pylist())

    def item(self, row: int) -> dict[str, Any]:
        """One row of the items, by column."""
        return self.items_at(np.array([row], np.int64))[0]

    def row_of_id(self, identity: str) -> int:
        """Row of the image with this id. Raises QueryError if there is none."""
        row = int(pc.index(self.items["id"], text_scalar(identity)).as_py())
        if row < 0:
            raise QueryError(f"no image has the id {identity[:64]!r}; it may have left the index, search again")
        return row

    def rows_of_content(self, sha256: str) -> Rows:
        """Rows of the images with this content: (n,) int64, ascending."""
        return np.flatnonzero(bools(pc.equal(self.items["sha256"], text_scalar(sha256))))

    def file_of(self, row: int) -> Path:
        """Absolute path of an image's file, not resolved and not looked at."""
        return self.file_of_item(self.item(row))

    def file_of_item(self, item: dict[str, Any]) -> Path:
        """Absolute path of the file of what `item` gave."""
        return Path(self.manifest.roots[item["root"]], os.fsdecode(item["path"]))

    def store_of(self, row: int) -> str | None:
        """URI, with its options, of the object store that holds an image; None for one on this machine."""
        root = self.manifest.roots[self.items["root"][row].as_py()]
        return self.manifest.uris.get(root, root) if "://" in root else None

    def uri_of_item(self, item: dict[str, Any]) -> str:
        """Where the image of what `item` gave is, for people: absolute path, or URI of an object store."""
        root = self.manifest.roots[item["root"]]
        path = os.fsdecode(item["path"])
        whole = f"{root}/{path}" if "://" in root else os.path.join(root, path)  # noqa: PTH118 - Path costs more than a hit
        return os.fsencode(whole).decode("utf-8", "backslashreplace")


def item_id(root: Path, path: bytes) -> str:
    """Id of the image at a path below a root: 16 hex digits, the same as long as the file keeps its place."""
    return sha256_of_bytes(os.fsencode(root) + b"\0" + path)[:16]


def write_index(
    path: Path, vectors: Vectors, items: pa.Table, manifest: IndexManifest, *, base: Path | None = None
) -> IndexManifest:
    """Write an index into an empty folder; the caller makes that folder whole or absent. Rows must be unit vectors.

    base: see `write_manifest`. Returns the manifest with its hashes. Raises BundleError if vectors are not unit rows.
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
    write_manifest(path, manifest, base=base)
    return manifest


def write_manifest(path: Path, manifest: IndexManifest, *, base: Path | None = None) -> None:
    """Write index.json, with a checksum of itself. Paths below base are stored relative to the index, to move with it.

    base: None takes the library (or home) that a published index is in.
    """
    stored = manifest.model_copy(
        update={
            "bundle_uri": stored_paths.relative(manifest.bundle_uri, path, base),
            "roots": tuple(stored_paths.relative(root, path, base) for root in manifest.roots),
        }
    )
    (path / MANIFEST).write_text(sealed(stored.model_dump_json()), encoding="utf-8")


def is_sealed(path: Path) -> bool:
    """Whether index.json of the folder has its checksum; an index written before 2026-11-30 lacks it."""
    return unsealed((path / MANIFEST).read_bytes())[1]


def _check_files(path: Path, manifest: IndexManifest, *, verify: bool) -> None:
    needed, hashes = [VECTORS, ITEMS], manifest.files_sha256
    listed = needed if manifest.kind == "exact" else [*needed, APPROXIMATE]
    if set(hashes) != set(listed) or (manifest.kind == "exact") != (manifest.approximate is None):
        raise _corrupted(
            path, f"{MANIFEST} does not list what an index of kind {manifest.kind} has: {', '.join(listed)}"
        )
    for name in needed:
        if not (path / name).is_file():
            raise StorageError(f"index {path} is incomplete: {name} is missing; build it again")
        if verify:
            try:
                _require_hash(path / name, hashes[name])
            except StorageError as error:
                raise _corrupted(path, str(error)) from error


def _require_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise StorageError(f"{path.name} is missing")
    if (measured := sha256_of_file(path)) != expected:
        raise StorageError(f"{path.name} has sha256 {measured[:12]}, expected {expected[:12]}")


def _corrupted(path: Path, reason: str) -> StorageError:
    return StorageError(f"index {path} is corrupted: {reason}; build it again")


def read_manifest(path: Path) -> IndexManifest:
    """The manifest of an index, or of the current generation of a published root or library. Raises StorageError."""
    path = resolve(path)
    if not (path / MANIFEST).is_file():
        raise StorageError(f"no index at {path}: {MANIFEST} is missing; build one with 'image-finder index FOLDER'")
    try:
        values, _ = unsealed((path / MANIFEST).read_bytes())
        version = values["format_version"]
    except (ValueError, KeyError, RecursionError) as error:
        raise StorageError(
            f"{path / MANIFEST} is not an index manifest, or damaged: {error}; build it again"
        ) from error
    if version != FORMAT_VERSION:
        raise StorageError(f"index {path} has format {version}, this version reads {FORMAT_VERSION}; build it again")
    try:
        manifest = IndexManifest.model_validate(values)
    except ValidationError as error:
        raise StorageError(
            f"{path / MANIFEST} is not an index manifest: {first_fault(error)}; build it again"
        ) from error
    bundle_uri, roots = stored_paths.adopted(manifest.bundle_uri, manifest.roots, path)
    return manifest.model_copy(update={"bundle_uri": bundle_uri, "roots": roots})
