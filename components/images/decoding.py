"""Decoding: an image to upright RGB, for a model or for display; knows nothing of captions, tables or models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_finder.components.errors import ImageError
from image_finder.components.images.colour import to_srgb
from image_finder.components.images.cut_jpeg import MOST_MISSING, completed, ends_in_zeros, missing_share
from image_finder.components.images.files import read_image
from image_finder.components.images.pillow import DECODER_FAULTS, Refusal, reason_of, with_image

OnCut = Callable[[str], None]  # receives a note about an image whose file ends too early

MAX_PIXELS = 100_000_000  # width x height as stored, checked before decoding; below Pillow's own limit
DECODING_VERSION = 2  # raise it when more files can be decoded: libraries then retry their unreadable ones
_GREY_PIXELS_AT_ONCE = 1 << 20  # 16-bit greys are scaled in bands; 100 megapixels at once would take 3 GB
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


def load_rgb(source: Path | bytes, *, at_least_px: int | None = None, on_cut: OnCut | None = None) -> Image.Image:
    """Decode an image (a file or its bytes) to upright RGB without metadata; an animation to its first frame.

    Transparency is laid over white, 16-bit greys are scaled to 8 bits. at_least_px: a JPEG may be decoded at 1/2, 1/4
    or 1/8 of its size (libjpeg's scaled DCT) if both sides keep so many pixels. on_cut: if given, a JPEG that ends too early is decoded if at most
    5 % of it are missing (filled plainly), and on_cut receives a note; None, as training requires, refuses it. Raises
    ImageError, one line "path: reason".
    """

    def decode(image: Image.Image) -> Image.Image:
        _check_pixels(image)
        _check_end(image)
        orientation = _orientation(image)
        if at_least_px is not None:
            # A square request keeps both stored sides at that length, hence also the sides after a quarter turn.
            image.draft(None, (at_least_px, at_least_px))
        image.load()
        return _upright(_to_rgb(image), orientation)

    return _decoded(source, decode, on_cut=on_cut)


def load_for_display(source: Path | bytes, *, at_most_px: int) -> Image.Image:
    """Decode an image for people: upright sRGB that fits into at_most_px, never enlarged, without metadata.

    Unlike load_rgb, whose numbers models were trained on, it converts an ICC profile (Display P3, Adobe RGB, a
    printer's CMYK) to sRGB. A JPEG that ends too early is shown if load_rgb could decode it. Raises ImageError.
    """

    def decode(image: Image.Image) -> Image.Image:
        _check_pixels(image)
        _check_end(image)
        orientation = _orientation(image)
        longest = max(image.size)
        width, height = (max(1, side * min(at_most_px, longest) // longest) for side in image.size)
        image.draft(None, (width, height))
        image.load()
        # Scaled first: the rest costs time per pixel, and an upload may have a hundred million.
        small = _resizable(image)
        if max(small.size) > at_most_px:  # libjpeg rounds up, so a half-size decode may be one row too tall
            small = small.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        if small.mode not in {"L", "CMYK"}:
            small = _to_rgb(small)
        return _upright(to_srgb(small, image.info.get("icc_profile")), orientation)

    return _decoded(source, decode, on_cut=accept_cut)


def accept_cut(note: str) -> None:
    """For load_rgb's on_cut: accept a cut image without a note."""


def _decoded(
    source: Path | bytes, decode: Callable[[Image.Image], Image.Image], *, on_cut: OnCut | None
) -> Image.Image:
    try:
        return with_image(source, decode)
    except ImageError:
        mended = None if on_cut is None else _mended(source)
        if on_cut is None or mended is None:
            raise
    content, missing = mended
    image = with_image(content, decode)
    on_cut(f"its end is missing, {missing:.1%} of the image" if missing else "its end marker is missing")
    return image


def _mended(source: Path | bytes) -> tuple[bytes, float] | None:
    """A completed cut JPEG and the share of its rows that are missing; None for other files."""

    def rows(image: Image.Image) -> Image.Image:
        _check_pixels(image)
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
    """A copy of an image in memory, converted as load_rgb does. Raises ImageError."""
    try:
        orientation = _orientation(image)
        return _upright(_to_rgb(image), orientation)
    except (OSError, *DECODER_FAULTS) as error:
        raise ImageError(f"image ({image.width} x {image.height}, {image.mode}): {reason_of(error)}") from error


def image_size(source: Path | bytes) -> tuple[int, int]:
    """As displayed, in pixels, from the header alone. Raises ImageError."""
    return with_image(source, displayed_size)


def displayed_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def read_exif(image: Image.Image) -> Image.Exif:
    """EXIF of an opened image; empty if it is absent or damaged. Decodes no pixels."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif", "xmp"} & image.info.keys():
        return Image.Exif()  # getexif would decode the whole PNG to search for eXIf after the pixels
    try:
        return image.getexif()
    except (OSError, *DECODER_FAULTS):  # damaged metadata leave the pixels usable
        return Image.Exif()


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Refusal(f"{image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,} pixels")


def _check_end(image: Image.Image) -> None:
    stream = getattr(image, "fp", None)
    if image.format in {"JPEG", "MPO"} and stream is not None and ends_in_zeros(stream):
        raise OSError("image file is truncated (zeros at its end)")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 that is still to be applied; 1 (upright) if there is none."""
    if image.format in {"TIFF", "HEIF"}:
        return 1  # Pillow and pi-heif turn these themselves and report the upright size
    try:
        value = read_exif(image).get(_ORIENTATION_TAG, 1)
    except (OSError, *DECODER_FAULTS):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(decoded: Image.Image, orientation: int) -> Image.Image:
    upright = decoded.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else decoded
    upright.info = {}
    return upright


def _resizable(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels can be averaged: L, RGB, CMYK, or with an alpha band."""
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image)
    if image.mode in {"L", "LA", "RGB", "RGBA", "CMYK"} and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")  # a copy if it is RGB already


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits; Pillow's own conversion clips them at 255.

    White is 65,535, or 1 for floats. Values outside are stretched from their minimum to their maximum.
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
