"""Originals: opens the file of an image of the index, and no other file; knows nothing of HTTP but its refusals."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from image_finder.components.app.api.batches import row_of
from image_finder.components.app.api.error_responses import Fault
from image_finder.components.errors import FinderError
from image_finder.components.search.engine import SearchEngine

_DESCRIPTORS = Path("/proc/self/fd")
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavi", "image/avif"),
    (4, b"ftyphe", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"jP  ", "image/jp2"),
)
_UNKNOWN = "application/octet-stream"


_GONE = "the image's file is no longer there; it leaves the index when that is brought up to date"


def gone(message: str = _GONE) -> Fault:
    """410."""
    return Fault(410, "gone", message)


def open_original(engine: SearchEngine, identity: str) -> BinaryIO:
    """The file of an image, open for reading. Raises Fault 404 for an unknown id, 410 when it cannot be read any more.

    The path is checked twice: resolved, before it is opened, and by the name under which the system has it open, since
    a folder on the way may have become a link to elsewhere in between.
    """
    row_of(engine, identity)
    try:
        path = engine.image_path(identity)
        # Not through a link that has just taken the file's place; nor waiting for the writer of a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (FinderError, OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        raise gone() from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _inside(engine, path, descriptor):
            raise gone()
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def media_type(head: bytes) -> str:
    """Media type of an image's first 16 bytes; never one that a browser runs."""
    for at, mark, kind in _SIGNATURES:
        if head[at : at + len(mark)] == mark:
            return kind
    return _UNKNOWN


def _inside(engine: SearchEngine, path: Path, descriptor: int) -> bool:
    """Whether an open file lies below one of the folders that were indexed."""
    if _DESCRIPTORS.is_dir():
        opened = (_DESCRIPTORS / str(descriptor)).readlink()
    else:  # systems without /proc: the name is resolved anew and must still be the same file
        opened = path.resolve()
        if not os.path.samestat(opened.stat(), os.fstat(descriptor)):
            return False
    return any(opened.is_relative_to(Path(root).resolve()) for root in engine.index.manifest.roots)
