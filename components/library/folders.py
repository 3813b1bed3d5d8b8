"""Folders of a library: its sources, also after its catalogue was lost or its home moved."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from image_finder.components.errors import DataError, StorageError
from image_finder.components.index.format import MANIFEST, read_manifest
from image_finder.components.index.generations import current_generation
from image_finder.components.index.stored_paths import moved
from image_finder.components.library.catalog import PUBLISHED, Catalog
from image_finder.components.library.index_options import Warn
from image_finder.components.library.library import Library, shown
from image_finder.components.library.sources import is_store
from image_finder.components.system import path_bytes, resolved

_HOME = "home"  # setting: path of the home at the last update


def chosen_roots(
    library: Library,
    catalog: Catalog | None,
    folders: Sequence[Path],
    forget: Sequence[Path],
    *,
    galleries: Sequence[bytes],
    warn: Warn,
) -> list[bytes]:
    """Sources of the library after this update: known and given ones without forgotten ones.

    Folders that the catalogue has lost are taken from the current index, and warn gets one line. Raises DataError for a
    missing folder, and if there is no source at all.
    """
    known = list(catalog.folders().values()) if catalog is not None else []
    lost = [] if catalog is not None and catalog.folders_are_sound() else _published_roots(library, known)
    known += lost
    for folder in (_source_of(each, known) for each in forget):
        if folder not in known:
            there = ", ".join(map(shown, known)) or "no folders"
            raise DataError(f"{shown(folder)} is not a folder of this library; it has {there}")
        known.remove(folder)
    given = [*map(_resolved, folders), *galleries]
    for folder in given:
        if folder not in known:
            known.append(folder if is_store(folder) else _usable(folder))
    if not known and not forget:
        raise DataError("the library has no folders yet; name some: image-finder index DIR...")
    if silent := [folder for folder in lost if folder in known and folder not in given]:
        names = ", ".join(map(shown, silent))
        warn(
            f"{library.catalog} does not name these folders any more, the published index does: {names}; they are kept"
        )
    return known


def adopt_folders(library: Library, catalog: Catalog, home: Path, *, warn: Warn) -> None:
    """Update paths below the former home to `home`, which the library is in; the caller commits."""
    former = catalog.setting(_HOME) or _published_home(library, home)
    if former and former != str(home):
        folders = catalog.folders()
        changed = {
            identity: path_bytes(moved(os.fsdecode(path), Path(former), home)) for identity, path in folders.items()
        }
        for identity, path in changed.items():
            if path not in folders.values():
                catalog.rename_folder(identity, path)
        if set(changed.values()) != set(folders.values()):
            catalog.set(**{PUBLISHED: ""})
            warn(f"Home moved from {former} to {home}: stored paths updated")
    catalog.set(**{_HOME: str(home)})


def _published_roots(library: Library, known: Sequence[bytes]) -> list[bytes]:
    try:
        roots = read_manifest(library.index).roots
    except (StorageError, OSError):  # nothing is published, or it is damaged too
        return []
    return [folder for folder in map(path_bytes, roots) if folder not in known]


def _source_of(folder: Path, known: Sequence[bytes]) -> bytes:
    """Path turns "s3://" into "s3:/"."""
    stores = {Path(os.fsdecode(root)): root for root in known if is_store(root)}
    return stores.get(folder) or _resolved(folder)


def _usable(folder: bytes) -> bytes:
    if not os.path.isdir(folder):  # noqa: PTH112 - bytes
        raise DataError(f"{shown(folder)}: no such folder; name folders that hold images")
    try:
        folder.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(folder)}: its name is not UTF-8; give the folder above it") from error
    return folder


def _resolved(folder: Path) -> bytes:
    return path_bytes(resolved(folder))


def _published_home(library: Library, home: Path) -> str:
    """The home according to an index of a version that stored absolute paths; "" if unknown."""
    try:
        stored = json.loads((current_generation(library.index) / MANIFEST).read_bytes())["bundle_uri"]
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return ""
    inner = Path(library.root.relative_to(home), "bundles").parts
    parts = Path(stored).parts[:-1]
    is_inside = Path(stored).is_absolute() and parts[-len(inner) :] == inner
    return str(Path(*parts[: -len(inner)])) if is_inside else ""
