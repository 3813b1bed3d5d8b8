"""Publishing: the default bundle, and going back to the index of an earlier bundle."""

import shutil
from pathlib import Path

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import StorageError
from image_finder.components.index.format import read_manifest
from image_finder.components.index.generations import (
    POINTER,
    current_generation,
    generations,
    is_published_root,
    point_to,
)
from image_finder.components.index.index import VectorIndex
from image_finder.components.storage import new_directory, write_text_atomically
from image_finder.components.system import read_replaced


def publish_bundle(bundle: Bundle, bundles: Path) -> Bundle:
    """Copy a bundle to bundles/<its hash> and make it the default one. Raises StorageError."""
    kept = keep_bundle(bundle, bundles)
    write_text_atomically(bundles / POINTER, kept.name + "\n")
    return Bundle(kept, bundle.manifest)


def restore(bundle: Bundle, *, bundles: Path, target: Path) -> VectorIndex | None:
    """Make the newest intact generation of this bundle, and the bundle, current. Raises StorageError.

    Returns None, without any change, if none is kept.
    """
    for folder in generations(target):
        if _bundle_of(folder) != bundle.sha256:
            continue
        try:
            VectorIndex.open(folder)
        except StorageError:  # damaged: an older one may be intact
            continue
        publish_bundle(bundle, bundles)
        point_to(target, folder.name)
        return VectorIndex.open(target, verify=False)
    return None


def current_bundle_sha256(target: Path) -> str:
    """Hash of the current index's bundle; "" if there is no readable index."""
    try:
        return _bundle_of(current_generation(target)) if is_published_root(target) else ""
    except StorageError:
        return ""


def generation_of_bundle_before(target: Path) -> list[str]:
    """Name of the newest generation of another bundle than the current one, for `restore`."""
    found = generations(target)
    now = _bundle_of(current_generation(target))
    return next(([folder.name] for folder in found if _bundle_of(folder) not in {now, ""}), [])


def _bundle_of(folder: Path) -> str:
    try:
        return read_manifest(folder).bundle_sha256
    except (OSError, StorageError):
        return ""  # damaged or of another format: not searchable


def keep_bundle(bundle: Bundle, bundles: Path) -> Path:
    """Copy a bundle to bundles/<16 digits of its hash> unless it exists. Raises StorageError."""
    home = bundles / bundle.sha256[:16]
    if not home.is_dir():
        with new_directory(home) as folder:
            shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
            bundle.manifest.write(folder)
    return home


def default_bundle(bundles: Path) -> Path | None:
    """The bundle published last; None if there is none. Raises StorageError if it is missing."""
    try:
        name = read_replaced(bundles / POINTER).strip()
    except FileNotFoundError:
        return None
    if not (bundles / name).is_dir() or Path(name).name != name:
        raise StorageError(f"{bundles / POINTER} names {name[:40]!r}, which does not exist; publish a bundle again")
    return bundles / name
