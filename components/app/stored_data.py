"""Stored data: the paths at which this account keeps what commands and pipelines write."""

from pathlib import Path

from image_finder.components.home import home_root

CONTENT = {
    "library": "library: catalogue, index, thumbnails, and the model that it was indexed with",
    "bundles": "models: the starter model and promoted ones",
    "cache": "cached outputs of trunks; may be deleted at any time",
    "data": "data set of the demo",
    "demo": "home of the demo: its library, models and runs",
    "index": "index of an earlier version",
    "logs": "logs of scheduled runs",
    "mlartifacts": "figures, reports and registered models of MLflow",
    "mlflow.db": "runs and registered models of MLflow",
    "schedule": "schedules and their environment file",
    "zenml": "configuration, runs and artefacts of ZenML",
}


def stored_data(*others: Path | None) -> dict[Path, str]:
    """Path -> what it holds: the home, each entry in it, and other paths in use, as far as they exist."""
    home = home_root()
    entries = sorted(home.iterdir()) if home.is_dir() else []
    stored = {home: "home (IMAGE_FINDER_HOME): everything below" if entries else "home (IMAGE_FINDER_HOME): empty"}
    stored |= {path: CONTENT.get(path.name, "part of the home") for path in entries}
    for path in others:
        if path is not None and path.exists() and not path.is_relative_to(home):
            stored[path] = "library outside the home"
    return stored
