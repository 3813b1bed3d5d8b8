"""Command `image-finder ui`: MLflow's UI, with the addresses of what an auditor looks for."""

import os
import subprocess
import sys
from pathlib import Path

import click

from image_finder.components.text import aligned
from image_finder.pipelines.commands.options import home_option, mlflow_option


@click.command(epilog="\b\nExample:\n  image-finder ui --port 5000")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--open/--no-open",
    "opening",
    default=None,
    help="Whether to open the runs in a browser.  [default: on a terminal]",
)
@home_option
@mlflow_option
def ui(port: int, host: str, *, opening: bool | None, home: Path | None, mlflow_uri: str | None) -> None:
    """Open the MLflow UI: runs, reports, registered models.

    Prints the addresses of the runs and of the champions.
    """
    from image_finder.components.errors import ConfigError
    from image_finder.model_registry.registry import Registry
    from image_finder.pipelines import mlflow_pages
    from image_finder.pipelines.stores import EXPERIMENT_NAME, Home, existing_registry

    stores = Home.resolve(home)
    uri = existing_registry(stores, mlflow_uri)
    is_remote = uri.startswith(("http://", "https://"))
    if uri == stores.mlflow_uri and not stores.mlflow_db.is_file():
        raise ConfigError(f"no runs in {stores.root} yet: run 'image-finder demo' first")
    server = uri.rstrip("/") if is_remote else f"http://{host}:{port}"
    pages = mlflow_pages.mlflow_pages(Registry.existing(uri), server, EXPERIMENT_NAME)
    rows = [*pages.items(), ("ledger", "image-finder models history")]
    click.echo(aligned([(name, where) for name, where in rows]), err=True)
    opens = sys.stdout.isatty() and mlflow_pages.has_browser() if opening is None else opening
    if "runs" in pages and opens:
        words = [sys.executable, "-m", mlflow_pages.__name__, server, pages["runs"]]
        subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - this program
    if is_remote:
        return
    click.echo(f"MLflow UI on {server}; press Ctrl-C to stop", err=True)
    # jobs evaluate language models, in eight more processes
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    options = ["--backend-store-uri", uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options])  # noqa: S606 - no shell, fixed program
