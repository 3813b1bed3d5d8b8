"""Content cache: arrays kept by a hash of what they were computed from; knows nothing of images or models.

One append-only data file and one append-only list of keys. Data are synced before their keys are written, so a process
killed at any moment loses at most the batch in flight: on opening, whatever has no key is cut off.

    <folder>/layout.json   {"format_version": 2, "width": C, "dtype": "float16", "maker": "..."}
    <folder>/rows.bin      (total_rows, C) in C order
    <folder>/keys.tsv      key <tab> number of rows <tab> CRC-32 of the rows' bytes as 8 hex digits, one line an entry,
                           in the order of rows.bin; the last entry of a key counts. Version 1 had no CRC-32: its
                           entries are read, but cannot be found to be damaged.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from image_finder.components.errors import StorageError
from image_finder.components.storage import write_errors, write_text_atomically

FORMAT_VERSION = 2
_READABLE_VERSIONS = {1, 2}
_LINE = re.compile(rb"([^\t\n]*)\t(\d+)(?:\t([0-9a-f]{8}))?\n")
CacheType = Literal["float16", "float32"]
_LOCK_WAIT_S = 3600.0


class ContentCache:
    """Entries of (rows, width) arrays by key; readable at any time, appended to by one process at a time."""

    def __init__(self, folder: Path, *, width: int, dtype: CacheType, maker: str) -> None:
        """Open or create. maker: hash of what computes the entries; it must match. Raises StorageError."""
        self.folder = folder
        self.width = width
        self.maker = maker
        self.dtype_name: CacheType = dtype
        self.dtype = np.dtype(dtype)
        self._row_bytes = width * self.dtype.itemsize
        self._lock = FileLock(folder / "writer.lock")
        self._upgrade: dict[str, Any] | None = None
        self._check_layout({"format_version": FORMAT_VERSION, "width": width, "dtype": dtype, "maker": maker})
        self._places: dict[str, tuple[int, int]] = {}
        self._sums: dict[str, int] = {}  # CRC-32 by key, of entries that have one
        self._total_rows = 0
        self._keys_bytes = 0
        self._rows: NDArray[Any] | None = None
        self.refresh()

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Self:
        """Take the writer's lock, waiting for another writer of the same cache, and cut off what it left unfinished."""
        with write_errors(self.folder):
            try:
                self._lock.acquire(timeout=_LOCK_WAIT_S)
            except Timeout as error:
                raise StorageError(
                    f"{self.folder} has been locked by another run for {_LOCK_WAIT_S:.0f} s; wait for it or stop it"
                ) from error
            try:
                self.refresh()
                self._cut_off_unfinished()
                if self._upgrade is not None:  # older programs must not append to it any more
                    write_text_atomically(self.folder / "layout.json", json.dumps(self._upgrade, indent=2) + "\n")
                    self._upgrade = None
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _cut_off_unfinished(self) -> None:
        for path, size in ((self._data_path, self._total_rows * self._row_bytes), (self._keys_path, self._keys_bytes)):
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)

    def refresh(self) -> None:
        """Read keys that were appended since; an unfinished last line or an entry without its data is left out."""
        sizes = tuple(path.stat().st_size if path.exists() else 0 for path in (self._data_path, self._keys_path))
        if sizes == (self._total_rows * self._row_bytes, self._keys_bytes) and self._places:
            return  # both are only ever appended to
        self._places, self._sums, self._total_rows, self._keys_bytes = {}, {}, 0, 0
        available = sizes[0] // self._row_bytes
        text = self._keys_path.read_bytes() if self._keys_path.exists() else b""
        for line in text.splitlines(keepends=True):
            key, count, checksum = _parsed(line)
            if count < 0 or self._total_rows + count > available:
                break
            self._places[key] = (self._total_rows, count)
            if checksum is not None:
                self._sums[key] = checksum
            self._total_rows += count
            self._keys_bytes += len(line)
        self._rows = None

    def damaged(self, keys: Sequence[str]) -> list[str]:
        """Those of keys, all of them there, whose rows are not what was appended (2 microseconds a kB)."""
        content = self.rows.reshape(-1).view(np.uint8).data
        crc32, places, size = zlib.crc32, self._places, self._row_bytes
        known = [(key, self._sums[key], *places[key]) for key in keys if key in self._sums]
        return [
            key for key, checksum, first, n in known if crc32(content[first * size : (first + n) * size]) != checksum
        ]

    def forget(self, keys: Iterable[str]) -> None:
        """Hold keys no longer, until they are appended again or the cache is opened anew."""
        for key in keys:
            self._places.pop(key, None)
            self._sums.pop(key, None)

    def append(self, keys: Sequence[str], entries: Sequence[NDArray[Any]]) -> None:
        """Add entries of (rows, width) under new keys; synced when it returns, and nothing is added when it fails.

        Needs the lock. Raises StorageError.
        """
        if not self._lock.is_locked:
            raise StorageError(f"{self.folder} must be entered (with cache:) before it is appended to")
        if wrong := [entry.shape for entry in entries if entry.ndim != 2 or entry.shape[1] != self.width]:
            raise StorageError(
                f"{self.folder} holds entries of (rows, {self.width}), one of shape {wrong[0]} was given"
            )
        data = [np.ascontiguousarray(entry, dtype=self.dtype).tobytes() for entry in entries]
        sums = [zlib.crc32(each) for each in data]
        parts = zip(keys, entries, sums, strict=True)
        lines = "".join(f"{key}\t{len(entry)}\t{checksum:08x}\n" for key, entry, checksum in parts).encode()
        with write_errors(self.folder):
            self._cut_off_unfinished()  # half a row left by an append that failed would shift all entries after it
            _append_synced(self._data_path, data)
            _append_synced(self._keys_path, [lines])
        for key, entry, checksum in zip(keys, entries, sums, strict=True):
            self._places[key] = (self._total_rows, len(entry))
            self._sums[key] = checksum
            self._total_rows += len(entry)
        self._keys_bytes += len(lines)
        self._rows = None

    def places(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row and number of rows of each key: two (n,) int64. Raises StorageError for a key that is not there."""
        missing = [key for key in keys if key not in self._places]
        if missing:
            raise StorageError(
                f"{len(missing)} of {len(keys)} entries are not in {self.folder}, first {missing[0]}; run again"
            )
        places = np.array([self._places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        return places[:, 0], places[:, 1]

    @property
    def rows(self) -> NDArray[Any]:
        """All rows, memory-mapped read-only: (total_rows, width)."""
        if self._rows is None:
            shape = (self._total_rows, self.width)
            self._rows = (
                np.memmap(self._data_path, self.dtype, "r", shape=shape)
                if self._total_rows
                else np.empty(shape, self.dtype)
            )
        return self._rows

    @property
    def _data_path(self) -> Path:
        return self.folder / "rows.bin"

    @property
    def _keys_path(self) -> Path:
        return self.folder / "keys.tsv"

    def _check_layout(self, layout: dict[str, Any]) -> None:
        path = self.folder / "layout.json"
        if not path.exists():
            write_text_atomically(path, json.dumps(layout, indent=2) + "\n")
            return
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:  # not UTF-8, not JSON, not an object
            raise StorageError(f"{path} is damaged: {error}; remove the folder, it is computed again") from error
        if found.get("format_version") in _READABLE_VERSIONS - {FORMAT_VERSION}:
            self._upgrade = layout
            found["format_version"] = FORMAT_VERSION
        if found != layout:
            differing = [
                f"{key} {found.get(key)!r}, expected {value!r}"
                for key, value in layout.items()
                if found.get(key) != value
            ]
            raise StorageError(f"cache {self.folder} was made otherwise: {'; '.join(differing)}; remove the folder")


def _parsed(line: bytes) -> tuple[str, int, int | None]:
    """Key, number of rows (-1: the line is damaged or unfinished) and CRC-32, if there is one, of a line of keys."""
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
