"""Views: JPEGs of a picture of the index, upright and without metadata; the small ones are kept on disk if possible."""

import contextlib
import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from PIL import Image

from components.app.api.originals import gone, open_original
from components.data.images import load_for_display
from components.errors import PictureError
from components.search.engine import SearchEngine
from components.search.explain import explain
from components.temporaries import temporary_file

SIZES_PX = (160, 320, 480, 640, 960)
VIEW_PX = 1600
Kind = int | Literal["explanation"]  # longer side, or the explanation at VIEW_PX
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

    def get(self, engine: SearchEngine, identity: str, kind: Kind, *, known: str = "") -> View:
        """A view of the picture as its file is now, which may be newer than the index. known: keys the asker has.

        Raises Fault 404 for an unknown id, 410 when the file has gone or is no picture any more.
        """
        with open_original(engine, identity) as stream:
            key = _key_of(os.fstat(stream.fileno()), engine, identity, kind)
            if key in known or known.strip() == "*":
                return View(key, None)
            place = self._place(key, kind)
            if place is not None:
                with contextlib.suppress(OSError):
                    return View(key, place.read_bytes())
            content = self._made(engine, stream, kind)
        if place is not None:
            with contextlib.suppress(OSError):
                _keep(place, content)
        return View(key, content)

    def _place(self, key: str, kind: Kind) -> Path | None:
        return self._folder / key[:2] / f"{key}.jpg" if self._folder and kind in SIZES_PX else None

    def _made(self, engine: SearchEngine, stream: BinaryIO, kind: Kind) -> bytes:
        data = stream.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise gone(f"the picture's file has more than {self._max_bytes:,} bytes now and is not shown")
        try:
            if kind == "explanation":
                return _jpeg(explain(engine.encoder, data, at_most_px=VIEW_PX))
            return _jpeg(load_for_display(data, at_most_px=int(kind)))
        except PictureError:
            raise gone("the picture's file cannot be read as a picture any more") from None


def _key_of(file: os.stat_result, engine: SearchEngine, identity: str, kind: Kind) -> str:
    """Not of the content, which would have to be read: a file that has changed since it was indexed has another time."""
    model = engine.encoder.bundle.sha256 if kind == "explanation" else ""
    facts = (_VERSION, engine.picture(identity).sha256, file.st_size, file.st_mtime_ns, kind, model)
    return hashlib.sha256(":".join(map(str, facts)).encode()).hexdigest()[:32]


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _keep(place: Path, content: bytes) -> None:
    """Write whole or not at all. Not synced: what a crash loses is made again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    # Beside the directories, since the next view removes what a killed server left there.
    with temporary_file(place.parents[1] / place.name) as (descriptor, temporary):
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        temporary.replace(place)
