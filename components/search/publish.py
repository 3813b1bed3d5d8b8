"""Publishing: puts an index and the bundle it was made with where searches look for them, the bundle first."""

import shutil
from pathlib import Path

from components.bundle import Bundle
from components.search.index import MANIFEST, VectorIndex
from components.storage import new_directory


def publish(index: VectorIndex, bundle: Bundle, *, bundles: Path, target: Path) -> VectorIndex:
    """Copy the bundle to bundles/<its hash> unless it is there, then the index to target, naming that bundle.

    Does nothing when the same index is published already. Raises IndexMismatchError, StorageError.
    """
    index.require_bundle(bundle.sha256)
    home = bundles / bundle.sha256[:16]
    if not home.is_dir():
        with new_directory(home) as folder:
            shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    manifest = index.manifest.model_copy(update={"bundle_uri": str(home.resolve())})
    if (target / MANIFEST).is_file() and VectorIndex.open(target).manifest == manifest:
        return VectorIndex.open(target)
    with new_directory(target) as folder:
        shutil.copytree(index.path, folder, dirs_exist_ok=True)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return VectorIndex.open(target)
