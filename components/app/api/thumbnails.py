"""Views: upright JPEGs of indexed images without metadata; caches small ones on disk."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from image_finder.components import system
from image_finder.components.app.api.original_files import Original, as_gone, gone, open_original
from image_finder.components.app.api.thumbnail_address import RENDERING, thumbnail_version
from image_finder.components.images.decoding import load_for_display
from image_finder.components.images.encoding import jpeg_bytes
from image_finder.components.records.search import IndexedImage
from image_finder.components.search.engine import SearchEngine
from image_finder.components.temporaries import temporary_file

ICON_PX, THUMBNAIL_PX = 160, 320
TILE_PX = 480  # a row of the page is about 200 px high and a tile at most 2.2 times as wide
SIZES_PX = (ICON_PX, THUMBNAIL_PX, TILE_PX, 640, 960)
VIEW_PX = 1600


class View(NamedTuple):
    """A JPEG of an image.

    key: ETag, 32 hex digits. content: None if the client already has it. peak: of an explanation, the largest
    contribution, cosine; 0 if no region raises the score; None if not computed. version: of the indexed content, see
    thumbnail_address.py; empty if the file has changed since it was indexed.
    """

    key: str
    content: bytes | None = None
    peak: float | None = None
    version: str = ""


def key_of(*facts: object) -> str:
    return hashlib.sha256(":".join(map(str, facts)).encode()).hexdigest()[:32]


def is_known(key: str, known: str) -> bool:
    """Whether a client has the view. known: its If-None-Match header."""
    return key in known or known.strip() == "*"


def at_least(px: int) -> int:
    """Requested longer side rounded up to SIZES_PX, which bounds the cache."""
    return next((size for size in SIZES_PX if size >= px), SIZES_PX[-1])


@dataclass(frozen=True)
class Views:
    """Renders views and caches small ones; works without if the folder is not writable."""

    folder: Path | None  # cache; None: no cache
    max_bytes: int  # largest file that is read

    def get(self, engine: SearchEngine, identity: str, px: int, *, known: str = "") -> View:
        """A view of the file, at most px wide and high. known: keys that the client has. Raises Fault 404, 410."""
        with open_original(engine, identity) as original:
            image = engine.image(identity)
            version = thumbnail_version(image.sha256) if _is_as_indexed(image, original) else ""
            # Size and time of the file instead of its content, which would have to be read.
            key = key_of(RENDERING, image.sha256, original.n_bytes, original.modified_ns, px)
            if is_known(key, known):
                return View(key, version=version)
            cached = self.folder / key[:2] / f"{key}.jpg" if self.folder and px in SIZES_PX else None
            if cached is not None:
                with contextlib.suppress(OSError):
                    return View(key, cached.read_bytes(), version=version)
            with as_gone():
                content = jpeg_bytes(load_for_display(read_original(original, self.max_bytes), at_most_px=px))
        if cached is not None:
            with contextlib.suppress(OSError):
                _store(cached, content)
        return View(key, content, version=version)


def _is_as_indexed(image: IndexedImage, original: Original) -> bool:
    """Whether size and time of the file are those that were indexed; times in seconds, as the index holds them."""
    modified_s = None if image.modified_at is None else int(image.modified_at.timestamp())
    return original.n_bytes == image.bytes and original.modified_ns // 1_000_000_000 == modified_s


def read_original(original: Original, max_bytes: int) -> bytes:
    """Content of an open image file. Raises Fault 410 if it is larger than max_bytes."""
    data = original.stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise gone(f"the image file is now larger than {max_bytes:,} bytes and is not shown")
    return data


def _store(path: Path, content: bytes) -> None:
    """Write atomically, without fsync: a view lost in a crash is rendered again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the cache's root, where the next call removes the leftovers of a killed server.
    with temporary_file(path.parents[1] / path.name) as (stream, temporary):
        stream.write(content)
        stream.close()
        system.replace(temporary, path)
