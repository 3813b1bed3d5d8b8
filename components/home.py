"""Home: the directories in which application and pipelines store data by default."""

import os
from pathlib import Path

import platformdirs

from image_finder.components.errors import ConfigError
from image_finder.components.system import resolved

HOME_VARIABLE = "IMAGE_FINDER_HOME"


def home_root(path: Path | None = None) -> Path:
    """The given folder, else IMAGE_FINDER_HOME, else the user's data folder; absolute, not created.

    Raises ConfigError if the home belongs to another account; homes are private.
    """
    chosen = path or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("image-finder")
    root = resolved(Path(chosen))
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
    return home_root() / "library"
