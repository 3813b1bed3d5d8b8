"""Workspace: the folders a step may write to, from the one variable the commands set; the only environment steps read."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from image_finder.components.errors import ConfigError
from image_finder.components.home import HOME_VARIABLE
from image_finder.components.temporaries import process_directory

_LEFT_S = 24 * 3600  # older than a run lasts


def home() -> Path:
    """The home of the run. Raises ConfigError when the pipeline was not started with one."""
    value = os.environ.get(HOME_VARIABLE)
    if not value:
        raise ConfigError(f"{HOME_VARIABLE} is not set: start the pipeline with 'image-finder pipeline run', or set it")
    return Path(value)


def cache_dir() -> Path:
    """Features of frozen trunks, states of unfinished trainings, vectors of embedded images; may be deleted."""
    return home() / "cache"


def scratch_dir() -> Path:
    """A new folder for a directory artefact until ZenML has stored it; removed when the process ends.

    A process that is killed leaves its own, hundreds of MB; the next one removes it.
    """
    parent = cache_dir() / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("tmp*"):  # of versions that did not lock them
        with suppress(OSError):  # another process removes it
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    return process_directory(parent)
