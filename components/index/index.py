"""Vector index: unit vectors with their items, and nearest-neighbour search over them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from image_finder.components.arrays import Mask, Rows, Vectors
from image_finder.components.errors import ConfigError, IndexMismatchError, QueryError, StorageError
from image_finder.components.index import exact
from image_finder.components.index.approximate import Approximate
from image_finder.components.index.arrow import bools, number_array, text_scalar
from image_finder.components.index.exact import Neighbours
from image_finder.components.index.format import (
    APPROXIMATE,
    ITEM_SCHEMA,
    ITEMS,
    VECTORS,
    IndexManifest,
    check_files,
    corrupted,
    read_manifest,
    require_hash,
)
from image_finder.components.index.generations import pointer_stamp, published_root, resolve
from image_finder.components.index.tiers import Parameters
from image_finder.components.text import one_line

logger = logging.getLogger(__name__)
_OPENING_TRIES = 3  # a writer that publishes twice while a generation is being opened removes it
_FEW = 1 / 4  # of the rows; reading at most this share costs less than a pass over all


@dataclass(eq=False)
class VectorIndex:
    """An opened index. Use VectorIndex.open."""

    path: Path
    manifest: IndexManifest
    vectors: Vectors
    items: pa.Table
    approximate: Approximate | None = None  # finds candidates; None if every row is compared
    fault: str = ""  # why the approximate file was ignored; "" if used or not needed

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "VectorIndex":
        """Open an index: its directory, or the current generation of a published root or library.

        verify: compare the hash of every file (0.5 s per GB); without it, every row is compared with a query. A damaged
        approximate file is ignored with a warning. Raises StorageError.
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
        check_files(path, manifest, verify=verify)
        try:
            vectors = np.asarray(np.load(path / VECTORS, mmap_mode="r", allow_pickle=False))
            # Not read_table: its pyarrow.dataset imports pandas, 0.2 s.
            with pq.ParquetFile(path / ITEMS, memory_map=True) as stored:
                items = stored.read(use_threads=False).cast(ITEM_SCHEMA)
            pa.default_memory_pool().release_unused()  # the reader keeps as much memory as the items take
        except Exception as error:  # numpy and pyarrow raise many kinds of errors
            raise corrupted(path, one_line(error)) from error
        if vectors.dtype != np.float32:
            raise corrupted(path, f"vectors are {vectors.dtype}, expected float32")
        if vectors.shape != (manifest.count, manifest.embedding_dim) or items.num_rows != manifest.count:
            expected = f"expected ({manifest.count}, {manifest.embedding_dim})"
            raise corrupted(path, f"vectors {vectors.shape} and {items.num_rows} items, {expected}")
        index = cls(path, manifest, vectors, items)
        if verify and manifest.approximate is not None:
            index._open_approximate(manifest.approximate.parameters)
        return index

    def require_bundle(self, bundle_sha256: str) -> None:
        """Raise IndexMismatchError unless the index was made with this bundle."""
        if bundle_sha256 != self.manifest.bundle_sha256:
            raise IndexMismatchError(
                f"index {self.path} was made with bundle {self.manifest.bundle_sha256[:12]}, the given bundle is "
                f"{bundle_sha256[:12]}; index the images again or give the right bundle"
            )

    def search(self, queries: Vectors, k: int, *, allowed: Sequence[Mask | None] = ()) -> Neighbours:
        """The k nearest rows of each query, (n, dim); a score is the product with a unit row.

        allowed: (count,) bool for each query, None for all rows. Missing rows are -1 with score -inf. Ties: the lower
        row first. An approximate index may miss rows; number, scores and order of the hits are still exact.
        """
        masks = allowed or [None] * len(queries)
        answers = self._near(queries, k, masks)
        left = [number for number in range(len(queries)) if number not in answers]
        passed = exact.nearest(self.vectors, queries[left], k, [masks[number] for number in left]) if left else []
        answers.update(zip(left, passed, strict=True))
        return exact.stacked([answers[number] for number in range(len(queries))])

    def _near(self, queries: Vectors, k: int, masks: Sequence[Mask | None]) -> dict[int, Neighbours]:
        """Answers that need no pass over all rows, by number of the query."""
        answers: dict[int, Neighbours] = {}
        if self.approximate is None:
            return answers
        for number, rows in enumerate(self.approximate.candidates(queries, k, masks)):
            mask, query = masks[number], queries[number]
            if rows is not None:
                answers[number] = exact.nearest_of(self.vectors, query, rows, k)
            elif mask is not None and np.count_nonzero(mask) <= _FEW * self.manifest.count:
                answers[number] = exact.nearest_among(self.vectors, query, np.flatnonzero(mask), k)
        return answers

    def _open_approximate(self, parameters: Parameters) -> None:
        path, manifest = self.path / APPROXIMATE, self.manifest
        hint = "searches compare every row instead, which is exact but slow"
        try:
            require_hash(path, manifest.files_sha256[APPROXIMATE])
            self.approximate = Approximate.open(path, parameters, count=manifest.count, dim=manifest.embedding_dim)
        except ConfigError as error:
            logger.warning("index %s: %s; %s", self.path, error, hint)
        except (StorageError, OSError) as error:
            self.fault = str(error)
            logger.warning("index %s: %s; %s; build it again", self.path, error, hint)

    def items_at(self, rows: Rows) -> list[dict[str, Any]]:
        return list(self.items.take(number_array(rows, pa.int64())).to_pylist())

    def item(self, row: int) -> dict[str, Any]:
        return self.items_at(np.array([row], np.int64))[0]

    def row_of_id(self, identity: str) -> int:
        """Row of the image with this id. Raises QueryError if there is none."""
        row = int(pc.index(self.items["id"], text_scalar(identity)).as_py())
        if row < 0:
            raise QueryError(
                f"no image has the id {identity[:64]!r}; it may have been removed from the index, search again"
            )
        return row

    def rows_of_content(self, sha256: str) -> Rows:
        """Rows of the images with this content: (n,) int64, ascending."""
        return np.flatnonzero(bools(pc.equal(self.items["sha256"], text_scalar(sha256))))

    def file_of(self, row: int) -> Path:
        """Absolute path of an image's file, not resolved; the file may be missing."""
        item = self.item(row)
        return Path(self.manifest.roots[item["root"]], os.fsdecode(item["path"]))

    def store_of(self, row: int) -> str | None:
        """URI, with options, of the object store of an image; None for an image on this machine."""
        root = self.manifest.roots[self.items["root"][row].as_py()]
        return self.manifest.uris.get(root, root) if "://" in root else None

    def uri_of_item(self, item: dict[str, Any]) -> str:
        """Path or object-store URI of an item's image, as displayable text."""
        root = self.manifest.roots[item["root"]]
        path = os.fsdecode(item["path"])
        whole = f"{root.rstrip('/')}/{path}"
        return os.fsencode(whole).decode("utf-8", "backslashreplace")
