"""Temporary files and directories; the next writer removes leftovers of writers that ended.

A temporary is named `.<name>.<8 random characters>.if-tmp` and locked (flock) by its writer. The lock shows, also
across containers and hosts, that the writer still runs, and ends with its process. Process numbers are reused and mean
nothing in another container.
"""

import atexit
import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_NEW, _RETIRED = ".if-tmp", ".if-old"
_NAME = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}(?:\.if-tmp|(?P<retired>\.if-old))")
# Names of versions that did not lock temporaries.
_UNLOCKED = re.compile(r"\.(writer\.json|CURRENT|layout\.json|(starter-)?[0-9a-f]{16}(\.old)?)\.[a-z0-9_]{8}")
_ABANDONED_S = 24 * 3600.0  # for file systems without locks: longer than any write takes


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[tuple[int, Path]]:
    """Descriptor and path of a new file beside path; removed unless renamed. Raises OSError."""
    remove_leftovers(path.parent)
    descriptor, temporary = _locked(lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_NEW))
    try:
        yield descriptor, temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def temporary_directory(path: Path, *, retired: bool = False) -> Iterator[Path]:
    """A new directory beside path; removed at the end unless renamed. Raises OSError.

    retired: for the directory at path, which the caller moves into it. If nothing has replaced that one at the end, it
    is moved back; after a kill the next writer does so.
    """
    remove_leftovers(path.parent)
    suffix = _RETIRED if retired else _NEW
    descriptor, temporary = _locked(lambda: _new_directory(path, suffix))
    try:
        yield temporary
    finally:
        if retired:
            with contextlib.suppress(OSError):
                _put_back(temporary, path.name)
        if not retired or path.exists():
            shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A new directory in the system's temporary directory, removed at the end."""
    with temporary_directory(Path(tempfile.gettempdir(), "image-finder")) as folder:
        yield folder


def process_directory(parent: Path | None = None) -> Path:
    """A new directory, in parent or the system's temporary directory, until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    path = Path(parent or tempfile.gettempdir(), "image-finder")
    return stack.enter_context(temporary_directory(path))


def remove_leftovers(folder: Path) -> None:
    """Remove temporaries of ended writers in folder; those that cannot be removed stay."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".")]
        for name in names:
            if _NAME.fullmatch(name) or _UNLOCKED.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_if_left(folder / name)


def _new_directory(path: Path, suffix: str) -> tuple[int, str]:
    while True:
        temporary = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
        with contextlib.suppress(FileNotFoundError):  # another writer has removed it
            return os.open(temporary, os.O_RDONLY), temporary


def _locked(make: Callable[[], tuple[int, str]]) -> tuple[int, Path]:
    """The locked result of make, made again if another writer removes it before it is locked."""
    while True:
        descriptor, name = make()
        if _lock(descriptor) is not False and Path(name).exists():
            return descriptor, Path(name)
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """True if locked, False if another process holds the lock, None if unsupported."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems lock no directories, or nothing
        return None
    return True


def _remove_if_left(path: Path) -> None:
    is_directory = stat.S_ISDIR(path.lstat().st_mode)
    descriptor = os.open(path, (os.O_RDONLY if is_directory else os.O_RDWR) | os.O_NOFOLLOW)
    try:
        found = _NAME.fullmatch(path.name)
        held = _lock(descriptor) if found else None
        if held is False or (held is None and time.time() - os.fstat(descriptor).st_mtime < _ABANDONED_S):
            return
        if found and found["retired"]:
            _put_back(path, found["target"])
        if is_directory:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _put_back(retired: Path, name: str) -> None:
    """Move back the directory that a killed writer had retired, unless a new one exists."""
    if (retired / name).exists() and not retired.with_name(name).exists():
        (retired / name).rename(retired.with_name(name))
