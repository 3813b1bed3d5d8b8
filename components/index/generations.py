"""Generations of a published artefact behind a pointer: readers always find a complete one.

<root>/CURRENT               name of the current generation; replaced atomically
<root>/generations/<name>/   name: a running number and 8 random hex digits
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from image_finder.components.errors import StorageError
from image_finder.components.storage import new_directory, write_errors, write_text_atomically
from image_finder.components.system import read_replaced

POINTER = "CURRENT"
_GENERATIONS = "generations"
_LIBRARY_INDEX = "index"  # published root of a library's index, below the library
_KEPT = 2  # the current one and the one before it, which a reader may be opening
_NAME = re.compile("[0-9]+-[0-9a-f]{8}")
Stamp: TypeAlias = tuple[int, int, int] | None


@contextlib.contextmanager
def new_generation(root: Path, *, spare: Callable[[], Collection[str]] = tuple) -> Iterator[Path]:
    """Yield an empty directory that becomes the current generation, unless writing fails.

    Only one writer at a time; readers need not wait. Removes generations older than the previous one, except those
    named by spare. Raises StorageError.
    """
    folder = root / _GENERATIONS
    last = max((_number(name) for name in _names(root)), default=0)
    name = f"{last + 1:08d}-{secrets.token_hex(4)}"
    with new_directory(folder / name) as temporary:
        yield temporary
    point_to(root, name)
    _remove_old(root, spare())


def point_to(root: Path, name: str) -> None:
    """Make an existing generation the current one. Raises StorageError."""
    if name not in _names(root):
        raise StorageError(f"{root} has no generation {name!r}; it has {', '.join(_names(root)) or 'none'}")
    write_text_atomically(root / POINTER, name + "\n")


def is_published_root(path: Path) -> bool:
    return (path / POINTER).is_file()


def current_generation(root: Path) -> Path:
    """Directory of the current generation. Raises StorageError if there is none."""
    pointer = root / POINTER
    try:
        name = read_replaced(pointer).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"nothing is published at {root}: {POINTER} cannot be read; publish it first") from error
    if not _NAME.fullmatch(name):
        raise StorageError(f"{pointer} is damaged: {name[:40]!r} is not a generation; publish it again")
    return root / _GENERATIONS / name


def published_root(path: Path) -> Path:
    below = path / _LIBRARY_INDEX
    return below if is_published_root(below) and not is_published_root(path) else path


def resolve(path: Path) -> Path:
    """The current generation of a published root or library, or the path itself. Raises StorageError."""
    root = published_root(path)
    return current_generation(root) if is_published_root(root) else root


def pointer_stamp(root: Path) -> Stamp:
    """A value that changes with every publication; None if root is not a published root."""
    try:
        status = (root / POINTER).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def generations(root: Path) -> list[Path]:
    """Directories of all generations, newest first."""
    return [root / _GENERATIONS / name for name in sorted(_names(root), key=_number, reverse=True)]


def _remove_old(root: Path, spared: Collection[str]) -> None:
    # A reader that has a removed generation mapped keeps its pages; on Windows its files stay, and the next writer tries
    # again.
    current = current_generation(root).name
    older = [name for name in sorted(_names(root), key=_number) if name != current]
    with write_errors(root):
        for name in older[: len(older) - (_KEPT - 1)]:
            if name in spared:
                continue
            shutil.rmtree(root / _GENERATIONS / name, ignore_errors=True)
        for entry in os.scandir(root / _GENERATIONS):  # leftovers of a killed writer
            if entry.name.startswith("."):
                shutil.rmtree(entry.path, ignore_errors=True)


def _names(root: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(root / _GENERATIONS) if _NAME.fullmatch(entry.name)]
    except FileNotFoundError:
        return []


def _number(name: str) -> int:
    return int(name.partition("-")[0])
