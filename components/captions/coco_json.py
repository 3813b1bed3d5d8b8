"""COCO captions JSON (https://cocodataset.org/#format-data): the only reader of the format; opens no image."""

import json
from pathlib import Path
from typing import Any

from image_finder.components.captions.annotations import (
    Annotations,
    CaptionColumns,
    image_columns,
    integers,
    listed,
    texts_or_empty,
)
from image_finder.components.errors import DataError
from image_finder.components.text import one_line


def read_coco_json(path: Path, *, caption_ids: bool = True) -> Annotations:
    """Images and captions of a file.

    caption_ids: whether captions must have ids; else they are numbered from 0. Raises DataError.
    """
    content = _load(path)
    images, annotations = (_list_at(content, key, path) for key in ("images", "annotations"))
    values = {key: _values(images, "images", key, path) for key in ("id", "file_name")}
    values |= {key: [row.get(key) for row in images] for key in ("width", "height", "license")}
    image_of = integers(_values(annotations, "annotations", "image_id", path), f"{path}: annotations[].image_id")
    captions = texts_or_empty(_values(annotations, "annotations", "caption", path), f"{path}: annotations[].caption")
    ids = _values(annotations, "annotations", "id", path) if caption_ids else range(len(annotations))
    return Annotations.checked(
        str(path),
        image_columns(values, f"{path}: images[].", _license_ids(content.get("licenses"))),
        CaptionColumns(image_of, integers(ids, f"{path}: annotations[].id"), captions),
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the data set's root and annotations")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # both JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise DataError(f"{path}: not valid JSON ({one_line(error)}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images and annotations, found a {type(content).__name__}")
    return content


def _list_at(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    if key not in content:
        raise DataError(f"{path}: no key '{key}', so this is no COCO captions file; found: {listed(content)}")
    if not isinstance(content[key], list):
        raise DataError(f"{path}: '{key}' must be a list, found a {type(content[key]).__name__}")
    return list(content[key])


def _values(rows: list[Any], name: str, key: str, path: Path) -> list[Any]:
    """The value under key of every row. The comprehension takes 20 ms for half a million rows."""
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError):
        for position, row in enumerate(rows):
            if not isinstance(row, dict):
                found = type(row).__name__
                raise DataError(f"{path}: {name}[{position}] must be an object, found a {found}") from None
            if key not in row:
                raise DataError(f"{path}: {name}[{position}] has no key '{key}'; found: {listed(row)}") from None
        raise


def _license_ids(rows: object) -> dict[str, int]:
    """By name and by URL, in lower case."""
    return {
        row[key].strip().casefold(): row["id"]
        for row in (rows if isinstance(rows, list) else [])
        for key in ("name", "url")
        if isinstance(row, dict) and isinstance(row.get(key), str) and type(row.get("id")) is int
    }
