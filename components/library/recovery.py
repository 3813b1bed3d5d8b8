"""Recovery: what the published index still knows of images that the catalogue lost, where nobody can look now."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from image_finder.components.arrays import Rows
from image_finder.components.errors import StorageError
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.catalog import FileRow
from image_finder.components.library.library import Library
from image_finder.components.library.scan import Scan


def lost_rows(library: Library, scan: Scan, known: Rows, homes: Mapping[int, int], *, incomplete: bool) -> Rows:
    """Rows of the current index, by absolute path, that are not known and whose files the scan did not see.

    homes: the catalogue's id of each position in scan.roots. incomplete: the catalogue has lost rows; otherwise only
    rows are returned whose paths the scan could not look at. Times are those of the index, whole seconds, and the rows
    count as unsettled: such a file is read when it can be looked at again. Nothing where no sound index is in force.
    """
    if not (scan.unreadable or scan.empty_roots or incomplete):
        return {}
    try:
        index = VectorIndex.open(library.index)
    except StorageError:  # nothing was published, or it is damaged too; the publication tells of that
        return {}
    ids = {root: homes[position] for position, root in enumerate(scan.roots)}
    roots = [os.fsencode(root) for root in index.manifest.roots]
    places = zip(index.items["root"].to_pylist(), index.items["path"].to_pylist(), strict=True)
    positions = {}
    for position, (number, inner) in enumerate(places):
        path = roots[number].rstrip(b"/") + b"/" + inner
        hidden = incomplete or roots[number] in scan.empty_roots or scan.is_unreadable(path)
        if hidden and path not in known and path not in scan.files and roots[number] in ids:
            positions[path] = position
    items = index.items_at(np.array([*positions.values()], np.int64))
    return {path: _row(item, ids[roots[item["root"]]]) for path, item in zip(positions, items, strict=True)}


def _row(item: Mapping[str, Any], folder: int) -> FileRow:
    return FileRow(
        folder=folder,
        path=item["path"],
        size=item["bytes"],
        mtime_ns=_seconds(item["modified_at"]) * 1_000_000_000,
        settled=0,
        sha256=item["sha256"],
        width_px=item["width_px"],
        height_px=item["height_px"],
        taken_s=None if item["taken_at"] is None else _seconds(item["taken_at"]),
        camera=item["camera"],
        latitude=item["latitude"],
        longitude=item["longitude"],
        error="",
    )


def _seconds(time: datetime) -> int:
    return int(time.replace(tzinfo=UTC).timestamp())
