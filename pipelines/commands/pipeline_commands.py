"""Commands `image-finder demo` and `pipeline`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.commands.hits_table import hits_table, terminal_columns
from image_finder.components.home import home_root
from image_finder.components.text import elapsed, shown_path, visible
from image_finder.pipelines.commands.closing import Closing
from image_finder.pipelines.commands.options import home_option, json_option, mlflow_option, print_json, verbose_option
from image_finder.pipelines.commands.scheduling_commands import alert, retrain, schedule
from image_finder.pipelines.run_config import PipelineName

if TYPE_CHECKING:
    from image_finder.pipelines.run_config import Values
    from image_finder.pipelines.stores import Home

_EXAMPLE_SEARCHES = ("a fox in the forest", "a penguin on the snow", "two slices of pizza")
_SHOWN_FAILURES = 20


@click.command(epilog="\b\nExample:\n  image-finder demo --home /tmp/finder")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all stores and caches.  [default: demo in the home, apart from your own images]",
)
@mlflow_option
@verbose_option
def demo(home: Path | None, mlflow_uri: str | None) -> None:
    """Train, index and search generated demo scenes.

    It takes about three minutes on two cores and downloads nothing.
    """
    from image_finder.components.search.engine import SearchEngine
    from image_finder.pipelines import report_text, run_config, runs
    from image_finder.pipelines.stores import Home, require_demo_library

    stores = Home(home_root(home) if home else home_root() / "demo")
    require_demo_library(stores)
    started = time.monotonic()
    closing = Closing.of(stores, mlflow_uri)
    click.echo(f"everything is stored in {stores.root}", err=True)
    outcome = runs.run_training(run_config.load("training", "demo"), stores, mlflow_uri)
    manifest = runs.run_indexing(run_config.load("indexing", "demo"), stores, mlflow_uri)
    click.echo(report_text.training_text(outcome.report, outcome.parity, outcome.decision, outcome.model_name))
    click.echo(report_text.indexed_text(manifest))
    engine = SearchEngine.open(stores.index_dir)
    for text in _EXAMPLE_SEARCHES:
        click.echo(f'\n"{text}" among {manifest.count:,} images')
        click.echo(hits_table(engine.search(text, 3).hits, terminal_columns()))
    click.echo(f"\nDone in {elapsed(time.monotonic() - started)}")
    closing.show(
        closing.search("a red apple in the snow"),
        "index IMAGES",
        "pipeline run training --config local --data CAPTIONED_IMAGES",
    )


@click.group(epilog="\b\nExample:\n  image-finder pipeline run training --config flickr8k --data flickr8k")
def pipeline() -> None:
    """Train and index, once or on a schedule."""


for command in (retrain, schedule, alert):
    pipeline.add_command(command)


@pipeline.command(
    epilog="\b\nExamples:\n"
    "  image-finder pipeline run training --config flickr8k --data flickr8k --set training.epochs=3\n"
    "  image-finder pipeline run indexing --config local --data IMAGES"
)
@click.argument("name", type=click.Choice(["training", "indexing"]))
@click.option("--config", required=True, metavar="NAME|FILE", help="Name of a packaged configuration, or a YAML file.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="IMAGE_FINDER_DATA",
    help="Folder of the data set, or of the images to index.",
)
@click.option("--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Override a parameter (repeatable).")
@json_option
@home_option
@mlflow_option
@verbose_option
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
    """Run the training or the indexing pipeline.

    Steps whose inputs are unchanged are taken from earlier runs. If training yields a new champion, the images indexed
    in this home are indexed again.
    """
    from image_finder.pipelines import run_config
    from image_finder.pipelines.stores import Home

    values = run_config.override(run_config.load(name, config), assignments)
    values = run_config.with_data(name, values, data)
    show = _train if name == "training" else _index
    show(values, Home.resolve(home), mlflow_uri, as_json=as_json)


def _train(values: "Values", home: "Home", mlflow_uri: str | None, *, as_json: bool) -> None:
    from image_finder.components.index.generations import is_published_root
    from image_finder.pipelines import report_text, runs
    from image_finder.pipelines.scheduling import retrain

    closing = Closing.of(home, mlflow_uri)
    outcome = runs.run_training(values, home, mlflow_uri)
    decision = outcome.decision
    if not as_json:
        click.echo(report_text.training_text(outcome.report, outcome.parity, decision, outcome.model_name))
    index = retrain.update_index(outcome.model_name, home, mlflow_uri)
    if as_json:
        print_json({"report": outcome.report, "parity": outcome.parity, "decision": decision, "index": index})
        return
    if index is not None:
        click.echo(report_text.indexed_text(index))
    if is_published_root(home.index_dir):
        search = closing.search()
    else:
        search = f"pipeline run indexing --config local --data IMAGES{closing.at_home}"
    rejected = not decision.promoted and decision.challenger_version != decision.champion_version
    compare = [f"models compare champion {decision.challenger_version}{closing.at_home}"] if rejected else []
    closing.show(*compare, search)


def _index(values: "Values", home: "Home", mlflow_uri: str | None, *, as_json: bool) -> None:
    from image_finder.pipelines import report_text, runs

    closing = Closing.of(home, mlflow_uri)
    manifest = runs.run_indexing(values, home, mlflow_uri)
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
        return
    click.echo(report_text.indexed_text(manifest))
    for uri, reason in list(manifest.failed.items())[:_SHOWN_FAILURES]:
        click.echo(f"  failed: {shown_path(uri)}: {visible(reason)}", err=True)
    closing.show(closing.search(), closing.serve())
