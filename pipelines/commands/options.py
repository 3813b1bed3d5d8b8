"""Options that commands on pipelines share: where their stores are."""

from pathlib import Path

import click

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="IMAGE_FINDER_HOME",
    help="Folder of all stores and caches.  [default: the user's data folder]",
)
mlflow_option = click.option("--mlflow-uri", help="MLflow server or database.  [default: SQLite in the home]")
