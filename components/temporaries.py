"""Temporary files and directories whose leftovers are removed by the next writer; knows nothing of what they hold.

A temporary is named `.<name>.<8 random characters>.if-tmp` and locked (flock) by its writer. The lock shows that the writer
still runs, also in another container or on another host, and ends with the process; the next writer in the directory then
removes the temporary. Process numbers are reused and mean nothing in another container.
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
# Named by versions that did not lock them.
_UNLOCKED = re.compile(r"\.(writer\.json|CURRENT|layout\.json|(starter-)?[0-9a-f]{16}(\.old)?)\.[a-z0-9_]{8}")
_ABANDONED_S = 24 * 3600.0  # where a file system has no locks: longer than any write takes


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[tuple[int, Path]]:
    """Descriptor and path of a new file beside path, which is removed at the end unless it was renamed. Raises OSError."""
    remove_leftovers(path.parent)
    descriptor, temporary = _locked(lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_NEW))
    try:
        yield descriptor, temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def temporary_directory(path: Path, *, retired: bool = False) -> Iterator[Path]:
    """A new directory beside path, removed at the end unless it was renamed. Raises OSError.

    retired: it takes the directory at path, which is put back if nothing has replaced it at the end, or when the next
    writer finds that this one was killed.
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
    """A new directory in the system's directory for temporary files, removed at the end."""
    with temporary_directory(Path(tempfile.gettempdir(), "image-finder")) as folder:
        yield folder


def process_directory(parent: Path | None = None) -> Path:
    """A new directory in parent, or the system's directory for temporary files, until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    path = Path(parent or tempfile.gettempdir(), "image-finder")
    return stack.enter_context(temporary_directory(path))


def remove_leftovers(folder: Path) -> None:
    """Remove temporaries in folder whose writers have ended. Raises nothing: what cannot be removed stays."""
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
    """What make creates, locked. Another writer may remove it between the two; then it is made again."""
    while True:
        descriptor, name = make()
        if _lock(descriptor) is not False and Path(name).exists():
            return descriptor, Path(name)
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock a file or directory unless another process has locked it; None where that cannot be known."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # network file systems lock no directories, or nothing
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
    """Give back the directory that a writer had moved away when it was killed, before the new one took its name."""
    if (retired / name).exists() and not retired.with_name(name).exists():
        (retired / name).rename(retired.with_name(name))
