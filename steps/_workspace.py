"""Workspace: the folders a step may write to, from the one variable the commands set; the only environment steps read."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from components.app.paths import HOME_VARIABLE
from components.errors import ConfigError


def home() -> Path:
    """The home of the run. Raises ConfigError when the pipeline was not started with one."""
    value = os.environ.get(HOME_VARIABLE)
    if not value:
        raise ConfigError(f"{HOME_VARIABLE} is not set: start the pipeline with 'image-finder pipeline run', or set it")
    return Path(value)


def cache_dir() -> Path:
    """Features of frozen trunks, states of unfinished trainings, vectors of embedded pictures; may be deleted."""
    return home() / "cache"


def scratch_dir() -> Path:
    """A new folder for a directory artefact until ZenML has stored it; removed when the process ends."""
    parent = cache_dir() / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
