"""Workspace: the directories a step may write to, from the only environment variable that steps read."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from image_finder.components.errors import ConfigError
from image_finder.components.home import HOME_VARIABLE
from image_finder.components.temporaries import process_directory

_ABANDONED_S = 24 * 3600  # longer than a run


def home() -> Path:
    """Home of the run. Raises ConfigError if the variable is not set."""
    value = os.environ.get(HOME_VARIABLE)
    if not value:
        raise ConfigError(f"{HOME_VARIABLE} is not set: start the pipeline with 'image-finder pipeline run', or set it")
    return Path(value)


def cache_dir() -> Path:
    """Features, unfinished training, vectors of images; may be deleted between runs."""
    return home() / "cache"


def scratch_dir() -> Path:
    """A new directory for an artefact until ZenML has stored it; removed when the process ends.

    The next call removes the directories of killed processes, hundreds of MB each.
    """
    parent = cache_dir() / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("tmp*"):  # made by versions that did not lock them
        with suppress(OSError):  # another process removes it
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    return process_directory(parent)
