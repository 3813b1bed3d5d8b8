"""Temporary files and directories; the next writer removes leftovers of writers that ended.

A temporary is named `.<name>.<8 random characters>.if-tmp` and locked (flock) by its writer. The lock shows, also
across containers and hosts, that the writer still runs, and ends with its process. Process numbers are reused and mean
nothing in another container. Windows locks no directories and renames no open files: there the file
`.<name>.<8 random characters>.if-lock` beside the temporary is locked.
"""

import atexit
import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from image_finder.components import system

_NEW, _RETIRED, _LOCK = ".if-tmp", ".if-old", ".if-lock"
_NAME = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}(?:\.if-tmp|\.if-lock|(?P<retired>\.if-old))")
# Names of versions that did not lock temporaries.
_UNLOCKED = re.compile(r"\.(writer\.json|CURRENT|layout\.json|(starter-)?[0-9a-f]{16}(\.old)?)\.[a-z0-9_]{8}")
_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | system.BINARY
_ABANDONED_S = 24 * 3600.0  # for file systems without locks: longer than any write takes


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Stream and path of a new file beside path; removed unless renamed, before which it must be closed.

    Raises OSError.
    """
    remove_leftovers(path.parent)
    with _held(path, _NEW, directory=False) as (temporary, descriptor):
        opened = os.open(temporary, _CREATE, 0o600) if descriptor is None else os.dup(descriptor)
        try:
            with os.fdopen(opened, "wb") as stream:
                yield stream, temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_directory(path: Path, *, retired: bool = False) -> Iterator[Path]:
    """A new directory beside path; removed at the end unless renamed. Raises OSError.

    retired: for the directory at path, which the caller moves into it. If nothing has replaced that one at the end, it
    is moved back; after a kill the next writer does so.
    """
    remove_leftovers(path.parent)
    with _held(path, _RETIRED if retired else _NEW, directory=True) as (temporary, _):
        try:
            yield temporary
        finally:
            if retired:
                with contextlib.suppress(OSError):
                    _put_back(temporary, path.name)
            if not retired or path.exists():
                shutil.rmtree(temporary, ignore_errors=True)


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


@contextlib.contextmanager
def _held(path: Path, suffix: str, *, directory: bool) -> Iterator[tuple[Path, int | None]]:
    """Path of a temporary, locked within this block, and its descriptor if it is an open file."""
    if system.keeps_locks_on_directories():
        descriptor, temporary = _locked(path, suffix, directory=directory)
        try:
            yield temporary, None if directory else descriptor
        finally:
            os.close(descriptor)
        return
    descriptor, beside = _locked(path, _LOCK, directory=False)
    try:
        temporary = beside.with_suffix(suffix)
        if directory:
            temporary.mkdir(mode=0o700)
        yield temporary, None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # another writer looks at it, and removes it
            beside.unlink(missing_ok=True)


def _locked(path: Path, suffix: str, *, directory: bool) -> tuple[int, Path]:
    """Descriptor and path of a new locked file or directory, made again if another writer removes it before."""
    while True:
        descriptor, name = _new_directory(path, suffix) if directory else _new_file(path, suffix)
        if system.lock(descriptor) is not False and Path(name).exists():
            return descriptor, Path(name)
        os.close(descriptor)


def _new_file(path: Path, suffix: str) -> tuple[int, str]:
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)


def _new_directory(path: Path, suffix: str) -> tuple[int, str]:
    while True:
        temporary = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix)
        with contextlib.suppress(FileNotFoundError):  # another writer has removed it
            return os.open(temporary, os.O_RDONLY), temporary


def _remove_if_left(path: Path) -> None:
    """Remove a temporary unless its writer runs. Raises OSError."""
    status = path.lstat()
    is_old = time.time() - status.st_mtime >= _ABANDONED_S
    found = _NAME.fullmatch(path.name)
    if not found:
        if is_old:
            _remove(path, status)
    elif system.keeps_locks_on_directories():
        with _lock_of(path, is_directory=stat.S_ISDIR(status.st_mode)) as is_free:
            if is_old if is_free is None else is_free:
                _remove(path, status, put_back=found["target"] if found["retired"] else "")
    else:
        beside = path.with_suffix(_LOCK)
        # The lock is made first and removed last: without it, the writer has ended.
        with _lock_of(beside) if beside.exists() else contextlib.nullcontext(True) as is_free:
            left = is_old if is_free is None else is_free
            if left and path != beside:
                _remove(path, status, put_back=found["target"] if found["retired"] else "")
        if left:  # now closed: Windows removes no open file
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock_of(path: Path, *, is_directory: bool = False) -> Iterator[bool | None]:
    """Try to hold a lock within this block: True, or False if it is held, None if unsupported. Raises OSError."""
    descriptor = system.open_without_links(path, os.O_RDONLY if is_directory else os.O_RDWR)
    try:
        yield system.lock(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path, status: os.stat_result, *, put_back: str = "") -> None:
    if put_back:
        _put_back(path, put_back)
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _put_back(retired: Path, name: str) -> None:
    """Move back the directory that a killed writer had retired, unless a new one exists."""
    if (retired / name).exists() and not retired.with_name(name).exists():
        system.rename(retired / name, retired.with_name(name))
