"""Original files: opens the files of indexed images, and no others."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

from image_finder.components import system
from image_finder.components.app.api.error_responses import Fault
from image_finder.components.app.api.search_queue import require_indexed
from image_finder.components.errors import FinderError, ImageError
from image_finder.components.images.image_folder import StoredFile
from image_finder.components.search.engine import SearchEngine

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
_MISSING = "the image file no longer exists; the next update removes it from the index"


def gone(message: str = _MISSING) -> Fault:
    return Fault(410, "gone", message)


@contextlib.contextmanager
def as_gone() -> Iterator[None]:
    """Turn an ImageError, of a file that has changed since it was indexed, into Fault 410."""
    try:
        yield
    except ImageError:
        raise gone("the file is no longer a readable image") from None


class Original(NamedTuple):
    stream: BinaryIO
    n_bytes: int
    modified_ns: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class _Remote(io.RawIOBase):
    """A file of an object store, fetched when it is first read."""

    def __init__(self, stored: StoredFile) -> None:
        self._stored = stored
        self._content: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - collections.abc.Buffer is of Python 3.12
        return self._fetched().readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._fetched().seek(offset, whence)

    def _fetched(self) -> io.BytesIO:
        if self._content is None:
            try:
                self._content = io.BytesIO(self._stored.content())
            except FinderError:
                raise gone() from None
        return self._content


def open_original(engine: SearchEngine, identity: str) -> Original:
    """Open the file of an image. Raises Fault 404 for an unknown id, 410 for a missing file.

    The path is checked again through the open descriptor, since one of its folders may be replaced by a link meanwhile.
    """
    require_indexed(engine, identity)
    try:
        if (stored := engine.stored_image(identity)) is not None:
            return Original(cast("BinaryIO", io.BufferedReader(_Remote(stored))), *stored.state())
        path = engine.image_path(identity)
        descriptor = system.open_without_links(system.openable_path(path))  # the file may have become a link or pipe
    except (FinderError, OSError, RuntimeError, ValueError):  # RuntimeError: circular links
        raise gone() from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _inside(engine, path, descriptor):
            raise gone()
        return Original(os.fdopen(descriptor, "rb"), status.st_size, status.st_mtime_ns)
    except BaseException:
        os.close(descriptor)
        raise


def media_type(head: bytes) -> str:
    """Media type by the first 16 bytes of an image; never one that a browser executes."""
    for offset, signature, kind in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return kind
    return _UNKNOWN


def _inside(engine: SearchEngine, path: Path, descriptor: int) -> bool:
    opened = system.opened_path(descriptor, path)
    return opened is not None and any(
        opened.is_relative_to(Path(root).resolve()) for root in engine.index.manifest.roots
    )
