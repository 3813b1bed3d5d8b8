"""The wheel of this checkout, and commands as a user runs them outside of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.checkout import CHECKOUT

CONSTRAINTS = CHECKOUT / "infra" / "constraints.txt"
_OURS = ("PYTHON", "ZENML", "MLFLOW", "IMAGE_FINDER", "XDG")


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout, as setuptools leaves build/ and *.egg-info."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", "tests")
    shutil.copytree(CHECKOUT, source, ignore=ignored, symlinks=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def finished(*words: object, cwd: str | Path = "/", **variables: object) -> "subprocess.CompletedProcess[str]":
    """A command that has ended, run without variables of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment = {**kept, **{name: str(value) for name, value in variables.items()}}
    words_ = [*map(str, words)]
    return subprocess.run(words_, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(*words: object, cwd: str | Path = "/", **variables: Any) -> str:
    """Standard output of a command that must succeed."""
    done = finished(*words, cwd=cwd, **variables)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def refusal(*words: object, **variables: Any) -> str:
    """The one line on standard error of a command that must fail."""
    done = finished(*words, **variables)
    assert done.returncode == 1, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
