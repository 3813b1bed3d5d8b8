"""Catalogue: the files of a library with their metadata, in SQLite; knows nothing of vectors, models or searches.

Searches never open it, so a library on a read-only disk can be searched. One process writes at a time. Each row has a
CRC-32 of its values, which is checked when it is loaded. A damaged catalogue is rebuilt by reading the images again; no
image is embedded, since vectors are stored by content elsewhere. It uses SQLite's rollback journal, since the
write-ahead log needs shared memory, which network disks lack.
"""

import datetime as dt
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from image_finder.components.errors import StorageError
from image_finder.components.text import one_line

PUBLISHED = "published"  # setting: generation that matches the catalogue, "" if none does
SCHEMA_VERSION = 2  # 1 had no galleries and no captions
_BUSY_S = 10.0
_FIRST_ABSURD_VERSION = 1000  # above, the number itself is damaged
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
}  # the last: a table or column is missing
_Answer = TypeVar("_Answer")

_SCHEMA = """
CREATE TABLE folders (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, crc INTEGER NOT NULL);
CREATE TABLE files (
    folder INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    settled INTEGER NOT NULL, sha256 TEXT NOT NULL, width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL, taken_s INTEGER, camera TEXT NOT NULL, latitude REAL, longitude REAL,
    error TEXT NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
"""
_GALLERY_SCHEMA = """
CREATE TABLE galleries (folder INTEGER PRIMARY KEY, facts TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE captions (
    folder INTEGER NOT NULL, path BLOB NOT NULL, captions TEXT NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (folder, path)) WITHOUT ROWID;
"""


class FileRow(NamedTuple):
    """One file: a readable image has a sha256, any other an error."""

    folder: int  # id of its folder
    path: bytes  # relative to that folder
    size: int  # bytes
    mtime_ns: int
    settled: int  # 0: equal size and mtime do not prove equal content
    sha256: str = ""
    width_px: int = 0  # as displayed, 0 if unknown
    height_px: int = 0
    taken_s: int | None = None  # capture in seconds since 1970-01-01 00:00 of the camera's local time
    camera: str = ""
    latitude: float | None = None
    longitude: float | None = None
    error: str = ""


Rows = dict[bytes, FileRow]  # by absolute path


def base_of(root: bytes) -> bytes:
    return root.rstrip(b"/") + b"/"


_COLUMNS = ", ".join(FileRow._fields)
_FILES = f"SELECT {_COLUMNS}, crc FROM files ORDER BY folder, path"  # noqa: S608 - own constants
_FOLDERS = "SELECT id, path, crc FROM folders ORDER BY id"
_SETTINGS = "SELECT name, value, crc FROM settings"
_GALLERIES = "SELECT folder, facts, crc FROM galleries ORDER BY folder"
_CAPTIONS = "SELECT folder, path, captions, crc FROM captions ORDER BY folder, path"
_INSERT = f"INSERT OR REPLACE INTO files ({_COLUMNS}, crc) VALUES ({', '.join('?' * (len(FileRow._fields) + 1))})"  # noqa: S608


