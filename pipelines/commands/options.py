"""Options that pipeline commands share, and the JSON they print."""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from pydantic import BaseModel

if TYPE_CHECKING:
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.pipelines.model_operations import RegisteredModel

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="IMAGE_FINDER_HOME",
    help="Folder of all stores and caches.  [default: the user's data folder]",
)
mlflow_option = click.option("--mlflow-uri", help="MLflow server or database.  [default: SQLite in the home]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
verbose_option = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=lambda _context, _option, given: (
        os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "INFO") if given else None
    ),
    help="Also print what ZenML and other libraries report.",
)
_model_option = click.option(
    "--model", metavar="NAME", help="Registered model.  [default: image-finder, or the only one]"
)


class ModelOptions(NamedTuple):
    home: Path | None
    mlflow_uri: str | None
    model: str | None

    def open(self) -> "RegisteredModel":
        """Open the registry. Raises ConfigError if there is none, or no such model."""
        from image_finder.pipelines.model_operations import open_model

        return open_model(*self)

    def bundle(self, reference: str, to: Path) -> "Bundle":
        """Open the bundle in a folder, the starter, or a copy in `to` of a registered version or alias.

        Raises BundleError, ConfigError, StorageError.
        """
        from image_finder.components.bundle.bundle import Bundle

        if Path(reference).is_dir():
            return Bundle.open(Path(reference).resolve())
        if reference == "starter":
            from image_finder.components.app.starter_bundle import starter_bundle

            return starter_bundle()
        registered = self.open()
        return registered.registry.download_bundle(registered.name, reference, to)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --json, --model, --mlflow-uri and --home; the last three are passed as `options`."""

    @wraps(command)
    def with_options(*, home: Path | None, mlflow_uri: str | None, model: str | None, **arguments: object) -> None:
        command(**arguments, options=ModelOptions(home, mlflow_uri, model))

    for option in (json_option, _model_option, mlflow_option, home_option):
        with_options = option(with_options)
    return with_options


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=_record_values))


def _record_values(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
