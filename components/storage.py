"""Storage: files and directories that are complete or absent, and their hashes; knows nothing of their content."""

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

from image_finder.components import system
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
# Writers in Rust (safetensors, tokenizers) end their messages with errno; numpy's tofile raises an OSError without one.
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")
# shutil.copytree raises one error for all files, without errno, but with the messages of each.
_COPY_NUMBER = re.compile(r"\[Errno (\d+)\]")
# Messages of SQLite, servers and libraries.
_FULL_SIGNS = ("database or disk is full", "No space left on device")
_NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_lines(lines: Iterable[tuple[str | int, ...]]) -> str:
    """Hex SHA-256 over the sorted lines, each as JSON, so that no name can imitate a line."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(line) for line in lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


_SEAL = "content_sha256"


def sealed(text: str) -> str:
    """A JSON object, extended by the SHA-256 of its values; see `unsealed`."""
    values = json.loads(text)
    values.pop(_SEAL, None)
    return json.dumps({**values, _SEAL: _seal_of(values)}, indent=2, ensure_ascii=False) + "\n"


def unsealed(content: bytes) -> tuple[dict[str, Any], bool]:
    """The values of a sealed JSON object, and whether it had a seal (old files have none). Raises ValueError."""
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
    """Hex SHA-256 of every file below directory by relative POSIX path, in sorted order."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of_file(path) for path in files}


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a refused write (no space, no permission, read-only) into a one-line StorageError.

    Recognised are errors of the system, of writers in Rust (safetensors, tokenizers) and NumPy's short write; others
    pass.
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
    """Create a directory and its missing parents with mode 0700; existing ones keep theirs."""
    for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # another process may create it meanwhile
    directory.mkdir(exist_ok=True)  # an existing file is an error


def disk_full(error: BaseException, where: Path) -> StorageError | None:
    """A one-line error if a full disk caused an exception, else None. where: named if the exception names no path."""
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
    """The path, or the temporary directory if that has less space: most errors name no file."""
    return min((path, Path(tempfile.gettempdir())), key=_free_mb)


def _free_mb(path: Path) -> float:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free / 1e6


def write_text_atomically(path: Path, text: str) -> None:
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    with new_file(path) as stream:
        stream.write(content)


def write_table_atomically(path: Path, table: "pa.Table") -> None:
    import pyarrow.parquet as pq  # most importers of this module write no table

    with new_file(path) as stream:
        pq.write_table(table, stream)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """The stream of a temporary sibling, which is synced and renamed to path. Raises StorageError."""
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as (stream, temporary):
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
            temporary.chmod(0o644)
            system.replace(temporary, path)
        system.sync(path.parent)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling; on success it is synced and renamed to path.

    An existing directory is replaced. If that fails, it is moved back; after a kill the next writer does so. Path is
    absent for an instant: readers that must not see this use a pointer file. Raises StorageError.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_directory(path) as temporary:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes it 0700, but other accounts read artefacts
            for entry in temporary.rglob("*"):
                system.sync(entry)
            system.sync(temporary)
            _replace_directory(temporary, path)
            system.sync(path.parent)


def _replace_directory(source: Path, target: Path) -> None:
    if not target.exists():
        system.rename(source, target)
        return
    with temporary_directory(target, retired=True) as retired:
        system.rename(target, retired / target.name)
        system.rename(source, target)
