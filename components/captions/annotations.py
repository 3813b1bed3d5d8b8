"""Annotations: images and captions of one file as checked columns; knows neither file formats nor image folders."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import IntArray
from image_finder.components.errors import DataError
from image_finder.components.text import counted, shortened

logger = logging.getLogger(__name__)

_SHOWN_IDS = 5
_EXACT_FLOAT = 2.0**53  # up to it every integer is a float


class ImageColumns(NamedTuple):
    """Images: (n_images,) each. File names as annotated; 0 for an unknown size or licence."""

    ids: IntArray
    file_names: list[str]
    widths_px: IntArray
    heights_px: IntArray
    licenses: IntArray


class CaptionColumns(NamedTuple):
    """Captions, one a row: (n_captions,) each. "" for a caption that is null."""

    image_ids: IntArray
    ids: IntArray
    texts: list[str]


class Annotations(NamedTuple):
    """Distinct images and captions of these images. source: file or split, for messages."""

    source: str
    images: ImageColumns
    captions: CaptionColumns

    @classmethod
    def checked(cls, source: str, images: ImageColumns, captions: CaptionColumns) -> "Annotations":
        """Drop images that are listed twice.

        Raises DataError if an id is listed with different contents, or a caption belongs to no image.
        """
        rows = list(
            zip(images.ids.tolist(), images.file_names, *(column.tolist() for column in images[2:]), strict=True)
        )
        first: dict[int, int] = {}
        differing = [row[0] for n, row in enumerate(rows) if rows[first.setdefault(row[0], n)] != row]
        if differing:
            raise DataError(f"{source}: {counted_ids(differing)} listed twice with different contents")
        if len(first) < len(rows):
            kept = list(first.values())
            ids, names, *numbers = images
            images = ImageColumns(ids[kept], [names[row] for row in kept], *(column[kept] for column in numbers))
        orphans = captions.image_ids[~np.isin(captions.image_ids, images.ids)]
        if len(orphans):
            n_captions = f"{len(orphans):,} of {len(captions.texts):,} captions"
            raise DataError(f"{source}: {n_captions} point to {counted_ids(orphans)} not listed under images")
        return cls(source, images, captions)


def image_columns(values: Mapping[str, Sequence[Any]], where: str, known_licenses: dict[str, int]) -> ImageColumns:
    """Columns of values: ids, file names, widths, heights and licences. where: precedes their names in messages."""
    ids, names, widths, heights, license_ids = ((column, f"{where}{name}") for name, column in values.items())
    return ImageColumns(
        integers(*ids),
        texts(*names),
        integers_or_zero(*widths),
        integers_or_zero(*heights),
        licenses(*license_ids, known_licenses),
    )


def integers(values: Sequence[Any] | NDArray[Any], where: str) -> IntArray:
    """Values as int64; integral floats (640.0) count. Raises DataError (NumPy would cut 1.5 and parse "1")."""
    try:
        array = np.asarray(values if len(values) else np.zeros(0, np.int64))
    except (ValueError, OverflowError):
        array = np.empty(len(values), object)
    if array.dtype.kind == "f" and (np.abs(array) <= _EXACT_FLOAT).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.dtype.kind == "u" and (array > 2**63 - 1).any()):
        _refuse_first(values, int, where)
    return array.astype(np.int64)


def integers_or_zero(values: Iterable[Any], where: str) -> IntArray:
    return integers([0 if value is None else value for value in values], where)


def texts(values: Sequence[Any], where: str) -> list[str]:
    """The values, if all are texts. Raises DataError if one is not, or is no valid UTF-8."""
    if not all(isinstance(value, str) for value in values):
        _refuse_first(values, str, where)
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a text holds half a surrogate pair ({error.reason}); correct the file") from error
    return list(values)


def texts_or_empty(values: Iterable[Any], where: str) -> list[str]:
    return texts(["" if value is None else value for value in values], where)


def licenses(values: Sequence[Any], where: str, known: dict[str, int]) -> IntArray:
    """Ids of licences: numbers, texts that are numbers or `known` in lower case; else 0, logged."""
    names = {value: value.strip().casefold() for value in values if isinstance(value, str)}
    ids = {value: int(name) if name.isdecimal() else known.get(name, 0) for value, name in names.items()}
    if unknown := sorted(value for value, number in ids.items() if number == 0 and names[value] not in {"", "0"}):
        shown = shortened(unknown[0], 80)
        logger.warning("%s: %r has no id in the list of licences and counts as unknown", where, shown)
    return integers_or_zero([ids[value] if isinstance(value, str) else value for value in values], where)


def counted_ids(ids: Iterable[Any]) -> str:
    distinct = sorted({int(value) for value in ids})
    shown = ", ".join(map(str, distinct[:_SHOWN_IDS])) + (", ..." if len(distinct) > _SHOWN_IDS else "")
    return f"{counted(len(distinct), 'image id')} ({shown})"


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "nothing"


def _refuse_first(values: Iterable[Any], expected: type, where: str) -> NoReturn:
    for position, value in enumerate(values):
        if expected is int and isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
            continue
        if isinstance(value, bool) or not isinstance(value, (expected, np.integer) if expected is int else expected):
            found = shortened(repr(value), 80)
            raise DataError(f"{where}: entry {position} must be {expected.__name__}, found {found}")
    raise DataError(f"{where}: a value does not fit into 64 bits")
