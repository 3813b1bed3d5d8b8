"""Content cache: arrays stored under a hash of their input; knows nothing of images or models.

One append-only data file and one append-only list of keys. Data are synced before their keys are written, so a killed
process loses at most the current batch: data without a key are cut off when the cache is opened for writing.

    <folder>/layout.json   {"format_version": 2, "width": C, "dtype": "float16", "maker": "..."}
    <folder>/rows.bin      (total_rows, C) in C order
    <folder>/keys.tsv      key <tab> number of rows <tab> CRC-32 of the rows' bytes as 8 hex digits; one line per entry,
                           in the order of rows.bin; the last entry of a key counts. Version 1 has no CRC-32, so damage
                           to its entries is not detected.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from image_finder.components.arrays import IntArray
from image_finder.components.errors import StorageError
from image_finder.components.storage import write_errors, write_text_atomically

FORMAT_VERSION = 2
_READABLE_VERSIONS = {1, 2}
_LINE = re.compile(rb"([^\t\n]*)\t(\d+)(?:\t([0-9a-f]{8}))?\n")
CacheType = Literal["float16", "float32"]
_LOCK_WAIT_S = 3600.0


class ContentCache:
    """Arrays (rows, width) by key; one writer at a time, which uses `with cache:`."""

    def __init__(self, folder: Path, *, width: int, dtype: CacheType, maker: str) -> None:
        """Open or create a cache. maker: hash of what computes the entries. Raises StorageError."""
        self.folder = folder
        self.width = width
        self.maker = maker
        self.dtype_name: CacheType = dtype
        self.dtype = np.dtype(dtype)
        self._row_bytes = width * self.dtype.itemsize
        self._lock = FileLock(folder / "writer.lock")
        self._data_path, self._keys_path = folder / "rows.bin", folder / "keys.tsv"
        self._upgrade: dict[str, Any] | None = None
        self._check_layout({"format_version": FORMAT_VERSION, "width": width, "dtype": dtype, "maker": maker})
        self._spans: dict[str, tuple[int, int]] = {}  # first row and number of rows by key
        self._sums: dict[str, int] = {}  # CRC-32 by key, for entries that have one
        self._total_rows = 0
        self._keys_bytes = 0
        self._rows: NDArray[Any] | None = None
        self.refresh()

    def __contains__(self, key: object) -> bool:
        return key in self._spans

    def __len__(self) -> int:
        return len(self._spans)

    def __enter__(self) -> Self:
        """Lock the cache for writing, waiting for another writer, and cut off incomplete data."""
        with write_errors(self.folder):
            try:
                self._lock.acquire(timeout=_LOCK_WAIT_S)
            except Timeout as error:
                raise StorageError(
                    f"{self.folder} has been locked by another run for {_LOCK_WAIT_S:.0f} s; wait until it ends or stop it"
                ) from error
            try:
                self.refresh()
                self._cut_off_unfinished()
                if self._upgrade is not None:  # earlier versions must no longer append
                    write_text_atomically(self.folder / "layout.json", json.dumps(self._upgrade, indent=2) + "\n")
                    self._upgrade = None
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def _cut_off_unfinished(self) -> None:
        for path, size in ((self._data_path, self._total_rows * self._row_bytes), (self._keys_path, self._keys_bytes)):
            if path.exists() and path.stat().st_size > size:
                self.unmap()
                os.truncate(path, size)

    def refresh(self) -> None:
        """Read keys appended by other processes; incomplete entries are ignored."""
        sizes = tuple(path.stat().st_size if path.exists() else 0 for path in (self._data_path, self._keys_path))
        if sizes == (self._total_rows * self._row_bytes, self._keys_bytes) and self._spans:
            return  # both files only grow
        self._spans, self._sums, self._total_rows, self._keys_bytes = {}, {}, 0, 0
        available = sizes[0] // self._row_bytes
        text = self._keys_path.read_bytes() if self._keys_path.exists() else b""
        for line in text.splitlines(keepends=True):
            key, count, checksum = _parsed(line)
            if count < 0 or self._total_rows + count > available:
                break
            self._spans[key] = (self._total_rows, count)
            if checksum is not None:
                self._sums[key] = checksum
            self._total_rows += count
            self._keys_bytes += len(line)
        self._rows = None

    def damaged(self, keys: Sequence[str]) -> list[str]:
        """Keys whose rows do not match their CRC-32 (2 microseconds per kB). All keys must exist."""
        content = self.rows.reshape(-1).view(np.uint8).data
        crc32, size = zlib.crc32, self._row_bytes
        known = [(key, self._sums[key], *self._spans[key]) for key in keys if key in self._sums]
        return [
            key for key, checksum, first, n in known if crc32(content[first * size : (first + n) * size]) != checksum
        ]

    def forget(self, keys: Iterable[str]) -> None:
        """Until they are appended again or the cache is reopened."""
        for key in keys:
            self._spans.pop(key, None)
            self._sums.pop(key, None)

    def append(self, keys: Sequence[str], entries: Sequence[NDArray[Any]]) -> None:
        """Add entries (rows, width) under new keys, all or none; only inside `with cache:`. Raises StorageError."""
        if not self._lock.is_locked:
            raise StorageError(f"{self.folder} is not locked for writing; append inside `with cache:`")
        if wrong := [entry.shape for entry in entries if entry.ndim != 2 or entry.shape[1] != self.width]:
            raise StorageError(f"{self.folder} holds entries of shape (rows, {self.width}), got {wrong[0]}")
        data = [np.ascontiguousarray(entry, dtype=self.dtype).tobytes() for entry in entries]
        sums = [zlib.crc32(each) for each in data]
        parts = zip(keys, entries, sums, strict=True)
        lines = "".join(f"{key}\t{len(entry)}\t{checksum:08x}\n" for key, entry, checksum in parts).encode()
        with write_errors(self.folder):
            self._cut_off_unfinished()  # a partial row of a failed append would shift all later entries
            _append_synced(self._data_path, data)
            _append_synced(self._keys_path, [lines])
        for key, entry, checksum in zip(keys, entries, sums, strict=True):
            self._spans[key] = (self._total_rows, len(entry))
            self._sums[key] = checksum
            self._total_rows += len(entry)
        self._keys_bytes += len(lines)
        self._rows = None

    def spans(self, keys: Sequence[str]) -> tuple[IntArray, IntArray]:
        """First row and number of rows of each key: two (n,) arrays. Raises StorageError."""
        missing = [key for key in keys if key not in self._spans]
        if missing:
            raise StorageError(
                f"{len(missing)} of {len(keys)} entries are not in {self.folder}, first {missing[0]}; run again"
            )
        spans = np.array([self._spans[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        return spans[:, 0], spans[:, 1]

    @property
    def rows(self) -> NDArray[Any]:
        """Memory-mapped read-only: (total_rows, width)."""
        if self._rows is None:
            shape = (self._total_rows, self.width)
            self._rows = (
                np.memmap(self._data_path, self.dtype, "r", shape=shape)
                if self._total_rows
                else np.empty(shape, self.dtype)
            )
        return self._rows

    def unmap(self) -> None:
        """Drop the memory map, which keeps Windows from shortening and renaming the files."""
        self._rows = None

    def _check_layout(self, layout: dict[str, Any]) -> None:
        path = self.folder / "layout.json"
        if not path.exists():
            write_text_atomically(path, json.dumps(layout, indent=2) + "\n")
            return
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:  # not UTF-8, not JSON, not an object
            raise StorageError(
                f"{path} is damaged: {error}; remove the directory, its content is recomputed"
            ) from error
        if found.get("format_version") in _READABLE_VERSIONS - {FORMAT_VERSION}:
            self._upgrade = layout
            found["format_version"] = FORMAT_VERSION
        if found != layout:
            differing = [
                f"{key} {found.get(key)!r}, expected {value!r}"
                for key, value in layout.items()
                if found.get(key) != value
            ]
            raise StorageError(f"cache {self.folder} has another layout: {'; '.join(differing)}; remove the directory")


def _parsed(line: bytes) -> tuple[str, int, int | None]:
    """Key, number of rows (-1: damaged line) and CRC-32, if any, of a line of keys.tsv."""
    found = _LINE.fullmatch(line)
    if found is None:
        return "", -1, None
    key, count, checksum = found.groups()
    return key.decode("utf-8", "replace"), int(count), None if checksum is None else int(checksum, 16)


def _append_synced(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("ab") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
