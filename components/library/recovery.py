"""Recovery: catalogue rows and captions from the published index."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from image_finder.components.errors import StorageError
from image_finder.components.index.index import VectorIndex
from image_finder.components.library.catalog import Catalog, FileRow, Rows, base_of
from image_finder.components.library.library import Library
from image_finder.components.library.scan import Scan
from image_finder.components.library.sources import GalleryFacts
from image_finder.components.system import path_bytes


def lost_rows(library: Library, scan: Scan, known: Rows, folder_ids: Mapping[int, int], *, incomplete: bool) -> Rows:
    """Unknown rows of the current index whose files the scan did not find, by absolute path.

    folder_ids: catalogue id of each position in scan.roots. incomplete: the catalogue has lost rows; otherwise only
    rows are returned whose paths could not be listed. They count as unsettled, so that their files are read soon.
    """
    if not (scan.unreadable or scan.empty_roots or incomplete):
        return {}
    try:
        index = VectorIndex.open(library.index)
    except StorageError:  # nothing is published, or it is damaged too, which the publication reports
        return {}
    ids = {root: folder_ids[position] for position, root in enumerate(scan.roots)}
    roots = [path_bytes(root) for root in index.manifest.roots]
    stored = zip(index.items["root"].to_pylist(), index.items["path"].to_pylist(), strict=True)
    positions = {}
    for position, (number, inner) in enumerate(stored):
        path = base_of(roots[number]) + inner
        hidden = incomplete or roots[number] in scan.empty_roots or scan.is_unreadable(path)
        if hidden and path not in known and path not in scan.files and roots[number] in ids:
            positions[path] = position
    items = index.items_at(np.array([*positions.values()], np.int64))
    return {path: row_of_item(item, ids[roots[item["root"]]]) for path, item in zip(positions, items, strict=True)}


def recover_captions(library: Library, catalog: Catalog) -> None:
    """Restore captions from the current index; the annotated images remain the gallery until it is given again."""
    try:
        index = VectorIndex.open(library.index)
    except StorageError:
        return
    identities = catalog.folder_ids()
    known = catalog.galleries()
    for root, captions in captions_of(index).items():
        if (identity := identities.get(root)) is not None and identity not in known:
            put_captions(catalog, identity, captions)


def captions_of(index: VectorIndex) -> dict[bytes, dict[bytes, tuple[str, ...]]]:
    found: dict[bytes, dict[bytes, tuple[str, ...]]] = {}
    columns = (index.items[name].to_pylist() for name in ("root", "path", "captions"))
    for number, path, captions in zip(*columns, strict=True):
        found.setdefault(path_bytes(index.manifest.roots[number]), {})[path] = tuple(captions)
    return {root: captions for root, captions in found.items() if any(captions.values())}


def put_captions(
    catalog: Catalog, identity: int, captions: Mapping[bytes, tuple[str, ...]], *, listed: bool = True
) -> None:
    """Make a folder a gallery with captions, if listed of these files only; the caller commits."""
    catalog.set_gallery(identity, GalleryFacts(listed=listed).model_dump_json())
    catalog.set_captions(identity, captions)


def row_of_item(item: Mapping[str, Any], folder: int) -> FileRow:
    """Catalogue row of an item; unsettled, since an index stores whole seconds only."""
    equal = ("path", "sha256", "width_px", "height_px", "camera", "latitude", "longitude")
    return FileRow(
        folder=folder,
        size=item["bytes"],
        mtime_ns=_seconds(item["modified_at"]) * 1_000_000_000,
        settled=0,
        taken_s=None if item["taken_at"] is None else _seconds(item["taken_at"]),
        **{name: item[name] for name in equal},
    )


def _seconds(time: datetime) -> int:
    return int(time.replace(tzinfo=UTC).timestamp())
