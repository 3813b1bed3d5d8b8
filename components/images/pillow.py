"""Pillow: opens images within limits, with few formats, quietly, and with one-line errors; applies no orientation."""

import contextlib
import functools
import importlib
import io
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from image_finder.components.errors import ImageError
from image_finder.components.images.files import size_fault
from image_finder.components.images.heif import open_heif
from image_finder.components.images.png_metadata import SIGNATURE as PNG_SIGNATURE
from image_finder.components.images.png_metadata import without_large_metadata
from image_finder.components.text import one_line, shown_path

_Answer = TypeVar("_Answer")

# Pillow's forty other formats are never tried, since some run other programs (EPS: Ghostscript).
_MODULE_OF_FORMAT = {
    "JPEG": "Jpeg",
    "MPO": "Mpo",
    "PNG": "Png",
    "GIF": "Gif",
    "WEBP": "WebP",
    "AVIF": "Avif",
    "BMP": "Bmp",
    "TIFF": "Tiff",
    "JPEG2000": "Jpeg2K",
    "PPM": "Ppm",
}
# What Pillow's decoders raise on damaged bytes, beside OSError, as found by fuzzing.
DECODER_FAULTS = (
    *(SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError),
    *(MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_MIXED_BRANDS = {b"mif1", b"msf1"}  # either HEIF or AVIF


class Refusal(Exception):  # noqa: N818 - with_image turns it into an ImageError
    """Why an image is refused, in words for the user."""


def with_image(source: Path | bytes, use: Callable[[Image.Image], _Answer]) -> _Answer:
    """Pass the opened, undecoded image to `use`. Raises ImageError, one line, for every failure."""
    try:
        with _opened(source) as stream, _quiet_pillow, _identified(stream) as image:
            return use(image)
    except (Refusal, OSError, *DECODER_FAULTS) as error:
        label = f"image ({len(source):,} bytes)" if isinstance(source, bytes) else shown_path(source)
        raise ImageError(f"{label}: {reason_of(error)}") from error


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        _require_content(len(source))
        yield io.BytesIO(source)
        return
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("not a regular file")
    _require_content(status.st_size)
    with source.open("rb") as stream:
        yield stream


def _require_content(n_bytes: int) -> None:
    if fault := size_fault(n_bytes) if n_bytes else "the file is empty (0 bytes)":
        raise Refusal(fault)


def _identified(stream: BinaryIO) -> Image.Image:
    """The image in stream with its header read. Raises UnidentifiedImageError, decoder faults."""
    head = stream.read(12)
    stream.seek(0)
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS:
        return _open_heif(stream)
    if head.startswith(PNG_SIGNATURE):
        stream = without_large_metadata(stream)
    try:
        return Image.open(stream, formats=_known_formats())
    except UnidentifiedImageError:
        if brand in _MIXED_BRANDS:  # not AVIF, so it can only be HEIF
            return _open_heif(stream)
        raise


def _open_heif(stream: BinaryIO) -> Image.Image:
    stream.seek(0)
    try:
        return open_heif(stream)
    except ImportError as error:
        raise Refusal("HEIC images need pi-heif: pip install 'text-guided-image-finder[app]'") from error


@functools.cache
def _known_formats() -> tuple[str, ...]:
    for module in _MODULE_OF_FORMAT.values():  # Image.init() would import all fifty: 52 instead of 4 ms
        importlib.import_module(f"PIL.{module}ImagePlugin")
    return tuple(name for name in _MODULE_OF_FORMAT if name in Image.OPEN)  # Pillow raises KeyError for unknown names


def reason_of(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        known = ", ".join((*_known_formats(), "HEIF"))
        return f"not a readable image (supported: {known})"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = one_line(error).strip('"')
    if isinstance(error, Refusal):
        return text
    return f"cannot be decoded: {text}"


class _QuietPillow:
    """Ignores Pillow's warnings while any thread is inside; real faults are errors here.

    warnings.catch_warnings is global, so the first thread sets the filter and the last one removes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=re.escape("PIL."))
            self._n_inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)
                self._saved = None


_quiet_pillow = _QuietPillow()
