"""Filters: select the items of an index, and list what can be selected; decodes nothing."""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from image_finder.components.errors import QueryError
from image_finder.components.index.arrow import bools, moment_scalar, number_scalar, text_scalar
from image_finder.components.moments import local, start_of_day
from image_finder.components.records.search import Facet, Facets
from image_finder.components.search.query import Filters
from image_finder.components.system import path_bytes

_NAMED_LABELS = 5
_SHOWN_CHARACTERS = 100  # of an unknown label


def allowed_rows(items: pa.Table, filters: Filters) -> NDArray[np.bool_] | None:
    """Which items pass the filters: (count,) bool; None if no filter is set.

    Raises QueryError for an unknown folder: a misspelt name must not look like a folder without matching images.
    """
    conditions = list(_conditions(items, filters))
    if not conditions:
        return None
    passed: NDArray[np.bool_] = np.logical_and.reduce([bools(condition) for condition in conditions])
    return passed


def facets(items: pa.Table) -> Facets:
    times = _first_and_last(items)
    return Facets(
        folders=_counted(items["folder"]),
        cameras=_counted(items["camera"]),
        first_day=min(times).date() if times else None,
        last_day=max(times).date() if times else None,
        with_gps=items.num_rows - items["latitude"].null_count,
        images=items.num_rows,
    )


def folder_label(items: pa.Table, roots: Sequence[str], name: str) -> str:
    """Label of a folder, given its label or path. Raises QueryError if it holds no image of the index."""
    if not Path(name).is_absolute() and _has_any(_below(items["folder"], name)):
        return name
    if name.strip() and "\0" not in name:
        path = os.path.abspath(os.path.expanduser(name))  # noqa: PTH100, PTH111 - Path raises for an unknown user
        for absolute in dict.fromkeys((path, os.path.realpath(path))):
            for position, root in enumerate(roots):
                inner = Path(absolute).relative_to(root) if Path(absolute).is_relative_to(root) else None
                if inner is not None and (label := _label_below(items, position, inner)):
                    return label
    raise _unknown_folder(items, name)


def root_label(items: pa.Table, position: int) -> str:
    return _label_below(items, position, Path())


def _label_below(items: pa.Table, position: int, inner: Path) -> str:
    """Label of the folder at a relative path below a root; "" if it holds no image."""
    start = path_bytes(inner) + b"/" if inner.parts else b""
    of_root = bools(pc.equal(items["root"], number_scalar(position, pa.int16())))
    rows = np.flatnonzero(of_root & bools(pc.starts_with(items["path"], start)))
    if not len(rows):
        return ""
    row = int(rows[0])
    depth = items["path"][row].as_py()[len(start) :].count(b"/")
    label: str = items["folder"][row].as_py()
    return label.rsplit("/", depth)[0]


def _inside(items: pa.Table, folder: str) -> pa.ChunkedArray:
    inside = _below(items["folder"], folder)
    if not _has_any(inside):
        raise _unknown_folder(items, folder)
    return inside


def _unknown_folder(items: pa.Table, folder: str) -> QueryError:
    values = [facet.value for facet in _counted(items["folder"])]
    labels = sorted(
        {*values, *(value.partition("/")[0] for value in values)}, key=lambda label: (label.count("/"), label)
    )
    named = ", ".join(map(repr, labels[:_NAMED_LABELS])) or "none"
    more = f" and {len(labels) - _NAMED_LABELS:,} more" if len(labels) > _NAMED_LABELS else ""
    return QueryError(
        f"the library has no images in folder {folder[:_SHOWN_CHARACTERS]!r}; indexed folders: {named}{more}"
    )


def _has_any(found: pa.ChunkedArray) -> bool:
    return bool(bools(found).any())


def _conditions(items: pa.Table, filters: Filters) -> Iterator[pa.ChunkedArray]:
    if filters.folders:
        yield reduce(pc.or_, [_inside(items, folder) for folder in filters.folders])
    if filters.cameras:
        yield reduce(pc.or_, [_holds(items["camera"], part) for part in filters.cameras])
    if filters.since:
        yield _not_before(items, filters.since)
    if filters.until and filters.until < date.max:
        yield pc.invert(_not_before(items, filters.until + timedelta(days=1)))
    width, height = items["width_px"], items["height_px"]
    if filters.min_px:
        yield pc.greater_equal(pc.min_element_wise(width, height), number_scalar(filters.min_px, pa.int32()))
    if filters.orientation:
        compare = {"landscape": pc.greater, "portrait": pc.less, "square": pc.equal}[filters.orientation]
        yield compare(width, height)
    if filters.name:
        yield _named(items["name"], filters.name)
    if filters.has_gps is not None:
        known = items["latitude"].is_valid()
        yield known if filters.has_gps else pc.invert(known)


def _not_before(items: pa.Table, day: date) -> pa.ChunkedArray:
    """Whether an item is of that day, in this machine's time zone, or later."""
    taken, modified = items["taken_at"], items["modified_at"]
    by_camera = pc.greater_equal(taken, moment_scalar(datetime.combine(day, time.min)))
    return pc.coalesce(by_camera, pc.greater_equal(modified, moment_scalar(start_of_day(day))))


def _first_and_last(items: pa.Table) -> list[datetime]:
    """First and last local time of images with an EXIF time, and of those without one."""
    by_camera = pc.min_max(items["taken_at"]).as_py()
    by_file = pc.min_max(items["modified_at"].filter(items["taken_at"].is_null())).as_py()
    times = [time for time in by_camera.values() if time]
    return times + [local(time).replace(tzinfo=None) for time in by_file.values() if time]


def _below(labels: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    folder = _encodable(folder.strip("/"))
    return pc.or_(pc.equal(labels, text_scalar(folder)), pc.starts_with(labels, folder + "/"))


def _holds(names: pa.ChunkedArray, part: str) -> pa.ChunkedArray:
    return pc.match_substring(names, _encodable(part), ignore_case=True)


def _named(names: pa.ChunkedArray, part: str) -> pa.ChunkedArray:
    if "*" not in part:  # 10 ms for 118,287 names instead of 24 to 60
        return _holds(names, part)
    escaped = re.sub(r"([\\%_])", r"\\\1", _encodable(part))  # special to match_like
    return pc.match_like(names, f"%{escaped.replace('*', '%')}%", ignore_case=True)


def _encodable(text: str) -> str:
    """The text without lone surrogates, which a terminal with another encoding may pass."""
    return text.encode("utf-8", "replace").decode()


def _counted(values: pa.ChunkedArray) -> tuple[Facet, ...]:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    return tuple(Facet(value=value, count=counts[value]) for value in sorted(filter(None, counts)))
