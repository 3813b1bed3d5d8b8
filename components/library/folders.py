"""Folders of a library: which ones it is to hold, also when its catalogue has lost them; looks at no image."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from image_finder.components.errors import DataError, StorageError
from image_finder.components.index.index import read_manifest
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.library import Library, shown


def chosen_roots(
    library: Library,
    catalog: Catalog | None,
    folders: Sequence[Path],
    forget: Sequence[Path],
    *,
    warn: Callable[[str], None],
) -> list[bytes]:
    """Absolute folders the library is to hold: those it has and the given ones, without the forgotten ones.

    Folders that the catalogue has lost are taken from the index in force, which warn is told in one line. Raises
    DataError for a folder that is not there, and where there is none at all.
    """
    known = list(catalog.folders().values()) if catalog is not None else []
    lost = [] if catalog is not None and catalog.folders_are_sound() else _published_roots(library, known)
    known += lost
    for folder in map(_resolved, forget):
        if folder not in known:
            there = ", ".join(map(shown, known)) or "no folders"
            raise DataError(f"{shown(folder)} is not a folder of this library; it has {there}")
        known.remove(folder)
    given = [*map(_resolved, folders)]
    for folder in given:
        if folder not in known:
            known.append(_usable(folder))
    if not known and not forget:
        raise DataError("the library has no folders yet; name some: image-finder index DIR...")
    if silent := [folder for folder in lost if folder in known and folder not in given]:
        names = ", ".join(map(shown, silent))
        warn(
            f"{library.catalog} does not name these folders any more, the published index does: {names}; they are kept"
        )
    return known


def _published_roots(library: Library, known: Sequence[bytes]) -> list[bytes]:
    """Folders of the index in force that are not among the known ones."""
    try:
        roots = read_manifest(library.index).roots
    except (StorageError, OSError):  # nothing was published, or it is damaged too
        return []
    return [folder for folder in map(os.fsencode, roots) if folder not in known]


def _usable(folder: bytes) -> bytes:
    if not os.path.isdir(folder):  # noqa: PTH112 - bytes
        raise DataError(f"{shown(folder)}: no such folder; name folders that hold images")
    try:
        folder.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(folder)}: its name is not UTF-8; give the folder above it") from error
    return folder


def _resolved(folder: Path) -> bytes:
    return os.fsencode(folder.expanduser().resolve())
