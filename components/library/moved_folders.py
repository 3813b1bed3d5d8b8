"""Moved: a library's folders that are in its home follow the home when it is renamed, copied or mounted elsewhere."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from image_finder.components.errors import StorageError
from image_finder.components.index.generations import current_generation
from image_finder.components.index.index import MANIFEST
from image_finder.components.index.stored_paths import moved
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.library import Library
from image_finder.components.library.reading import PUBLISHED

_HOME = "home"  # setting: where the home was when the catalogue was written last


def adopt_folders(library: Library, catalog: Catalog, home: Path, *, warn: Callable[[str], None]) -> None:
    """Bring folders below the former home below `home`, and note where it is; the caller commits.

    Nothing happens to a library that is outside its home, and to folders that are outside both homes.
    """
    if not library.root.is_relative_to(home):
        return
    former = catalog.setting(_HOME) or _published_home(library, home)
    if former and former != str(home):
        folders = catalog.folders()
        changed = {
            identity: os.fsencode(moved(os.fsdecode(path), Path(former), home)) for identity, path in folders.items()
        }
        for identity, path in changed.items():
            if path not in folders.values():
                catalog.rename_folder(identity, path)
        if set(changed.values()) != set(folders.values()):
            catalog.set(**{PUBLISHED: ""})
            warn(f"Home moved from {former} to {home}: stored paths updated")
    catalog.set(**{_HOME: str(home)})


def _published_home(library: Library, home: Path) -> str:
    """The home as an index of an earlier version names it, which stored the absolute path of its bundle; "" if unknown."""
    try:
        stored = json.loads((current_generation(library.index) / MANIFEST).read_bytes())["bundle_uri"]
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return ""
    inner = Path(library.root.relative_to(home), "bundles").parts
    parts = Path(stored).parts[:-1]
    is_inside = Path(stored).is_absolute() and parts[-len(inner) :] == inner
    return str(Path(*parts[: -len(inner)])) if is_inside else ""
