"""Paths: where the application and the pipelines keep things unless told otherwise."""

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "IMAGE_FINDER_HOME"


def home_root(path: Path | None = None) -> Path:
    """The given folder, else the one IMAGE_FINDER_HOME names, else the user's data folder; absolute, not created."""
    chosen = path or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("image-finder")
    return Path(chosen).expanduser().resolve()


def published_index() -> Path:
    """The index that is searched unless another one is named."""
    return home_root() / "index"
