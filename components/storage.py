"""Files and directories that are whole or absent: atomic writes and content hashes; knows nothing of what they hold."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from image_finder.components.errors import StorageError
from image_finder.components.temporaries import temporary_directory, temporary_file

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_BYTES = 1 << 20
_SPACE_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATH_REFUSALS = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
# Writers in Rust (safetensors, tokenizers) raise exceptions of their own that end with the system's number; numpy's
# tofile raises an OSError without one when the disk is full.
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")
# shutil.copytree raises one without a number for all that it could not copy, whose texts hold the numbers.
_COPY_NUMBER = re.compile(r"\[Errno (\d+)\]")
# SQLite, and what a server or a library reports of it.
_FULL_SIGNS = ("database or disk is full", "No space left on device")
_NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def sha256_of_bytes(data: bytes) -> str:
    """Hex SHA-256 of data."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_lines(lines: Iterable[tuple[str | int, ...]]) -> str:
    """Hex SHA-256 over lines in sorted order, each as JSON, so that no name can imitate another line."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(line) for line in lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


_SEAL = "content_sha256"


def sealed(text: str) -> str:
    """A JSON object as text with the SHA-256 of its values as a last one, by which `unsealed` finds any damage."""
    values = json.loads(text)
    values.pop(_SEAL, None)
    return json.dumps({**values, _SEAL: _seal_of(values)}, indent=2, ensure_ascii=False) + "\n"


def unsealed(content: bytes) -> tuple[dict[str, Any], bool]:
    """The values of a JSON object without its seal, and whether it had one; files of versions before seals have none.

    Raises ValueError for what is no JSON object or does not fit its seal.
    """
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError(f"not an object but a {type(values).__name__}")
    if _SEAL not in values:
        return values, False
    expected, measured = values.pop(_SEAL), _seal_of(values)
    if expected != measured:
        raise ValueError(f"its values have sha256 {measured[:12]}, expected {str(expected)[:12]}")
    return values, True


def _seal_of(values: dict[str, Any]) -> str:
    return sha256_of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def hash_directory(directory: Path) -> dict[str, str]:
    """Hex SHA-256 of every file below directory, by POSIX path relative to it, in sorted order."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of_file(path) for path in files}


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a refusal to write (no space, no permission, read-only) into a one-line StorageError; others pass as they are.

    Known are the system's own errors, those of writers in Rust (safetensors) and numpy's short write.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = _system_number(error)
        if number not in _SPACE_REFUSALS | _PATH_REFUSALS:
            raise
        hint = "free some space and run again" if number in _SPACE_REFUSALS else "check the path and its permissions"
        reason = os.strerror(number)
        raise StorageError(f"cannot write {path}: {reason}; nothing was changed there, {hint}") from error


def _system_number(error: Exception) -> int:
    """The system's error number behind an exception, 0 if there is none."""
    if isinstance(error, shutil.Error):
        found = _COPY_NUMBER.search(str(error))
        return int(found[1]) if found else 0
    if isinstance(error, OSError):
        if error.errno is None and _NUMPY_SHORT_WRITE.fullmatch(str(error)):
            return errno.ENOSPC
        return error.errno or 0
    found = _RUST_NUMBER.search(str(error))
    return int(found[1]) if found else 0


def make_private(directory: Path) -> None:
    """Create a directory and its missing parents, readable by their owner only (0700); existing ones keep their mode."""
    for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # another process may create it meanwhile
    directory.mkdir(exist_ok=True)  # an existing file is an error


def disk_full(error: BaseException, where: Path) -> StorageError | None:
    """One line if a full disk is behind an exception, also behind one that a library wrapped in its own; else None.

    where: the path to name if the exception names none.
    """
    for each in _chain(error):
        number = _system_number(each) if isinstance(each, Exception) else 0
        if number in _SPACE_REFUSALS or any(sign in str(each) for sign in _FULL_SIGNS):
            named = getattr(each, "filename", None)
            path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else _fuller(where)
            reason = os.strerror(number if number in _SPACE_REFUSALS else errno.ENOSPC)
            return StorageError(
                f"disk full: {path} has {_free_mb(path):,.1f} MB free, {reason}; free space and run the same command again"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _fuller(path: Path) -> Path:
    """The path, or the folder of temporary files if less is free there: most errors of a full disk name no file."""
    return min((path, Path(tempfile.gettempdir())), key=_free_mb)


def _free_mb(path: Path) -> float:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free / 1e6


def write_text_atomically(path: Path, text: str) -> None:
    """Write text (UTF-8) to path through a temporary sibling and a rename. Raises StorageError."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes to path through a temporary sibling and a rename. Raises StorageError."""
    with new_file(path) as stream:
        stream.write(content)


def write_table_atomically(path: Path, table: "pa.Table") -> None:
    """Write a table to path as Parquet, through a temporary sibling and a rename. Raises StorageError."""
    import pyarrow.parquet as pq  # here, since most who import this module write no table

    with new_file(path) as stream:
        pq.write_table(table, stream)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream to a temporary sibling of path; on success it is synced and replaces path, on failure it is removed.

    Raises StorageError.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as (descriptor, temporary):
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary sibling of path; on success it is synced and replaces path, on failure it is removed.

    A directory already at path is replaced; if that fails, or the process is killed and another one writes beside path,
    it is put back. Between its removal and the rename there is an instant in which path is absent: readers that must
    never see that keep a pointer file instead. Raises StorageError.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_directory(path) as temporary:
            yield temporary
            temporary.chmod(0o755)  # it is made 0700; artefacts are read by other accounts too
            for entry in temporary.rglob("*"):
                _sync(entry)
            _sync(temporary)
            _replace_directory(temporary, path)
            _sync(path.parent)


def _replace_directory(source: Path, target: Path) -> None:
    if not target.exists():
        source.rename(target)
        return
    with temporary_directory(target, retired=True) as retired:
        target.rename(retired / target.name)
        source.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
