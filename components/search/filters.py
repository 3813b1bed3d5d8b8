"""Filters: which items of an index a query looks at, and what the filters can choose among; decodes nothing."""

from datetime import datetime, time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.records import Facet, Facets
from components.search.arrow import bools, moment_scalar, number_scalar, text_scalar
from components.search.query import Filters


def allowed_rows(items: pa.Table, filters: Filters) -> NDArray[np.bool_] | None:
    """Which items pass, (count,) bool; None if no filter is set. A date is that of the capture, else of the file."""
    conditions = [
        *([_any([_below(items["folder"], folder) for folder in filters.folders])] if filters.folders else []),
        *([_any([_holds(items["camera"], camera) for camera in filters.cameras])] if filters.cameras else []),
        *_on_days(items, filters),
        *_of_shape(items, filters),
    ]
    if filters.has_gps is not None:
        known = items["latitude"].is_valid()
        conditions.append(known if filters.has_gps else pc.invert(known))
    if not conditions:
        return None
    passed: NDArray[np.bool_] = np.ones(items.num_rows, bool)
    for condition in conditions:
        passed &= bools(condition)
    return passed


def facets(items: pa.Table) -> Facets:
    """What the items have in folders, cameras, days and places."""
    days = pc.min_max(_moment(items)).as_py()
    return Facets(
        folders=_counted(items["folder"]),
        cameras=_counted(items["camera"]),
        first_day=days["min"].date() if days["min"] else None,
        last_day=days["max"].date() if days["max"] else None,
        with_gps=items.num_rows - items["latitude"].null_count,
        pictures=items.num_rows,
    )


def _on_days(items: pa.Table, filters: Filters) -> list[pa.ChunkedArray]:
    conditions = []
    if filters.since:
        start = datetime.combine(filters.since, time.min)
        conditions.append(pc.greater_equal(_moment(items), moment_scalar(start)))
    if filters.until:
        last = datetime.combine(filters.until, time.max.replace(microsecond=0))
        conditions.append(pc.less_equal(_moment(items), moment_scalar(last)))
    return conditions


def _of_shape(items: pa.Table, filters: Filters) -> list[pa.ChunkedArray]:
    width, height = items["width_px"], items["height_px"]
    conditions = []
    if filters.min_px:
        shorter = pc.min_element_wise(width, height)
        conditions.append(pc.greater_equal(shorter, number_scalar(filters.min_px, pa.int32())))
    if filters.orientation == "landscape":
        conditions.append(pc.greater(width, height))
    elif filters.orientation == "portrait":
        conditions.append(pc.less(width, height))
    elif filters.orientation == "square":
        conditions.append(pc.equal(width, height))
    return conditions


def _moment(items: pa.Table) -> pa.ChunkedArray:
    return pc.coalesce(items["taken_at"], items["modified_at"])


def _below(labels: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    folder = _encodable(folder.strip("/"))
    return pc.or_(pc.equal(labels, text_scalar(folder)), pc.starts_with(labels, folder + "/"))


def _holds(names: pa.ChunkedArray, part: str) -> pa.ChunkedArray:
    return pc.match_substring(names, _encodable(part), ignore_case=True)


def _encodable(text: str) -> str:
    """Halves of characters, which a terminal of another encoding gives, match nothing."""
    return text.encode("utf-8", "replace").decode()


def _any(conditions: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    found = conditions[0]
    for condition in conditions[1:]:
        found = pc.or_(found, condition)
    return found


def _counted(values: pa.ChunkedArray) -> tuple[Facet, ...]:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
    return tuple(Facet(value=value, count=counts[value]) for value in sorted(filter(None, counts)))
