"""Publishing: catalogue rows and their vectors become a new generation of the index."""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, IndexTierConfig
from image_finder.components.errors import StorageError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.index.arrow import number_array, text_array, text_list_array
from image_finder.components.index.duplicates import Hashes
from image_finder.components.index.format import FORMAT_VERSION, ITEM_SCHEMA, IndexManifest, is_sealed, write_index
from image_finder.components.index.generations import current_generation, new_generation
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import generation_of_bundle_before
from image_finder.components.index.self_check import check_sample
from image_finder.components.index.tier_building import add_tier, texts_encoder
from image_finder.components.index.tiers import tier_for
from image_finder.components.index.vector_cache import cached_vectors
from image_finder.components.library.catalog import Catalog, FileRow, base_of
from image_finder.components.library.index_options import Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.reading import Reader
from image_finder.components.library.sources import captions_by_path, uris_of
from image_finder.components.moments import FIRST_S, LAST_S


def publish_rows(
    library: Library,
    catalog: Catalog,
    bundle: Bundle,
    cache: ContentCache,
    rows: Sequence[FileRow],
    *,
    home: Path | None,
    config: EmbeddingConfig,
    checked_by: Reader | None = None,
) -> str:
    """Publish rows of the catalogue as the current generation; returns its name.

    The vector of each readable row must be in the cache; rows with an error become the list of failures. home: of the
    library; paths inside it are stored relative to the index. checked_by: reads a sample of the images for the
    self-check. Raises BundleError, ConfigError, DataError, QualityError, StorageError.
    """
    roots, captions = catalog.folders(), captions_by_path(catalog)
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
        uris={shown(root): uri for root, uri in uris_of(catalog).items()},
    )
    paths = [base_of(roots[row.folder]) + row.path for row in readable]
    table = item_table(readable, roots, hashes, [captions.get(path, ()) for path in paths])
    if checked_by is not None:
        unchecked = VectorIndex(library.index, manifest, vectors, table)
        manifest = _checked(unchecked, paths, checked_by, bundle, config)
    with new_generation(library.index, spare=lambda: generation_of_bundle_before(library.index)) as folder:
        written = write_index(folder, vectors, table, manifest, base=home)
        add_tier(folder, written, config.tier, texts_encoder(bundle), base=home)
    return current_generation(library.index).name


def indexed_count(library: Library) -> int:
    """Images of the current generation, 0 if there is none that can be opened."""
    try:
        return VectorIndex.open(library.index, verify=False).manifest.count
    except StorageError:
        return 0


def current_count(library: Library, name: str, bundle: Bundle, config: IndexTierConfig, *, warn: Warn) -> int | None:
    """Images of the current generation; None if it is damaged, or of another name, bundle or kind of index."""
    if not name:
        return None
    try:
        index = VectorIndex.open(library.index)
    except StorageError as error:
        warn(f"{error}: it is built again now")
        return None
    manifest = index.manifest
    # What auto chose is left as it is: it may have stayed exact for a reason that has not gone.
    kind = config.kind if config.kind == "auto" else tier_for(manifest.count, manifest.embedding_dim, config).kind
    is_sound = not index.fault and is_sealed(index.path) and kind in {"auto", manifest.kind}
    is_current = is_sound and index.path.name == name and manifest.bundle_sha256 == bundle.sha256
    return manifest.count if is_current else None


def _checked(
    index: VectorIndex, paths: Sequence[bytes], reader: Reader, bundle: Bundle, config: EmbeddingConfig
) -> IndexManifest:
    """The manifest with a self-check of images that the reader can read. paths: of all rows."""
    rows = np.array([row for row, path in enumerate(paths) if path in reader.scan.files], np.int64)
    if not len(rows):
        return index.manifest
    checked = check_sample(index, rows, lambda row: reader.content_of(paths[row]), bundle, config)
    return index.manifest.model_copy(update={"self_check": checked})


def item_table(
    rows: Sequence[FileRow], roots: Mapping[int, bytes], hashes: Hashes, captions: Sequence[Sequence[str]]
) -> pa.Table:
    """Rows of readable images as ITEM_SCHEMA. hashes: (n,) difference hashes; captions: per row."""
    columns = list(zip(*rows, strict=True)) or [()] * len(FileRow._fields)
    of = dict(zip(FileRow._fields, columns, strict=True))
    positions = {identity: position for position, identity in enumerate(roots)}
    modified_s = np.array(of["mtime_ns"], np.int64) // 1_000_000_000
    names = [path.rpartition(b"/") for path in of["path"]]
    arrays = {
        "id": text_array(_ids(of["folder"], of["path"], roots), pa.string()),
        "root": number_array(np.array([positions[identity] for identity in of["folder"]], np.int16), pa.int16()),
        "path": text_array(of["path"], pa.binary()),
        "folder": text_array(_labels(of["folder"], [name[0] for name in names], roots), pa.string()),
        "name": text_array([shown(name[2]).encode() for name in names], pa.string()),
        "sha256": text_array([value.encode() for value in of["sha256"]], pa.string()),
        "dhash": number_array(hashes, pa.uint64()),
        "bytes": number_array(np.array(of["size"], np.int64), pa.int64()),
        "width_px": number_array(np.array(of["width_px"], np.int32), pa.int32()),
        "height_px": number_array(np.array(of["height_px"], np.int32), pa.int32()),
        "captions": text_list_array(captions),
        "taken_at": _optional(of["taken_s"], np.int64, pa.timestamp("s")),
        "modified_at": number_array(np.clip(modified_s, FIRST_S, LAST_S), pa.timestamp("s")),
        "camera": text_array([value.encode() for value in of["camera"]], pa.string()),
        "latitude": _optional(of["latitude"], np.float64, pa.float64()),
        "longitude": _optional(of["longitude"], np.float64, pa.float64()),
    }
    return pa.table(arrays, schema=ITEM_SCHEMA)


def root_labels(roots: Mapping[int, bytes]) -> dict[int, str]:
    """Label of each folder: its name without the path above, numbered if names are equal."""
    labels: dict[int, str] = {}
    for identity, root in roots.items():
        name = shown(root.rpartition(b"/")[2]) or "files"
        numbered = (f"{name} ({number})" if number > 1 else name for number in itertools.count(1))
        labels[identity] = next(label for label in numbered if label not in labels.values())
    return labels


def _ids(folders: Sequence[int], paths: Sequence[bytes], roots: Mapping[int, bytes]) -> list[bytes]:
    """Ids of images: 16 hex digits of the hash of root and path, stable until the file is moved."""
    beginnings = {identity: hashlib.sha256(root + b"\0") for identity, root in roots.items()}
    ids = []
    for folder, path in zip(folders, paths, strict=True):
        digest = beginnings[folder].copy()
        digest.update(path)
        ids.append(digest.hexdigest()[:16].encode())
    return ids


def _labels(folders: Sequence[int], inner: Sequence[bytes], roots: Mapping[int, bytes]) -> list[bytes]:
    labels, made = root_labels(roots), {}
    keys = list(zip(folders, inner, strict=True))
    for folder, path in set(keys):
        label = f"{labels[folder]}/{shown(path)}" if path else labels[folder]
        made[folder, path] = label.encode()
    return [made[key] for key in keys]


def _optional(values: Sequence[float | None], dtype: type, kind: pa.DataType) -> pa.Array:
    known = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return number_array(np.fromiter((value or 0 for value in values), dtype, len(values)), kind, known)
