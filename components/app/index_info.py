"""Index info: describes a published index and its bundle; reads no catalogue, so it works on a read-only disk."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from image_finder.components.app.champion_index import pending_change
from image_finder.components.bundle.bundle import Bundle, ImportedModel
from image_finder.components.errors import BundleError, StorageError
from image_finder.components.home import home_root
from image_finder.components.index.format import MANIFEST
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import default_bundle
from image_finder.components.library.bundles import published_ns
from image_finder.components.library.progress import IndexProgress, read_progress
from image_finder.components.moments import clipped_s
from image_finder.components.records.base import Record
from image_finder.components.search.filters import root_label


class IndexInfo(Record):
    index: str
    generation: str
    published_at: str  # ISO 8601, UTC
    images: int
    kind: str  # exact, hnsw or ivfpq
    recall_at_10: float | None  # of an approximate index, for texts
    folders: dict[str, int]  # absolute folder -> images in it
    labels: dict[str, str]  # absolute folder -> its label in filters; "" if it holds no image
    failed: dict[str, str]  # file -> reason
    bundle: str  # sha256
    bundle_path: str
    bundle_dataset: str  # "" if the bundle is missing
    bundle_data_version: str
    bundle_dim: int  # dimensions of a vector, 0 if the bundle is missing
    bundle_mb: float
    imported: ImportedModel | None  # origin, licence and speed of an imported model
    starter: bool  # whether the bundle is the starter model
    newer_bundle: str  # sha256 of another bundle published after this index, "" if there is none
    pending: str  # how to complete an unfinished promotion; "" if there is none
    indexing: IndexProgress | None  # of the running update of the library
    stored: dict[str, str]  # path -> what it holds, of all data of this account


def index_info(path: Path, stored: Mapping[Path, str]) -> IndexInfo:
    """Describe an index, published root or library. stored: see stored_data. Raises StorageError."""
    index = VectorIndex.open(path, verify=False)
    manifest = index.manifest
    counts = Counter(index.items["root"].to_pylist())
    published_at = (index.path / MANIFEST).stat().st_mtime
    opened = _opened(Path(manifest.bundle_uri))
    bundle = opened.manifest if opened else None
    pending = pending_change(path)
    return IndexInfo(
        index=str(path),
        generation=index.path.name,
        published_at=datetime.fromtimestamp(clipped_s(int(published_at)), UTC).isoformat(timespec="seconds"),
        images=manifest.count,
        kind=manifest.kind,
        recall_at_10=manifest.approximate.recall_at_10 if manifest.approximate else None,
        folders={root: counts[position] for position, root in enumerate(manifest.roots)},
        labels={root: root_label(index.items, position) for position, root in enumerate(manifest.roots)},
        failed=manifest.failed,
        bundle=manifest.bundle_sha256,
        bundle_path=manifest.bundle_uri,
        bundle_dataset=bundle.dataset if bundle else "",
        bundle_data_version=bundle.data_version if bundle else "",
        bundle_dim=bundle.embedding_dim if bundle else 0,
        bundle_mb=round(opened.size_mb, 1) if opened else 0.0,
        imported=bundle.imported if bundle else None,
        starter=bundle is not None and bundle.starter,
        newer_bundle=_newer(manifest.bundle_sha256, home_root() / "bundles", published_at),
        pending=pending.text() if pending else "",
        indexing=read_progress(path.parent),
        stored={str(each): what for each, what in stored.items()},
    )


def _opened(path: Path) -> Bundle | None:
    try:
        return Bundle.open(path, verify=False)
    except BundleError:
        return None


def _newer(sha256: str, bundles: Path, published_at: float) -> str:
    if published_ns(bundles) < published_at * 1e9:
        return ""
    try:
        path = default_bundle(bundles)
        other = Bundle.open(path, verify=False).sha256 if path else sha256
    except (BundleError, StorageError):
        return ""
    return other if other != sha256 else ""