class Catalog:
    """An open catalogue. Changes that were not committed when it is closed are lost."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        (self._version,) = connection.execute("PRAGMA user_version").fetchone()

    @classmethod
    def open(cls, path: Path, *, warn: Callable[[str], None]) -> "Catalog":
        """Open for writing, or create. A damaged catalogue is moved aside; warn gets one line.

        Needs the library's lock. Raises StorageError for a newer version and for a disk that cannot be written.
        """
        try:
            try:
                return cls._connected(path, read_only=False)
            except sqlite3.DatabaseError as error:
                if _is_refusal(error):
                    raise
                aside = _move_aside(path)
                warn(f"{path} is damaged ({error}); it was moved to {aside.name} and is rebuilt from the images")
                return cls._connected(path, read_only=False)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot write {path}: {error}; check the disk and its permissions") from error

    @classmethod
    def read(cls, path: Path) -> "Catalog":
        """Open for reading only. Raises StorageError if it is absent, damaged or of a newer version."""
        if not path.is_file():
            raise StorageError(f"no library at {path.parent}: {path.name} is missing; make one: image-finder index DIR")
        try:
            return cls._connected(path, read_only=True)
        except sqlite3.Error as error:
            raise StorageError(f"{path} cannot be read: {error}; run image-finder index to repair it") from error

    @classmethod
    def _connected(cls, path: Path, *, read_only: bool) -> "Catalog":
        if read_only:
            # Beside a journal a reader must be able to write; without one nobody writes, and no lock file is needed.
            immutable = "" if path.with_name(path.name + "-journal").exists() else "&immutable=1"
            address = f"{path.resolve().as_uri()}?mode=ro{immutable}"
            connection = sqlite3.connect(address, uri=True, timeout=_BUSY_S)
        else:
            connection = sqlite3.connect(path, timeout=_BUSY_S)
        try:
            _check(connection, path, may_create=not read_only)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def commit(self) -> None:
        self._do(self._connection.commit)

    def folders(self) -> dict[int, bytes]:
        return dict(self._sound(_FOLDERS))

    def folder_ids(self) -> dict[bytes, int]:
        return {path: identity for identity, path in self.folders().items()}

    def folders_are_sound(self) -> bool:
        """Whether it has folders, all undamaged; a catalogue that replaces a lost one has none."""
        rows = self._rows(_FOLDERS)
        return bool(rows) and all(map(_is_sound, rows))

    def add_folder(self, path: bytes) -> int:
        if (known := self.folder_ids().get(path)) is not None:
            return known
        # An id is never used twice: rows of a folder whose own row was damaged must not come under another one.
        (last,) = self._rows(
            "SELECT max(coalesce((SELECT max(id) FROM folders), 0), coalesce(max(folder), 0)) FROM files"
        )
        identity = int(last[0]) + 1
        self._change("DELETE FROM folders WHERE path = ?", [(path,)])
        self._change("INSERT INTO folders VALUES (?, ?, ?)", [_sealed((identity, path))])
        return identity

    def rename_folder(self, identity: int, path: bytes) -> None:
        values = (path, _crc((identity, path)), identity)
        self._change("UPDATE folders SET path = ?, crc = ? WHERE id = ?", [values])

    def remove_folder(self, identity: int) -> None:
        for table in ("files", "galleries", "captions"):
            self._change(f"DELETE FROM {table} WHERE folder = ?", [(identity,)])  # noqa: S608 - own constants
        self._change("DELETE FROM folders WHERE id = ?", [(identity,)])

    def galleries(self) -> dict[int, str]:
        """Facts of each folder that is a gallery, by its id, without damaged rows."""
        return dict(self._sound(_GALLERIES)) if self._version >= SCHEMA_VERSION else {}

    def set_gallery(self, identity: int, facts: str) -> None:
        self._change("INSERT OR REPLACE INTO galleries VALUES (?, ?, ?)", [_sealed((identity, facts))])

    def captions(self) -> dict[tuple[int, bytes], tuple[str, ...]]:
        """Captions of gallery files by (folder id, relative path), without damaged rows."""
        rows = self._sound(_CAPTIONS) if self._version >= SCHEMA_VERSION else []
        return {(folder, path): tuple(json.loads(texts)) for folder, path, texts in rows}

    def set_captions(self, identity: int, captions: Mapping[bytes, Sequence[str]]) -> None:
        """Replace the captions of a gallery, by relative path; () for a member without captions."""
        self._change("DELETE FROM captions WHERE folder = ?", [(identity,)])
        texts = ((identity, path, json.dumps(list(each))) for path, each in captions.items())
        self._change("INSERT INTO captions VALUES (?, ?, ?, ?)", map(_sealed, texts))

    def files(self) -> tuple[list[FileRow], int]:
        """Undamaged rows ordered by folder and path, and the number of damaged ones."""
        stored = self._rows(_FILES)
        crc32 = zlib.crc32
        sound = [FileRow._make(row[:-1]) for row in stored if crc32(repr(row[:-1]).encode()) == row[-1]]
        return sound, len(stored) - len(sound)

    def files_by_path(self) -> tuple[Rows, int]:
        """Undamaged rows, and the number of rows damaged or without folder."""
        bases = {identity: base_of(path) for identity, path in self.folders().items()}
        rows, damaged = self.files()
        known = {bases[row.folder] + row.path: row for row in rows if row.folder in bases}
        return known, damaged + len(rows) - len(known)

    def put(self, rows: Iterable[FileRow]) -> None:
        kept = [row if row.latitude is None else _without_negative_zero(row) for row in rows]
        self._change(_INSERT, [_sealed(tuple(row)) for row in kept])

    def remove(self, keys: Iterable[tuple[int, bytes]]) -> None:
        self._change("DELETE FROM files WHERE folder = ? AND path = ?", list(keys))

    def remove_damaged(self) -> None:
        """Remove damaged rows, and all rows of damaged folders."""
        self.remove((row[0], row[1]) for row in self._rows(_FILES) if not _is_sound(row))
        damaged = [(row[0],) for row in self._rows(_FOLDERS) if not _is_sound(row)]
        self._change("DELETE FROM folders WHERE id = ?", damaged)
        for table in ("files", "galleries", "captions"):
            self._change(f"DELETE FROM {table} WHERE folder NOT IN (SELECT id FROM folders)", [()])  # noqa: S608

    def setting(self, name: str) -> str:
        """Value of a setting; "" if it is missing or damaged."""
        rows = self._sound(f"{_SETTINGS} WHERE name = ?", (name,))
        return str(rows[0][1]) if rows else ""

    def set(self, **settings: str) -> None:
        self._change("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", map(_sealed, settings.items()))

    def _change(self, statement: str, values: Iterable[tuple[object, ...]]) -> None:
        self._do(lambda: self._connection.executemany(statement, values))

    def _sound(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Undamaged rows, without their CRC."""
        return [row[:-1] for row in self._rows(statement, values) if _is_sound(row)]

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._do(lambda: self._connection.execute(statement, values).fetchall())

    def _do(self, action: Callable[[], _Answer]) -> _Answer:
        try:
            return action()
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: {error}; check the disk and run again") from error


