"""Commands `image-finder demo`, `pipeline` and `ui`: what a person types, and what is printed."""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from image_finder.components.search.hits_table import hits_table
from image_finder.components.text import shown_path, visible
from image_finder.pipelines.commands import schedule_commands
from image_finder.pipelines.commands.options import home_option, mlflow_option
from image_finder.pipelines.run_config import PipelineName

_EXAMPLE_SEARCHES = ("a fox in the forest", "a penguin on the snow", "two slices of pizza")


@click.command(epilog="\b\nExample:\n  image-finder demo --home /tmp/finder")
@home_option
@mlflow_option
def demo(home: Path | None, mlflow_uri: str | None) -> None:
    """Train, index and search the embedded demo scenes; about five minutes on two cores."""
    from image_finder.components.search.engine import SearchEngine
    from image_finder.pipelines import report_text, run_config, runs
    from image_finder.pipelines.stores import Home

    place = Home.resolve(home)
    started = time.monotonic()
    _say(f"everything is kept in {place.root}")
    outcome = runs.run_training(run_config.load("training", "demo"), place, mlflow_uri)
    manifest = runs.run_indexing(run_config.load("indexing", "demo"), place, mlflow_uri)
    click.echo(report_text.retrieval_table(outcome.report))
    click.echo(report_text.parity_text(outcome.parity))
    click.echo(report_text.decision_text(outcome.decision, outcome.model_name))
    engine = SearchEngine.open(place.index_dir)
    for text in _EXAMPLE_SEARCHES:
        click.echo(f'\n"{text}" among {manifest.count:,} images')
        click.echo(hits_table(engine.search(text, 3).hits))
    option = f" --home {home}" if home else ""
    click.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. Try next:\n"
        f'  image-finder search "a red apple in the snow" --index {shlex.quote(str(place.index_dir))}\n'
        f"  image-finder ui{option}\n"
        f"  image-finder pipeline run training --config local --data CAPTIONED_IMAGES{option}"
    )


@click.group(epilog="\b\nExample:\n  image-finder pipeline run training --config flickr8k --data flickr8k")
def pipeline() -> None:
    """Run the training and the indexing pipeline, once or on a schedule."""


pipeline.add_command(schedule_commands.retrain)
pipeline.add_command(schedule_commands.schedule)
pipeline.add_command(schedule_commands.alert)


@pipeline.command(
    epilog="\b\nExamples:\n"
    "  image-finder pipeline run training --config flickr8k --data flickr8k --set training.epochs=3\n"
    "  image-finder pipeline run indexing --config local --data IMAGES"
)
@click.argument("name", type=click.Choice(["training", "indexing"]))
@click.option(
    "--config", required=True, metavar="NAME|FILE", help="A configuration that comes with the package, or a YAML."
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="IMAGE_FINDER_DATA",
    help="Folder of the data set, or of the images to index.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Override one parameter; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
@home_option
@mlflow_option
def run(
    name: PipelineName,
    *,
    config: str,
    data: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
    home: Path | None,
    mlflow_uri: str | None,
) -> None:
    """Run the training or the indexing pipeline. What did not change since an earlier run is not done again.

    After a training the images that were indexed in this home are indexed again if there is a new champion.
    """
    from image_finder.pipelines import run_config
    from image_finder.pipelines.stores import Home

    values = run_config.override(run_config.load(name, config), assignments)
    values = run_config.with_data(name, values, data)
    place = Home.resolve(home)
    show = _train if name == "training" else _index
    show(values, place, mlflow_uri, as_json=as_json)


@click.command(epilog="\b\nExample:\n  image-finder ui --port 5000")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@home_option
@mlflow_option
def ui(port: int, host: str, home: Path | None, mlflow_uri: str | None) -> None:
    """Open the MLflow UI on the store in use: runs, curves, figures, reports, registered versions."""
    from image_finder.components.errors import ConfigError
    from image_finder.pipelines.stores import Home, existing_registry

    place = Home.resolve(home)
    uri = existing_registry(place, mlflow_uri)
    if uri.startswith(("http://", "https://")):
        click.echo(f"the store in use is a server with a page of its own: {uri}")
        return
    if uri == f"sqlite:///{place.mlflow_db}" and not place.mlflow_db.is_file():
        raise ConfigError(f"no runs in {place.root} yet: run 'image-finder demo' first")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        host,
        "--port",
        str(port),
    ]
    _say(f"MLflow UI on http://{host}:{port}, Ctrl-C ends it")
    os.execv(sys.executable, command)  # noqa: S606 - no shell, fixed program


def _train(values: dict[str, Any], place: Any, mlflow_uri: str | None, *, as_json: bool) -> None:  # noqa: ANN401
    from image_finder.pipelines import report_text, runs
    from image_finder.pipelines.scheduling import retrain

    outcome = runs.run_training(values, place, mlflow_uri)
    if not as_json:
        click.echo(report_text.retrieval_table(outcome.report))
        click.echo(report_text.parity_text(outcome.parity))
        click.echo(report_text.decision_text(outcome.decision, outcome.model_name))
    index = retrain.update_index(outcome.model_name, place, mlflow_uri)
    if as_json:
        records = {"report": outcome.report, "parity": outcome.parity, "decision": outcome.decision, "index": index}
        shown = {key: record.model_dump(mode="json") if record else None for key, record in records.items()}
        click.echo(json.dumps(shown, indent=2))
    elif index is not None:
        click.echo(report_text.indexed_text(index))


def _index(values: dict[str, Any], place: Any, mlflow_uri: str | None, *, as_json: bool) -> None:  # noqa: ANN401
    from image_finder.pipelines import runs

    manifest = runs.run_indexing(values, place, mlflow_uri)
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
        return
    check = manifest.self_check
    found = (
        f"; {check.found_themselves_first} of {check.n_images} sampled images find themselves first" if check else ""
    )
    click.echo(f"{manifest.count:,} images indexed, {len(manifest.failed)} failed{found}")
    for uri, reason in list(manifest.failed.items())[:20]:
        click.echo(f"  failed: {shown_path(uri)}: {visible(reason)}", err=True)
    click.echo(
        f'search them: image-finder search "a dog running on the beach" --index {shlex.quote(str(place.index_dir))}'
    )


def _say(text: str) -> None:
    click.echo(text, err=True)
