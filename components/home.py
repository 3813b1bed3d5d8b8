"""Home: the directories in which application and pipelines store data by default."""

import os
from pathlib import Path
from typing import NamedTuple

import platformdirs

from image_finder.components.errors import ConfigError

HOME_VARIABLE = "IMAGE_FINDER_HOME"


def home_root(path: Path | None = None) -> Path:
    """The given folder, else IMAGE_FINDER_HOME, else the user's data folder; absolute.

    It is not created. Raises ConfigError if the home belongs to another account; homes are private.
    """
    chosen = path or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("image-finder")
    root = Path(chosen).expanduser().resolve()
    try:
        is_private = root.is_dir() and not os.access(root, os.R_OK | os.X_OK)
    except PermissionError:  # of a parent folder
        is_private = True
    if is_private:
        raise ConfigError(
            f"home {root} cannot be read by this account: Permission denied; run as its owner, or set {HOME_VARIABLE}"
        )
    return root


def default_library() -> Path:
    """The default library of indexed folders."""
    return home_root() / "library"


class IndexChoice(NamedTuple):
    """The published index that is searched, and the other one if there are two."""

    path: Path
    other: Path | None


def default_index() -> IndexChoice:
    """The index that is searched by default: that of the library or of the pipelines.

    The one published last; if there is none, the path of the pipelines' index.
    """
    paths = [default_library() / "index", home_root() / "index"]
    # The pointer file of index.generations.POINTER; importing that here would slow --help down.
    published = sorted((path for path in paths if (path / "CURRENT").is_file()), key=_published_at)
    if not published:
        return IndexChoice(paths[-1], None)
    return IndexChoice(published[-1], published[0] if len(published) > 1 else None)


def _published_at(path: Path) -> int:
    return (path / "CURRENT").stat().st_mtime_ns
