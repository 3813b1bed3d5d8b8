"""Image files: finds them below a folder and reads their bytes; decodes nothing."""

import contextlib
import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from image_finder.components.errors import DataError, ImageError
from image_finder.components.storage import sha256_of_lines
from image_finder.components.system import openable_path

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif"),
        *(".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".heic", ".heif", ".hif"),
    }
)
MAX_IMAGE_BYTES = 512 << 20  # larger files (videos, not photographs) would fill the memory


def find_images(root: Path) -> list[Path]:
    """Visible files below root with one of IMAGE_ENDINGS, relative, sorted by POSIX path. Raises DataError."""
    relatives = sorted(relative for relative, _ in walk_files(root))
    return [path for path in map(Path, relatives) if path.suffix.lower() in IMAGE_ENDINGS]


def walk_files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (POSIX path relative to root, stat) of the regular files below root, in any order.

    Hidden entries and dangling links are skipped. Linked folders are followed after all real ones, and no folder is
    visited twice. A folder that cannot be listed is logged. Raises DataError if root is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = deque([("", root)])
    visited: set[tuple[int, int]] = set()
    while folders:
        prefix, folder = folders.popleft()
        for entry, status in _list_folder(folder, visited):
            relative = f"{prefix}{entry.name}"
            if stat.S_ISREG(status.st_mode):
                yield relative, status
            elif stat.S_ISDIR(status.st_mode) and entry.is_symlink():
                folders.append((f"{relative}/", folder / entry.name))
            elif stat.S_ISDIR(status.st_mode):
                folders.appendleft((f"{relative}/", folder / entry.name))


def fingerprint_folder(folder: Path) -> str:
    """Hex SHA-256 of names, sizes and modification times of the files below. Raises DataError."""
    return sha256_of_lines((name, status.st_size, status.st_mtime_ns) for name, status in walk_files(folder))


def _list_folder(folder: Path, visited: set[tuple[int, int]]) -> list[tuple["os.DirEntry[str]", os.stat_result]]:
    """Visible entries with their stat after links; empty if the folder was visited before."""
    entries: list[tuple[os.DirEntry[str], os.stat_result]] = []
    try:
        identity = folder.stat()
        if (identity.st_dev, identity.st_ino) in visited:
            return []
        visited.add((identity.st_dev, identity.st_ino))
        with os.scandir(folder) as listing:
            for entry in listing:
                if entry.name.startswith("."):
                    continue
                with contextlib.suppress(OSError):  # a dangling or looping link, or a removed file
                    entries.append((entry, entry.stat()))
    except OSError as error:
        logger.warning("cannot list %s, its images are skipped: %s", folder, error.strerror)
    return entries


def read_image(path: Path) -> bytes:
    """Content of an image file. Raises ImageError above MAX_IMAGE_BYTES, unread; OSError."""
    path = openable_path(path)  # beyond 260 characters on Windows
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        require_readable_size(status.st_size)
        content = path.read_bytes()
        require_readable_size(len(content))  # it may have grown
    except MemoryError as error:
        raise ImageError(f"image ({status.st_size:,} bytes): not enough memory to decode it") from error
    return content


def require_readable_size(n_bytes: int) -> None:
    if fault := size_fault(n_bytes):
        raise ImageError(f"image ({n_bytes:,} bytes): {fault}")


def size_fault(n_bytes: int) -> str:
    """Why a file of this size is not read; "" if it is."""
    return f"{n_bytes:,} bytes, the limit is {MAX_IMAGE_BYTES:,} bytes" if n_bytes > MAX_IMAGE_BYTES else ""
