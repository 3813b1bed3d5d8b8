"""Publishing: puts an index and the bundle it was made with where searches look for them, the bundle first."""

import shutil
from pathlib import Path

from components.bundle import Bundle
from components.errors import StorageError
from components.search.index import MANIFEST, IndexManifest, VectorIndex
from components.search.published import POINTER, is_published_root, new_generation
from components.storage import new_directory, write_text_atomically


def publish(index: VectorIndex, bundle: Bundle, *, bundles: Path, target: Path) -> VectorIndex:
    """Copy the bundle to bundles/<its hash> and make it the default one, then the index as a generation of target.

    Does nothing when the same index is in force already. Raises IndexMismatchError, StorageError.
    """
    index.require_bundle(bundle.sha256)
    home = keep_bundle(bundle, bundles)
    write_text_atomically(bundles / POINTER, home.name + "\n")
    manifest = index.manifest.model_copy(update={"bundle_uri": str(home.resolve())})
    if _in_force(target) == manifest:
        return VectorIndex.open(target)
    with new_generation(target) as folder:
        shutil.copytree(index.path, folder, dirs_exist_ok=True)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return VectorIndex.open(target)


def keep_bundle(bundle: Bundle, bundles: Path) -> Path:
    """Copy a bundle to bundles/<16 digits of its hash> unless it is there; returns that folder. Raises StorageError."""
    home = bundles / bundle.sha256[:16]
    if not home.is_dir():
        with new_directory(home) as folder:
            shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    return home


def default_bundle(bundles: Path) -> Path | None:
    """Folder of the bundle that was published last, None if there is none. Raises StorageError if it has gone."""
    try:
        name = (bundles / POINTER).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    if not (bundles / name).is_dir() or Path(name).name != name:
        raise StorageError(f"{bundles / POINTER} names {name[:40]!r}, which is not there; publish a bundle again")
    return bundles / name


def _in_force(target: Path) -> IndexManifest | None:
    return VectorIndex.open(target).manifest if is_published_root(target) else None