def _check(connection: sqlite3.Connection, path: Path, *, may_create: bool) -> None:
    """Raises StorageError for a newer version, sqlite3.DatabaseError for damage."""
    connection.text_factory = _text
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if SCHEMA_VERSION < version < _FIRST_ABSURD_VERSION:
        raise StorageError(
            f"{path} has version {version}, this program knows {SCHEMA_VERSION}; install a newer image-finder"
        )
    if version == 0 and may_create and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.executescript(f"BEGIN; {_SCHEMA} {_GALLERY_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        return
    if not 1 <= version <= SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"version {version}, expected {SCHEMA_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(one_line(verdict))
    for statement in (_FILES, _FOLDERS, _SETTINGS):  # a table or column that is missing
        connection.execute(f"{statement} LIMIT 0")
    if version == 1 and may_create:
        connection.executescript(f"BEGIN; {_GALLERY_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version == SCHEMA_VERSION:
        for statement in (_GALLERIES, _CAPTIONS):
            connection.execute(f"{statement} LIMIT 0")


def _is_refusal(error: sqlite3.DatabaseError) -> bool:
    """Whether the cause is the disk (full, read-only, busy, failing), not damaged content."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE


def _move_aside(path: Path) -> Path:
    """Rename a catalogue with its journal, which must not be replayed into the next one."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists():
        journal.rename(aside.with_name(f"{aside.name}-journal"))
    return path.rename(aside)


def _without_negative_zero(row: FileRow) -> FileRow:
    """SQLite stores -0.0 as 0.0, which would not match the row's CRC."""
    return row._replace(latitude=(row.latitude or 0.0) + 0.0, longitude=(row.longitude or 0.0) + 0.0)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")  # a damaged text only fails the CRC of its row


def _sealed(values: tuple[object, ...]) -> tuple[object, ...]:
    return (*values, _crc(values))


def _is_sound(row: tuple[Any, ...]) -> bool:
    return bool(_crc(row[:-1]) == row[-1])


def _crc(values: tuple[object, ...]) -> int:
    return zlib.crc32(repr(values).encode())
