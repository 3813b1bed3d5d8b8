"""Shards: Parquet files of image vectors by content, written by many processes; imports no Ray.

A shard is named by the contents it was made for, so that the same work done twice is the same file. It is written whole
or not at all, and its pages carry checksums: one that is damaged counts as absent, and its images are embedded again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from image_finder.components.arrays import Vectors
from image_finder.components.errors import StorageError
from image_finder.components.images.exif import ImageFacts
from image_finder.components.images.image_folder import is_uri, shown_uri, uri_below
from image_finder.components.index.duplicates import Hashes
from image_finder.components.storage import sha256_of_bytes, write_bytes_atomically, write_errors
from image_finder.components.text import one_line

logger = logging.getLogger(__name__)


_ENDING = ".parquet"
_FACTS = pa.schema(
    [
        ("sha256", pa.string()),
        ("dhash", pa.uint64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("taken_at", pa.timestamp("s")),
        ("camera", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)


class ShardRows(NamedTuple):
    """Content of shards for distinct keys, in one order."""

    keys: Sequence[str]  # SHA-256 of the files, hex
    vectors: Vectors  # (n, dim) unit rows
    hashes: Hashes  # (n,) difference hashes
    facts: Sequence[ImageFacts]


class Shards:
    """Shards of one image tower and preprocessing, in a shared folder or an object store."""

    def __init__(self, location: str, *, maker: str, dim: int) -> None:
        """location: folder or URI; maker: hash of image tower and preprocessing. Raises StorageError."""
        name = f"shards-{maker[:16]}"
        self.location = uri_below(location, name) if is_uri(location) else str(Path(location, name))
        self.dim = dim
        self._files, self._base = _open(self.location)

    def write(self, name: str, rows: ShardRows) -> None:
        facts = {field: [getattr(each, field) for each in rows.facts] for field in _FACTS.names[2:]}
        table = pa.table({"sha256": list(rows.keys), "dhash": rows.hashes, **facts}, schema=_FACTS)
        flat = pa.array(np.ascontiguousarray(rows.vectors, np.float32).reshape(-1))
        table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, self.dim))
        sink = pa.BufferOutputStream()
        # No compression, since vectors do not compress. Page checksums are verified on reading.
        pq.write_table(table, sink, use_dictionary=["camera"], compression="none", write_page_checksum=True)
        self._put(name, sink.getvalue().to_pybytes())

    def keys_of(self, name: str) -> list[str]:
        """Empty if the shard is missing or damaged."""
        try:
            with (
                self._files.open_input_file(f"{self._base}/{name}") as stream,
                pq.ParquetFile(stream, page_checksum_verification=True) as shard,
            ):
                keys: list[str] = shard.read(["sha256"], use_threads=False)["sha256"].to_pylist()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.warning("shard %s/%s cannot be read and is made again: %s", self.shown, name, one_line(error))
            return []
        return keys

    def all_keys(self) -> set[str]:
        return {key for name in self._names() for key in self.keys_of(name)}

    def collect(self, keys: Sequence[str]) -> ShardRows:
        """Rows of distinct keys, in their order. Raises StorageError if a key is in no shard."""
        number = {key: n for n, key in enumerate(keys)}
        vectors, hashes = np.empty((len(keys), self.dim), np.float32), np.empty(len(keys), np.uint64)
        facts: dict[int, ImageFacts] = {}
        for table in filter(None, map(self._whole, self._names())):
            found = np.array([number.get(key, -1) for key in table["sha256"].to_pylist()], np.int64)
            needed = found >= 0
            rows = found[needed]
            flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            vectors[rows] = flat.reshape(-1, self.dim)[needed]
            hashes[rows] = table["dhash"].to_numpy()[needed]
            values = table.select(_FACTS.names[2:]).filter(needed).to_pylist()
            facts |= {row: ImageFacts(**each) for row, each in zip(rows.tolist(), values, strict=True)}
        if missing := [key for key, n in number.items() if n not in facts]:
            raise StorageError(
                f"{len(missing)} of {len(number)} vectors are not in {self.shown}, first of content {missing[0][:12]}; run again"
            )
        return ShardRows(keys, vectors, hashes, [facts[n] for n in range(len(keys))])

    @property
    def shown(self) -> str:
        return shown_uri(self.location) if is_uri(self.location) else self.location

    def _names(self) -> list[str]:
        from pyarrow import fs

        try:
            found = self._files.get_file_info(fs.FileSelector(self._base, allow_not_found=True))
        except (OSError, ValueError) as error:
            raise StorageError(f"shards in {self.shown} cannot be listed: {one_line(error)}") from error
        return sorted(info.base_name for info in found if info.base_name.endswith(_ENDING) and info.base_name[0] != ".")

    def _whole(self, name: str) -> pa.Table | None:
        """Read a shard; a damaged one is removed and gives None. Raises StorageError."""
        path = f"{self._base}/{name}"
        try:
            with self._files.open_input_file(path) as stream:
                content = stream.read_buffer()
        except OSError as error:
            raise StorageError(f"shard {self.shown}/{name} cannot be read: {one_line(error)}; run again") from error
        try:
            with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as shard:
                return shard.read(use_threads=False)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            logger.warning("shard %s/%s was damaged and is removed: %s", self.shown, name, one_line(error))
        try:
            self._files.delete_file(path)
        except OSError as error:
            raise StorageError(
                f"damaged shard {self.shown}/{name} cannot be removed: {one_line(error)}; remove it"
            ) from error
        return None

    def _put(self, name: str, content: bytes) -> None:
        if not is_uri(self.location):
            write_bytes_atomically(Path(self.location, name), content)
            return
        try:
            with write_errors(Path(name)), self._files.open_output_stream(f"{self._base}/{name}") as stream:
                stream.write(content)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"cannot write {self.shown}/{name}: {one_line(error)}; check the URI and its rights"
            ) from error


def shard_name(keys: Sequence[str]) -> str:
    """Name of the shard for these keys; keys of undecodable images are missing in it."""
    return sha256_of_bytes("\n".join(keys).encode())[:32] + _ENDING


def _open(location: str) -> tuple[Any, str]:
    from pyarrow import fs

    if not is_uri(location):
        return fs.LocalFileSystem(), location
    try:
        files, base = fs.FileSystem.from_uri(location)
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(
            f"{shown_uri(location)}: no file system for the shards: {one_line(error)}; check ray_shards"
        ) from error
    return files, base
