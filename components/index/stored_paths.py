"""Stored paths: paths in an index are relative to its directory, so that both can be moved.

A published index is <base>/index/generations/<name>, where base is a home or a library. Paths below base are stored
relative to the generation, so that base can be renamed, copied or mounted elsewhere, also read-only.
"""

import os
from pathlib import Path

from image_finder.components.system import relative_path

_GENERATIONS = "generations"
_BUNDLES = "bundles"


def relative(path: str, folder: Path, base: Path | None = None) -> str:
    """The path as the index in `folder` stores it: relative if below base (None: of its generations)."""
    base = base or _base_of(folder)
    if base is None or not Path(path).is_relative_to(base):
        return path
    return relative_path(path, _absolute(folder))


def absolute(path: str, folder: Path) -> str:
    """The absolute path of a stored one; URIs of object stores are unchanged."""
    if Path(path).is_absolute() or "://" in path:
        return path
    return os.path.normpath(_absolute(folder) / path)


def adopted(bundle: str, roots: tuple[str, ...], folder: Path) -> tuple[str, tuple[str, ...]]:
    """Absolute bundle and roots of an index, which may have been moved with absolute paths.

    If its bundle is beside it under the same name, paths below the former base are replaced by paths below the
    present one: a copy must read its own files, not those of the original.
    """
    base, named = _base_of(folder), Path(absolute(bundle, folder))
    located = tuple(absolute(root, folder) for root in roots)
    if base is None or named.parent.name != _BUNDLES:
        return str(named), located
    former, beside = named.parents[1], base / _BUNDLES / named.name
    if former == base or not beside.is_dir():
        return str(named), located
    return str(beside), tuple(moved(root, former, base) for root in located)


def moved(path: str, former: Path, base: Path) -> str:
    """The path below base that corresponds to one below former; other paths are unchanged."""
    return str(base / Path(path).relative_to(former)) if Path(path).is_relative_to(former) else path


def _base_of(folder: Path) -> Path | None:
    whole = _absolute(folder)
    return whole.parents[2] if whole.parent.name == _GENERATIONS and len(whole.parents) > 2 else None


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute keeps ".."
