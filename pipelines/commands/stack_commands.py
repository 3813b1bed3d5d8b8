"""Commands `image-finder stack ...`: where pipelines run and what keeps their results."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.text import aligned
from image_finder.pipelines.commands.options import home_option

if TYPE_CHECKING:
    from image_finder.pipelines.stacks.stacks import StackConfig, StackPlan


@click.group(epilog="\b\nExample:\n  image-finder stack apply team --dry-run")
def stack() -> None:
    """Choose where pipelines run.

    On this machine, with a team's servers, on Kubernetes or on Kubeflow.
    """


@stack.command(
    epilog="\b\nExamples:\n"
    "  image-finder stack apply local\n"
    "  image-finder stack apply team --set experiment_tracker.tracking_uri=http://mlflow.example.org:5000 \\\n"
    "      --set artifact_store.path=/srv/image-finder/zenml\n"
    "  image-finder stack apply kubernetes --dry-run"
)
@click.argument("name", metavar="local|team|kubernetes|kubeflow|FILE")
@click.option(
    "--set", "assignments", multiple=True, metavar="COMPONENT.KEY=VALUE", help="Set a component's setting (repeatable)."
)
@click.option("--dry-run", is_flag=True, help="Show what would change and what is missing; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@home_option
@click.option("--mlflow-uri", help="MLflow server or database of the stack `local`.  [default: SQLite in the home]")
def apply(
    name: str,
    *,
    assignments: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    home: Path | None,
    mlflow_uri: str | None,
) -> None:
    """Create or update a stack of infra/stacks and activate it.

    All stacks except `local` are stored by the ZenML server at ZENML_STORE_URL. Applying a stack again changes only
    what differs.
    """
    from image_finder.pipelines.stacks import stacks
    from image_finder.pipelines.stores import Home, store_url

    chosen = stacks.override(stacks.load(name), assignments)
    stores = Home.resolve(home)
    store = (store_url() or "a ZenML server") if chosen.server else str(stores.root)
    if dry_run:
        _print_missing(chosen)
        # Opening the home's store would create it; a server's store can be read without changing anything.
        client = stacks.open_store(chosen, stores, mlflow_uri=None) if chosen.server and store_url() else None
        _show(stacks.plan(chosen, client, store=store), as_json=as_json, done=False)
        return
    stacks.require_ready(chosen)
    client = stacks.open_store(chosen, stores, mlflow_uri=mlflow_uri)
    _show(stacks.apply(chosen, client, store=store), as_json=as_json, done=True)


def _print_missing(chosen: "StackConfig") -> None:
    from image_finder.pipelines.stacks import stacks

    for what, missing in (
        ("settings to --set", stacks.missing_settings(chosen)),
        ("packages to install", stacks.missing_packages(chosen)),
    ):
        if missing:
            click.echo(f"missing {what}: {'; '.join(missing)}", err=True)


def _show(plan: "StackPlan", *, as_json: bool, done: bool) -> None:
    if as_json:
        click.echo(plan.model_dump_json(indent=2))
        return
    rows = [
        [each.action, each.kind, each.name, each.flavor, " ".join(f"{k}={v}" for k, v in each.settings.items())]
        for each in plan.components
    ]
    click.echo(aligned([["", "component", "name", "flavour", "settings"], *rows]))
    would = {"create": "would be created", "update": "would be updated", "unchanged": "is up to date"}[plan.action]
    outcome = "now active" if done else f"{would}; nothing was changed"
    click.echo(f"stack {plan.name} in {plan.store}: {outcome}")
