"""Moved folders: folders of a library inside its home follow the home when it moves."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from image_finder.components.errors import StorageError
from image_finder.components.index.format import MANIFEST
from image_finder.components.index.generations import current_generation
from image_finder.components.index.stored_paths import moved
from image_finder.components.library.catalog import Catalog
from image_finder.components.library.library import Library
from image_finder.components.library.reading import PUBLISHED

_HOME = "home"  # setting: path of the home at the last update


def adopt_folders(library: Library, catalog: Catalog, home: Path, *, warn: Callable[[str], None]) -> None:
    """Update paths below the former home to `home`, and record it; the caller commits.

    A library outside the home, and folders outside both homes, stay unchanged.
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
    """The home according to an index of a version that stored absolute paths; "" if unknown."""
    try:
        stored = json.loads((current_generation(library.index) / MANIFEST).read_bytes())["bundle_uri"]
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return ""
    inner = Path(library.root.relative_to(home), "bundles").parts
    parts = Path(stored).parts[:-1]
    is_inside = Path(stored).is_absolute() and parts[-len(inner) :] == inner
    return str(Path(*parts[: -len(inner)])) if is_inside else ""
