"""Commands `image-finder stack ...`: where pipelines run and what keeps their results."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.text import aligned

if TYPE_CHECKING:
    from image_finder.pipelines.stacks.stacks import StackConfig, StackPlan


@click.group(epilog="\b\nExample:\n  image-finder stack apply team --dry-run")
def stack() -> None:
    """Choose where pipelines run: this machine, a team's servers, Kubernetes or Kubeflow."""


@stack.command(
    epilog="\b\nExamples:\n"
    "  image-finder stack apply local\n"
    "  image-finder stack apply team --set experiment_tracker.tracking_uri=http://mlflow.example.org:5000 \\\n"
    "      --set artifact_store.path=/srv/image-finder/zenml\n"
    "  image-finder stack apply kubernetes --dry-run"
)
@click.argument("name", metavar="local|team|kubernetes|kubeflow|FILE")
@click.option(
    "--set", "assignments", multiple=True, metavar="COMPONENT.KEY=VALUE", help="Set one setting; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and what is missing; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="IMAGE_FINDER_HOME",
    help="Folder of all stores and caches.  [default: the user's data folder]",
)
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
    """Make the stack NAME of infra/stacks, or bring it up to date, and use it from now on.

    All but `local` are kept by the ZenML server at ZENML_STORE_URL. Applied again, it changes what differs only.
    """
    with shown_to_user():
        from image_finder.pipelines.stacks import stacks
        from image_finder.pipelines.stores import Home

        chosen = stacks.override(stacks.load(name), assignments)
        place = Home.resolve(home)
        store = (stacks.store_url() or "a ZenML server") if chosen.server else str(place.root)
        if dry_run:
            _say_missing(chosen)
            # A store of the home is made by looking at it; a server is only asked.
            client = stacks.open_store(chosen, place, mlflow_uri=None) if chosen.server and stacks.store_url() else None
            _show(stacks.plan(chosen, client, store=store), as_json=as_json, done=False)
            return
        stacks.require_ready(chosen)
        client = stacks.open_store(chosen, place, mlflow_uri=mlflow_uri)
        _show(stacks.apply(chosen, client, store=store), as_json=as_json, done=True)


def _say_missing(chosen: "StackConfig") -> None:
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
        [
            change.action,
            change.kind,
            change.name,
            change.flavor,
            " ".join(f"{k}={v}" for k, v in change.settings.items()),
        ]
        for change in plan.components
    ]
    click.echo(aligned([["", "component", "name", "flavour", "settings"], *rows]))
    would = {"create": "would be made", "update": "would be changed", "unchanged": "is as it should be"}[plan.action]
    outcome = "active now" if done else f"{would}; nothing was changed"
    click.echo(f"stack {plan.name} in {plan.store}: {outcome}")
