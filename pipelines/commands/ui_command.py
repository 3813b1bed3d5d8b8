"""Command `image-finder ui`: MLflow's UI or ZenML's dashboard, with the addresses of what an auditor looks for."""

import os
import subprocess
import sys
from pathlib import Path

import click

from image_finder.components.text import aligned
from image_finder.pipelines.commands.options import home_option, mlflow_option


@click.command(epilog="\b\nExamples:\n  image-finder ui --port 5000\n  image-finder ui --zenml")
@click.option("--zenml", is_flag=True, help="Open ZenML's dashboard instead, on a copy of its store.")
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
def ui(port: int, host: str, *, zenml: bool, opening: bool | None, home: Path | None, mlflow_uri: str | None) -> None:
    """Open the MLflow UI: runs, reports, registered models.

    Prints the addresses of the runs and of the champions. With --zenml, the dashboard shows the steps of each run, the
    artefacts between them and their reports, until now; it changes nothing and is served on this machine alone.
    """
    if zenml:
        if host != "127.0.0.1":
            raise click.UsageError("--zenml is served on 127.0.0.1 alone, because the dashboard has no login")
        _open_dashboard(home, port, opening=opening)
        return
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
    if "runs" in pages:
        _open_later(server, pages["runs"], opening=opening)
    if is_remote:
        return
    click.echo(f"MLflow UI on {server}; press Ctrl-C to stop", err=True)
    # jobs evaluate language models, in eight more processes
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    options = ["--backend-store-uri", uri, "--host", host, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options])  # noqa: S606 - no shell, fixed program


def _open_dashboard(home: Path | None, port: int, *, opening: bool | None) -> None:
    from image_finder.pipelines import zenml_dashboard
    from image_finder.pipelines.stores import Home, existing_registry, store_url

    if (remote := store_url()) is not None:
        click.echo(f"ZenML dashboard on {remote}", err=True)
        return
    stores = Home.resolve(home)
    existing_registry(stores)  # adopts a moved home
    page = zenml_dashboard.runs_page(port)
    click.echo(f"ZenML dashboard on {page}; press Ctrl-C to stop", err=True)
    _open_later(f"http://{zenml_dashboard.HOST}:{port}", page, opening=opening)
    zenml_dashboard.serve(stores, port)


def _open_later(server: str, page: str, *, opening: bool | None) -> None:
    """Open a page in a browser, in another process, once the server answers."""
    from image_finder.pipelines import mlflow_pages

    if sys.stdout.isatty() and mlflow_pages.has_browser() if opening is None else opening:
        words = [sys.executable, "-m", mlflow_pages.__name__, server, page]
        subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - this program
