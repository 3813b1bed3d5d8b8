"""Format of an index directory: its files, their schema, and how they are written and verified.

vectors.npy        (count, dim) float32 unit rows
items.parquet      one row per vector: ITEM_SCHEMA
index.json         IndexManifest: format, count, sha256 of the bundle, of every other file and of itself, the self-check
approximate.faiss  of large indexes only, see components/index/tiers.py
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from image_finder.components.arrays import Vectors
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.index import stored_paths
from image_finder.components.index.generations import resolve
from image_finder.components.index.tiers import Parameters
from image_finder.components.manifest import Manifest
from image_finder.components.records.base import Record
from image_finder.components.storage import sha256_of_file, unsealed

FORMAT_VERSION = 2
MANIFEST = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
APPROXIMATE = "approximate.faiss"
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("root", pa.int16()),  # row of IndexManifest.roots
        ("path", pa.binary()),  # POSIX path relative to root, as the file system has it
        ("folder", pa.string()),
        ("name", pa.string()),
        ("sha256", pa.string()),
        ("dhash", pa.uint64()),
        ("bytes", pa.int64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("captions", pa.list_(pa.string())),
        ("taken_at", pa.timestamp("s")),
        ("modified_at", pa.timestamp("s")),
        ("camera", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)
_UNIT_TOLERANCE = 1e-3


class SelfCheck(Record):
    """Measurement of the finished index by its writer."""

    former_names: ClassVar[Mapping[str, str]] = {"n_pictures": "n_images"}

    n_images: int
    found_themselves_first: int  # or an image of equal content or vector
    recall_at_10: float  # against an exact search in float64


class ApproximateFacts(Record):
    """Parameters and measured recall of the approximate file."""

    parameters: Parameters
    recall_at_10: float  # share of the 10 nearest rows that are found, mean over the texts
    texts: Literal["captions", "sentences"]  # captions of the gallery, or generated sentences
    n_texts: int
    made_by: str


class IndexManifest(Manifest):
    file_name = MANIFEST
    artefact = "an index"
    version = FORMAT_VERSION
    error = StorageError
    missing = "no images indexed yet in {}. Run: image-finder index FOLDER"
    repair = upgrade = "build it again"

    kind: Literal["exact", "hnsw", "ivfpq"]
    count: int
    embedding_dim: int
    bundle_sha256: str
    bundle_uri: str
    gallery: str
    roots: tuple[str, ...]  # absolute folders; no image outside them is ever opened
    failed: dict[str, str]  # uri -> reason, of images that are not in the index
    self_check: SelfCheck | None
    files_sha256: dict[str, str]
    approximate: ApproximateFacts | None = None  # None for kind exact
    uris: dict[str, str] = Field(default_factory=dict)  # root -> URI with its options, of roots that are object stores


def write_index(
    path: Path, vectors: Vectors, items: pa.Table, manifest: IndexManifest, *, base: Path | None = None
) -> IndexManifest:
    """Write an index into an empty directory; returns the manifest with its hashes.

    base: see `write_manifest`. The caller makes the directory whole or absent. Raises BundleError if vectors are not
    unit rows.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) if len(vectors) else np.ones(1, np.float32)
    worst = float(np.abs(norms - 1).max())
    if not worst <= _UNIT_TOLERANCE:
        raise BundleError(
            f"cannot index {len(vectors)} vectors: a norm differs from 1 by {worst:.3g}, the limit is {_UNIT_TOLERANCE}; check the bundle"
        )
    np.save(path / VECTORS, np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
    # Columns with few repeated values are read four times as fast without dictionaries.
    pq.write_table(items.cast(ITEM_SCHEMA), path / ITEMS, use_dictionary=["folder", "camera"])
    hashes = {name: sha256_of_file(path / name) for name in (VECTORS, ITEMS)}
    manifest = manifest.model_copy(update={"files_sha256": hashes})
    write_manifest(path, manifest, base=base)
    return manifest


def write_manifest(path: Path, manifest: IndexManifest, *, base: Path | None = None) -> None:
    """Write index.json with its own checksum.

    base: paths below it are stored relative to the index, so that both can be moved; None: the library (or home) that
    a published index is in.
    """
    stored = manifest.model_copy(
        update={
            "bundle_uri": stored_paths.relative(manifest.bundle_uri, path, base),
            "roots": tuple(stored_paths.relative(root, path, base) for root in manifest.roots),
        }
    )
    stored.write(path)


def is_sealed(path: Path) -> bool:
    """Whether index.json has its checksum; indexes written before 2026-11-30 lack it."""
    return unsealed((path / MANIFEST).read_bytes())[1]


def check_files(path: Path, manifest: IndexManifest, *, verify: bool) -> None:
    """Raise StorageError if a file is missing, not listed or, with verify, damaged."""
    needed, hashes = [VECTORS, ITEMS], manifest.files_sha256
    listed = needed if manifest.kind == "exact" else [*needed, APPROXIMATE]
    if set(hashes) != set(listed) or (manifest.kind == "exact") != (manifest.approximate is None):
        raise corrupted(
            path, f"{MANIFEST} does not list the files of an index of kind {manifest.kind}: {', '.join(listed)}"
        )
    for name in needed:
        if not (path / name).is_file():
            raise StorageError(f"index {path} is incomplete: {name} is missing; build it again")
        if verify:
            try:
                require_hash(path / name, hashes[name])
            except StorageError as error:
                raise corrupted(path, str(error)) from error


def require_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise StorageError(f"{path.name} is missing")
    if (measured := sha256_of_file(path)) != expected:
        raise StorageError(f"{path.name} has sha256 {measured[:12]}, expected {expected[:12]}")


def corrupted(path: Path, reason: str) -> StorageError:
    return StorageError(f"index {path} is corrupted: {reason}; build it again")


def read_manifest(path: Path) -> IndexManifest:
    path = resolve(path)
    manifest = IndexManifest.read(path)
    bundle_uri, roots = stored_paths.adopted(manifest.bundle_uri, manifest.roots, path)
    return manifest.model_copy(update={"bundle_uri": bundle_uri, "roots": roots})
