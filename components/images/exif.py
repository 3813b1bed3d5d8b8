"""EXIF: facts of one photograph from its header; decodes no pixels and knows nothing of tables."""

import contextlib
import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from PIL import ExifTags, Image

from image_finder.components.images.decoding import displayed_size, read_exif
from image_finder.components.images.pillow import DECODER_FAULTS, with_image
from image_finder.components.records.base import Record

_Tags = Mapping[int, object]

_MAX_CAMERA_CHARACTERS = 100
# The oldest photograph is of 1826. Unset clocks and fuzzed files say 0000 or 9999.
_FIRST_YEAR, _LAST_YEAR = 1826, 2099
# EXIF 2.32: "2019:07:14 18:30:05"; phones and scanners also use dashes, a T, fractions and a zone.
_TIME = re.compile(
    r"(\d{4})[:-](\d{2})[:-](\d{2})[ T](\d{2}):(\d{2}):(\d{2})(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII
)


class ImageFacts(Record):
    """Facts from header and EXIF; an unknown field is None, or "" for the camera."""

    width_px: int  # as displayed, after EXIF orientation
    height_px: int
    taken_at: datetime | None  # the camera's local time, without a zone, since EXIF seldom has one
    camera: str  # maker and model, at most 100 characters
    latitude: float | None  # degrees north, WGS84; known together with the longitude or not at all
    longitude: float | None  # degrees east


def image_facts(source: Path | bytes) -> ImageFacts:
    """Facts of an image (a file, or a file's bytes) from its header and EXIF.

    taken_at is EXIF DateTimeOriginal, else DateTimeDigitized, else DateTime. A position of exactly 0 N 0 E, which
    cameras without a fix write, is unknown; so are damaged fields. Raises ImageError if the header cannot be read.
    """

    def read(image: Image.Image) -> ImageFacts:
        width, height = displayed_size(image)
        exif = read_exif(image)
        latitude, longitude = _position(_directory(exif, ExifTags.IFD.GPSInfo))
        return ImageFacts(
            width_px=width,
            height_px=height,
            taken_at=_taken_at(exif, _directory(exif, ExifTags.IFD.Exif)),
            camera=_camera(_text(exif, ExifTags.Base.Make), _text(exif, ExifTags.Base.Model)),
            latitude=latitude,
            longitude=longitude,
        )

    return with_image(source, read)


def _directory(exif: Image.Exif, tag: int) -> _Tags:
    if tag not in exif:
        return {}
    try:
        return exif.get_ifd(tag)
    except (OSError, *DECODER_FAULTS):
        return {}


def _value(tags: _Tags, tag: int) -> object:
    try:
        return tags.get(tag)  # Pillow decodes some directories only here
    except (OSError, *DECODER_FAULTS):
        return None


def _text(tags: _Tags, tag: int) -> str:
    value = _value(tags, tag)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.rstrip("\0 ") if isinstance(value, str) else ""


def _taken_at(exif: _Tags, details: _Tags) -> datetime | None:
    texts = (
        _text(details, ExifTags.Base.DateTimeOriginal),
        _text(details, ExifTags.Base.DateTimeDigitized),
        _text(exif, ExifTags.Base.DateTime),
    )
    return next((time for time in map(_time, texts) if time is not None), None)


def _time(text: str) -> datetime | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        time = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - local to the camera, zone unknown
    except ValueError:
        return None
    return time if _FIRST_YEAR <= year <= _LAST_YEAR else None


def _camera(make: str, model: str) -> str:
    """Maker and model; the model alone if it begins with the maker ("Canon EOS 80D")."""
    makers, models = _cleaned(make).split(), _cleaned(model).split()
    if models and models[0].casefold() in {word.casefold() for word in makers}:
        makers = []
    return " ".join(makers + models)[:_MAX_CAMERA_CHARACTERS].rstrip()


def _cleaned(text: str) -> str:
    """Text up to its first NUL; control and format characters become blanks."""
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")  # the standard says ASCII, many write UTF-8
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in text.split("\0")[0])


def _position(gps: _Tags) -> tuple[float | None, float | None]:
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, "NS", 90)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, "EW", 180)
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None, None
    return latitude, longitude


def _degrees(gps: _Tags, tag: int, sides: str, limit: int) -> float | None:
    """Signed degrees of a coordinate; its side (the second of sides is negative) is in tag - 1."""
    side = _text(gps, tag - 1).strip().upper()
    parts = _value(gps, tag)
    if len(side) != 1 or side not in sides or not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees, minutes, seconds = map(float, parts)
    except (TypeError, ValueError, ArithmeticError):
        return None
    if not (degrees >= 0 and 0 <= minutes <= 60 and 0 <= seconds <= 60):  # false for NaN, a rational of denominator 0
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(angle) or angle > limit:
        return None
    return -angle if side == sides[1] else angle
