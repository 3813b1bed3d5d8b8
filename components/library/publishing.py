"""Publishing a library: catalogue rows and their vectors to a new generation of the index."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import IndexTierConfig
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.duplicates import Hashes
from image_finder.components.index.generations import current_generation, new_generation
from image_finder.components.index.index import FORMAT_VERSION, ITEM_SCHEMA, IndexManifest, write_index
from image_finder.components.index.tier_building import add_tier, texts_encoder
from image_finder.components.index.vector_cache import cached_vectors
from image_finder.components.library.catalog import FileRow
from image_finder.components.library.library import Library, shown
from image_finder.components.moments import FIRST_S, LAST_S


def publish_rows(
    library: Library,
    bundle: Bundle,
    cache: ContentCache,
    rows: Sequence[FileRow],
    roots: Mapping[int, bytes],
    *,
    tier: IndexTierConfig,
) -> str:
    """Write rows, each readable and with its vector in the cache, as the generation in force; returns its name.

    roots: absolute folder of each folder id; a row of an unreadable file goes to the list of failures. An approximate
    tier is built anew with every generation. Raises BundleError, ConfigError, QualityError, StorageError.
    """
    readable = [row for row in rows if not row.error]
    vectors, hashes = cached_vectors(cache, [row.sha256 for row in readable])
    manifest = IndexManifest(
        format_version=FORMAT_VERSION,
        kind="exact",
        count=len(readable),
        embedding_dim=bundle.manifest.embedding_dim,
        bundle_sha256=bundle.sha256,
        bundle_uri=str(library.bundles / bundle.sha256[:16]),
        gallery=library.root.name,
        roots=tuple(os.fsdecode(root) for root in roots.values()),
        failed={shown(roots[row.folder] + b"/" + row.path): row.error for row in rows if row.error},
        self_check=None,
        files_sha256={},
    )
    table = item_table(readable, roots, hashes)
    with new_generation(library.index) as folder:
        written = write_index(folder, vectors, table, manifest)
        add_tier(folder, written, tier, texts_encoder(bundle))
    return current_generation(library.index).name


def item_table(rows: Sequence[FileRow], roots: Mapping[int, bytes], hashes: Hashes) -> pa.Table:
    """Rows of readable images as ITEM_SCHEMA, in their order. hashes: (n,) difference hashes."""
    columns = list(zip(*rows, strict=True)) or [()] * len(FileRow._fields)
    of = dict(zip(FileRow._fields, columns, strict=True))
    positions = {identity: position for position, identity in enumerate(roots)}
    modified_s = np.array(of["mtime_ns"], np.int64) // 1_000_000_000
    names = [path.rpartition(b"/") for path in of["path"]]
    arrays = {
        "id": _texts(_ids(of["folder"], of["path"], roots), pa.string()),
        "root": _numbers(np.array([positions[identity] for identity in of["folder"]], np.int16), pa.int16()),
        "path": _texts(of["path"], pa.binary()),
        "folder": _texts(_labels(of["folder"], [name[0] for name in names], roots), pa.string()),
        "name": _texts([shown(name[2]).encode() for name in names], pa.string()),
        "sha256": _texts([value.encode() for value in of["sha256"]], pa.string()),
        "dhash": _numbers(hashes, pa.uint64()),
        "bytes": _numbers(np.array(of["size"], np.int64), pa.int64()),
        "width_px": _numbers(np.array(of["width_px"], np.int32), pa.int32()),
        "height_px": _numbers(np.array(of["height_px"], np.int32), pa.int32()),
        "captions": _no_texts(len(rows)),
        "taken_at": _optional(of["taken_s"], np.int64, pa.timestamp("s")),
        "modified_at": _numbers(np.clip(modified_s, FIRST_S, LAST_S), pa.timestamp("s")),
        "camera": _texts([value.encode() for value in of["camera"]], pa.string()),
        "latitude": _optional(of["latitude"], np.float64, pa.float64()),
        "longitude": _optional(of["longitude"], np.float64, pa.float64()),
    }
    return pa.table(arrays, schema=ITEM_SCHEMA)


def root_labels(roots: Mapping[int, bytes]) -> dict[int, str]:
    """What people see of each folder: its own name, numbered where names are equal; nothing of the path above it."""
    labels: dict[int, str] = {}
    for identity, root in roots.items():
        name = shown(root.rpartition(b"/")[2]) or "files"
        number, label = 1, name
        while label in labels.values():
            number += 1
            label = f"{name} ({number})"
        labels[identity] = label
    return labels


def _ids(folders: Sequence[int], paths: Sequence[bytes], roots: Mapping[int, bytes]) -> list[bytes]:
    """What image_finder.components.index.index.item_id gives, for many: the hash of a root is taken once."""
    beginnings = {identity: hashlib.sha256(root + b"\0") for identity, root in roots.items()}
    ids = []
    for folder, path in zip(folders, paths, strict=True):
        digest = beginnings[folder].copy()
        digest.update(path)
        ids.append(digest.hexdigest()[:16].encode())
    return ids


def _labels(folders: Sequence[int], inner: Sequence[bytes], roots: Mapping[int, bytes]) -> list[bytes]:
    labels, made = root_labels(roots), {}
    for folder, path in set(zip(folders, inner, strict=True)):
        label = f"{labels[folder]}/{shown(path)}" if path else labels[folder]
        made[folder, path] = label.encode()
    return [made[place] for place in zip(folders, inner, strict=True)]


# Not pa.array: it imports pandas where that is installed, a quarter of a second for nothing.


def _texts(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    offsets[1:] = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))])


def _no_texts(n: int) -> pa.Array:
    """As many empty lists of texts."""
    offsets = pa.py_buffer(np.zeros(n + 1, np.int32))
    kind = pa.list_(pa.string())
    return pa.Array.from_buffers(kind, n, [None, offsets], children=[_texts([], pa.string())])


def _optional(values: Sequence[float | None], dtype: type, kind: pa.DataType) -> pa.Array:
    there = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return _numbers(np.fromiter((value or 0 for value in values), dtype, len(values)), kind, there)


def _numbers(values: NDArray[Any], kind: pa.DataType, there: NDArray[np.bool_] | None = None) -> pa.Array:
    """values, which have the memory layout of kind, and which of them are known."""
    known = None if there is None else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [known, pa.py_buffer(np.ascontiguousarray(values))])
