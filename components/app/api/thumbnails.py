"""Views: JPEGs of an image of the index, upright and without metadata; the small ones are kept on disk if possible."""

import contextlib
import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from image_finder.components.app.api.original_files import gone, open_original
from image_finder.components.errors import ImageError
from image_finder.components.images.decoding import load_for_display
from image_finder.components.search.engine import SearchEngine
from image_finder.components.temporaries import temporary_file

SIZES_PX = (160, 320, 480, 640, 960)
VIEW_PX = 1600
_VERSION = 1  # of how they are made
_QUALITY = 82


class View(NamedTuple):
    """key: 32 hex digits, the same only for the same bytes. content: None if the asker has this key already."""

    key: str
    content: bytes | None


def at_least(px: int) -> int:
    """The size that is made for a wanted longer side: the next of SIZES_PX, so that nobody fills the disk with sizes."""
    return next((size for size in SIZES_PX if size >= px), SIZES_PX[-1])


class Views:
    """Makes views and keeps the small ones. A folder that cannot be written, or is full, keeps nothing and harms nothing."""

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        """folder: where they are kept; None: nowhere. max_bytes: largest file that is read."""
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, engine: SearchEngine, identity: str, px: int, *, known: str = "") -> View:
        """A view of the image as its file is now, which may be newer than the index. px: longer side at most.

        known: keys the asker has.

        Raises Fault 404 for an unknown id, 410 when the file has gone or is no image any more.
        """
        with open_original(engine, identity) as stream:
            key = _key_of(os.fstat(stream.fileno()), engine, identity, px)
            if key in known or known.strip() == "*":
                return View(key, None)
            place = self._place(key, px)
            if place is not None:
                with contextlib.suppress(OSError):
                    return View(key, place.read_bytes())
            content = self._made(stream, px)
        if place is not None:
            with contextlib.suppress(OSError):
                _keep(place, content)
        return View(key, content)

    def _place(self, key: str, px: int) -> Path | None:
        return self._folder / key[:2] / f"{key}.jpg" if self._folder and px in SIZES_PX else None

    def _made(self, stream: BinaryIO, px: int) -> bytes:
        data = read_original(stream, self._max_bytes)
        try:
            return jpeg(load_for_display(data, at_most_px=px))
        except ImageError:
            raise gone("the image's file cannot be read as an image any more") from None


def read_original(stream: BinaryIO, max_bytes: int) -> bytes:
    """Content of an image's open file. Raises Fault 410 if it is larger than max_bytes."""
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise gone(f"the image's file has more than {max_bytes:,} bytes now and is not shown")
    return data


def _key_of(file: os.stat_result, engine: SearchEngine, identity: str, px: int) -> str:
    """Not of the content, which would have to be read: a file that has changed since it was indexed has another time."""
    facts = (_VERSION, engine.image(identity).sha256, file.st_size, file.st_mtime_ns, px)
    return hashlib.sha256(":".join(map(str, facts)).encode()).hexdigest()[:32]


def jpeg(image: Image.Image) -> bytes:
    """An image as a JPEG without metadata."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _keep(place: Path, content: bytes) -> None:
    """Write whole or not at all. Not synced: what a crash loses is made again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    # Beside the directories, since the next view removes what a killed server left there.
    with temporary_file(place.parents[1] / place.name) as (descriptor, temporary):
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        temporary.replace(place)
