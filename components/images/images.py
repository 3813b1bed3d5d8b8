"""Images: finds them in a folder and decodes one to upright RGB; knows nothing of captions, tables or models."""

import contextlib
import errno
import functools
import importlib
import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from image_finder.components.errors import DataError, ImageError
from image_finder.components.images.colour import to_srgb
from image_finder.components.images.cut_jpeg import MOST_MISSING, completed, ends_in_zeros, missing_share
from image_finder.components.images.heif import open_heif
from image_finder.components.images.png_metadata import SIGNATURE as PNG_SIGNATURE
from image_finder.components.images.png_metadata import without_large_metadata
from image_finder.components.text import one_line, shown_path

logger = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
OnCut = Callable[[str], None]  # called with a note, one line, about an image whose file ends too early

DECODING_VERSION = 2  # raise it when files that could not be decoded may be decodable: libraries try them again
IMAGE_ENDINGS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif"),
        *(".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".heic", ".heif", ".hif"),
    }
)
MAX_IMAGE_BYTES = 512 << 20  # a file above is not read: no photograph is that large, and it would fill the memory

# Pillow knows forty more formats; those are never tried, since some run other programs (EPS: Ghostscript).
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
# What Pillow's decoders were seen to raise on damaged bytes, apart from OSError.
DECODER_FAULTS = (
    *(SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, EOFError),
    *(MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_MIXED_BRANDS = {b"mif1", b"msf1"}  # either HEIF or AVIF
_PILLOW_MAX_PIXELS = 178_956_970
_GREY_PIXELS_AT_ONCE = 1 << 20  # 16-bit greys are scaled in bands: whole, a hundred megapixels would take 3 GB
_ORIENTATION_TAG = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}  # orientations that swap width and height


def load_rgb(
    source: Path | bytes,
    *,
    at_least_px: int | None = None,
    max_pixels: int = 100_000_000,
    on_cut: OnCut | None = None,
) -> Image.Image:
    """Decode an image (a file, or a file's bytes) to upright 8-bit RGB; of an animation, its first frame.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys are scaled to 8 bits. The result carries
    no metadata, so nothing can turn it a second time. at_least_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its
    size as long as both sides keep so many pixels (libjpeg's scaled DCT); other formats, and smaller JPEGs, are
    decoded whole. max_pixels: largest width x height as stored, checked before any pixel is decoded; Pillow's own
    limit, 178,956,970, holds above it. on_cut: given, a JPEG that ends too early is decoded if at most 5 % of it is
    missing (plain there), and on_cut is called with a note; None, which training needs, refuses it.
    Raises ImageError, one line "path: reason".
    """

    def decode(image: Image.Image) -> Image.Image:
        _check_pixels(image, max_pixels)
        _check_end(image)
        orientation = _orientation(image)
        if at_least_px is not None:
            # A square request keeps both stored sides at that length, hence also the sides after a quarter turn.
            image.draft(None, (at_least_px, at_least_px))
        image.load()
        return _upright(_to_rgb(image), orientation)

    return _decoded(source, decode, max_pixels=max_pixels, on_cut=on_cut)


def load_for_display(source: Path | bytes, *, at_most_px: int, max_pixels: int = 100_000_000) -> Image.Image:
    """Decode an image for people: upright 8-bit sRGB that fits into at_most_px x at_most_px; never enlarged.

    Differs from load_rgb, whose numbers models were trained on: an ICC profile (Display P3, Adobe RGB, a printer's
    CMYK) is converted to sRGB; a damaged one is ignored. Sides keep their ratio to the pixel, at least 1 px; at_most_px is 1 or more.
    Transparency is laid over white, of an animation the first frame is taken, and the result carries no metadata.
    A JPEG that ends too early is shown as far as load_rgb would decode it. Raises ImageError as load_rgb does.
    """

    def decode(image: Image.Image) -> Image.Image:
        _check_pixels(image, max_pixels)
        _check_end(image)
        orientation = _orientation(image)
        longest = max(image.size)
        width, height = (max(1, side * min(at_most_px, longest) // longest) for side in image.size)
        image.draft(None, (width, height))
        image.load()
        # Scaled first: everything after costs by the pixel, and an upload's pixels may be a hundred million.
        small = _resizable(image)
        if max(small.size) > at_most_px:  # libjpeg rounds up, so a half-size decode may be a row taller than asked for
            small = small.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        if small.mode not in {"L", "CMYK"}:
            small = _to_rgb(small)
        return _upright(to_srgb(small, image.info.get("icc_profile")), orientation)

    return _decoded(source, decode, max_pixels=max_pixels, on_cut=accept_cut)


def accept_cut(note: str) -> None:
    """For load_rgb's on_cut: take the image as far as it can be read, and say nothing."""


def _decoded(
    source: Path | bytes, decode: Callable[[Image.Image], Image.Image], *, max_pixels: int, on_cut: OnCut | None
) -> Image.Image:
    """What decode makes of an image, or of a cut JPEG that was completed if there is an on_cut to call."""
    try:
        return with_image(source, decode)
    except ImageError:
        mended = None if on_cut is None else _mended(source, max_pixels)
        if on_cut is None or mended is None:
            raise
    content, missing = mended
    image = with_image(content, decode)
    on_cut(f"its end is missing, {missing:.1%} of the image" if missing else "its end marker is missing")
    return image


def _mended(source: Path | bytes, max_pixels: int) -> tuple[bytes, float] | None:
    """A cut JPEG with an end, and the share of its rows that are missing; None for all other files."""

    def rows(image: Image.Image) -> Image.Image:
        _check_pixels(image, max_pixels)
        image.draft("L", image.size)
        image.load()
        return image.copy()

    try:
        content = source if isinstance(source, bytes) else read_image(source)
        if (whole := completed(content)) is None:
            return None
        missing = missing_share(content, lambda data: with_image(data, rows))
    except (ImageError, OSError, MemoryError):
        return None
    return (whole, missing) if missing <= MOST_MISSING else None


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image that Pillow holds already, as load_rgb would give it; the one given is not changed. Raises ImageError."""
    try:
        orientation = _orientation(image)
        return _upright(_to_rgb(image), orientation)
    except (OSError, *DECODER_FAULTS) as error:
        raise ImageError(f"image ({image.width} x {image.height}, {image.mode}): {_reason(error)}") from error


def image_size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) in pixels as displayed, after EXIF orientation; reads the header only. Raises ImageError."""
    return with_image(source, displayed_size)


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels after EXIF orientation of an image that is not decoded yet, as with_image gives."""
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def read_exif(image: Image.Image) -> Image.Exif:
    """EXIF of an image that is not decoded yet; empty if there is none or it is damaged. Decodes no pixels."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif", "xmp"} & image.info.keys():
        return (
            Image.Exif()
        )  # getexif would decode the whole PNG to look for eXIf behind the pixels; none may stand there
    try:
        return image.getexif()
    except (OSError, *DECODER_FAULTS):  # damaged metadata do not make the pixels unusable
        return Image.Exif()


def find_images(root: Path) -> list[Path]:
    """Files below root with one of IMAGE_ENDINGS (any case), relative to root, sorted by their POSIX path.

    Hidden files and folders are skipped; see walk_files for links. Raises DataError if root is not a folder.
    """
    relatives = sorted(relative for relative, _ in walk_files(root))
    return [path for path in map(Path, relatives) if path.suffix.lower() in IMAGE_ENDINGS]


def walk_files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (POSIX path relative to root, stat) of the regular files below root, in no particular order.

    Hidden entries and dangling links are skipped. Linked folders are followed, after all real ones, and no folder is
    visited twice, so loops end. A folder that cannot be listed is logged. Raises DataError if root is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, so no images can be found in it")
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


def _list_folder(folder: Path, visited: set[tuple[int, int]]) -> list[tuple["os.DirEntry[str]", os.stat_result]]:
    """Entries of folder that are not hidden, with their stat after links; nothing if the folder was visited before."""
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
                with contextlib.suppress(OSError):  # a dangling or looping link, or a file that has just gone
                    entries.append((entry, entry.stat()))
    except OSError as error:
        logger.warning("images in %s are left out: %s", folder, error.strerror)
    return entries


def read_image(path: Path) -> bytes:
    """Content of an image's file; its size is checked first, so that no film of many GB is read into memory.

    Raises ImageError for a file that is too large, named by its size as load_rgb names bytes; OSError.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        _check_limit(status.st_size)
        content = path.read_bytes()
        _check_limit(len(content))  # it may have grown
    except (_Refusal, MemoryError) as error:
        raise ImageError(f"image ({status.st_size:,} bytes): {_reason(error)}") from error
    return content


def require_readable_size(n_bytes: int) -> None:
    """Raises ImageError for a file that is too large to be read."""
    try:
        _check_limit(n_bytes)
    except _Refusal as error:
        raise ImageError(f"image ({n_bytes:,} bytes): {error}") from error


class _Refusal(Exception):  # noqa: N818 - never leaves this module
    """Reason, in words for the user, why an image is refused."""


def with_image(source: Path | bytes, use: Callable[[Image.Image], _Answer]) -> _Answer:
    """Open source, hand the undecoded image to use, and turn whatever fails into a one-line ImageError."""
    try:
        with _opened(source) as stream, _quiet_pillow, _identified(stream) as image:
            return use(image)
    except (_Refusal, OSError, *DECODER_FAULTS) as error:
        raise ImageError(f"{_label(source)}: {_reason(error)}") from error


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        _check_length(len(source))
        yield io.BytesIO(source)
        return
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _Refusal("not a regular file")
    _check_length(status.st_size)
    with source.open("rb") as stream:
        yield stream


def _check_length(n_bytes: int) -> None:
    if n_bytes == 0:
        raise _Refusal("the file is empty (0 bytes)")
    _check_limit(n_bytes)


def _check_limit(n_bytes: int) -> None:
    if n_bytes > MAX_IMAGE_BYTES:
        raise _Refusal(f"{n_bytes:,} bytes, the limit is {MAX_IMAGE_BYTES:,} bytes")


def _identified(stream: BinaryIO) -> Image.Image:
    """The image in stream, its header read. Raises UnidentifiedImageError, or what the format's reader raises."""
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
        raise _Refusal("HEIC images need pi-heif: pip install 'text-guided-image-finder[app]'") from error


@functools.cache
def _known_formats() -> tuple[str, ...]:
    for module in _MODULE_OF_FORMAT.values():  # Image.init() would import all fifty: 52 instead of 4 ms
        importlib.import_module(f"PIL.{module}ImagePlugin")
    return tuple(
        name for name in _MODULE_OF_FORMAT if name in Image.OPEN
    )  # a name it does not know makes Pillow raise KeyError


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    limit = min(max_pixels, _PILLOW_MAX_PIXELS)  # Pillow's holds for all formats but HEIF, which it does not open
    if image.width * image.height > limit:
        raise _Refusal(f"{image.width} x {image.height} pixels, the limit is {limit:,} pixels")


def _check_end(image: Image.Image) -> None:
    stream = getattr(image, "fp", None)
    if image.format in {"JPEG", "MPO"} and stream is not None and ends_in_zeros(stream):
        raise OSError("image file is truncated (zeros at its end)")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 that is still to be applied; 1 (upright) if there is none or it cannot be read."""
    if image.format in {"TIFF", "HEIF"}:
        return 1  # Pillow and pi-heif turn these themselves while they load, and report the upright size from the start
    try:
        value = read_exif(image).get(_ORIENTATION_TAG, 1)
    except (OSError, *DECODER_FAULTS):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(decoded: Image.Image, orientation: int) -> Image.Image:
    """The decoded image turned by its EXIF orientation and stripped of metadata."""
    upright = decoded.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else decoded
    upright.info = {}
    return upright


def _resizable(image: Image.Image) -> Image.Image:
    """The decoded image in a mode whose pixels may be averaged: L, RGB, CMYK, or one with an alpha band."""
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image)
    if image.mode in {"L", "LA", "RGB", "RGBA", "CMYK"} and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image of the decoded one, transparency over white."""
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")  # a copy if it is RGB already


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits; Pillow's own conversion clips them at 255.

    16 bits: 65,535 becomes 255. 32 bits: the same if all values fit into 16 bits. Floats: 0 to 1 becomes 0 to 255.
    Values beyond have no agreed white, so they are stretched from their minimum to their maximum.
    """
    values = np.asarray(image)
    step = max(1, _GREY_PIXELS_AT_ONCE // image.width)
    bands = [slice(top, top + step) for top in range(0, image.height, step)]
    white = 1.0 if image.mode == "F" else 65535.0
    low = min(float(_finite(values[band]).min()) for band in bands)
    high = max(float(_finite(values[band]).max()) for band in bands)
    if low >= 0 and high <= white:
        low, high = 0.0, white
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled = np.empty(values.shape, dtype=np.uint8)
    for band in bands:
        scaled[band] = np.rint((_finite(values[band]) - low) * scale)
    return Image.fromarray(scaled)


def _finite(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _label(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return f"image ({len(source):,} bytes)"
    return shown_path(source)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        known = ", ".join((*_known_formats(), "HEIF"))
        return f"not an image, or damaged, or of a format that is not supported ({known} are)"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = one_line(error).strip('"')
    if isinstance(error, _Refusal):
        return text
    return f"cannot be decoded: {text}"


class _QuietPillow:
    """While any thread is inside, warnings that Pillow raises about an image are ignored; all others pass.

    What matters of them is an error here already. warnings.catch_warnings in every thread would not do: its filters
    are global, so threads would restore each other's. The first one in sets the filter, the last one out removes it.
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
