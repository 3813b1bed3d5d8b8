"""Command `image-finder pipeline schedule`: retraining by systemd, cron or a ZenML stack."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from image_finder.pipelines.commands.options import home_option, json_option, mlflow_option
from image_finder.pipelines.commands.retrain_command import (
    Folder,
    data_option,
    gallery_option,
    indexing_option,
    training_option,
)

if TYPE_CHECKING:
    from image_finder.pipelines.scheduling.machine_schedule import Schedule


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder pipeline schedule --cron '30 3 * * 1' --zone Europe/Zurich --training flickr8k --data flickr8k\n"
    "  image-finder pipeline schedule --on crontab --cron @daily --zone UTC --training local --data coco --dry-run\n"
    "  image-finder pipeline schedule --on stack --cron '0 2 1 * *' --zone UTC --training cluster"
)
@click.option("--cron", required=True, metavar="EXPRESSION", help="Five fields: minute hour day month weekday.")
@click.option("--zone", required=True, metavar="ZONE", help="Time zone of the expression, e.g. Europe/Zurich.")
@click.option(
    "--on",
    "kind",
    type=click.Choice(["systemd", "crontab", "stack"]),
    default="systemd",
    show_default=True,
    help="What starts the runs: systemd or cron on this machine, or the active ZenML stack's orchestrator.",
)
@training_option
@data_option
@indexing_option
@gallery_option
@click.option("--always", is_flag=True, help="Train even if nothing changed.")
@click.option(
    "--max-hours", default=24, show_default=True, type=click.IntRange(1, 1000), help="systemd stops longer runs."
)
@click.option("--to", type=Folder, help="Folder for the files.  [default: schedule in the home]")
@click.option("--name", default=None, help="Name of a stack's schedule.  [default: image-finder and the pipeline]")
@click.option("--replace", is_flag=True, help="Replace a stack's schedule of the same name.")
@click.option("--cluster-zone", default="UTC", show_default=True, help="Time zone of Kubeflow's schedule controller.")
@click.option("--dry-run", is_flag=True, help="Show the next runs and the files; write nothing.")
@json_option
@home_option
@mlflow_option
def schedule(
    cron: str,
    zone: str,
    *,
    kind: Literal["systemd", "crontab", "stack"],
    training: str | None,
    data: Path | None,
    indexing: str | None,
    gallery: Path | None,
    always: bool,
    max_hours: int,
    to: Path | None,
    name: str | None,
    replace: bool,
    cluster_zone: str,
    dry_run: bool,
    as_json: bool,
    home: Path | None,
    mlflow_uri: str | None,
) -> None:
    """Write a retraining schedule and show its next runs.

    systemd makes up for a missed run and never runs two at once. cron does neither; a second run ends with exit code 75.
    A stack runs the training pipeline itself; schedule its indexing separately (--indexing without --training). Secrets
    are written to the file `environment`, which only its owner can read, never to a systemd unit or crontab.
    """
    from image_finder.pipelines.scheduling import machine_schedule
    from image_finder.pipelines.scheduling.cron_expression import CronExpression, parse_zone
    from image_finder.pipelines.scheduling.machine_schedule import Timing
    from image_finder.pipelines.scheduling.retrain import PipelineInput, Retraining
    from image_finder.pipelines.stores import Home

    stores = Home.resolve(home)
    when = Timing(CronExpression.parse(cron), parse_zone(zone))
    now = datetime.now(UTC)
    notes: list[str] = []
    if kind == "stack":
        from image_finder.pipelines.scheduling.stack_schedule import StackSchedule, create

        if (training is None) == (indexing is None):
            raise click.UsageError("--on stack schedules one pipeline: give either --training or --indexing")
        pipeline: Literal["training", "indexing"] = "training" if training else "indexing"
        given = PipelineInput.of(training, data) if training else PipelineInput.of(indexing or "", gallery)
        name = name or f"image-finder {pipeline}"
        plan = StackSchedule(pipeline, given, when, name, parse_zone(cluster_zone), replace=replace)
        made = (
            machine_schedule.describe("stack", when, now=now) if dry_run else create(plan, stores, mlflow_uri, now=now)
        )
    else:
        if training is None:
            raise click.UsageError("Missing option '--training'.")
        what = Retraining.of(training, data, indexing, gallery, if_changed=not always, home=stores)
        what.require_runnable()
        folder = (to or stores.root / "schedule").resolve()
        made = machine_schedule.plan_files(kind, what, when, to=folder, now=now, max_hours=max_hours)
        if not dry_run:
            notes = machine_schedule.write(made, stores, environment=os.environ, mlflow_uri=mlflow_uri)
    _show(made, notes, dry_run=dry_run, as_json=as_json)


def _show(made: "Schedule", notes: list[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(made.model_dump_json(indent=2))
    else:
        click.echo(f"'{made.expression}' in {made.zone} runs next")
        for each in made.next_runs:
            click.echo(f"  {each:%a %Y-%m-%d %H:%M %Z} ({each.astimezone(UTC):%H:%M} UTC)")
        for path, text in made.files.items():
            click.echo(f"\n{path}\n{text}", nl=False)
        if made.name and not dry_run:
            click.echo(f"\nschedule '{made.name}' on ZenML stack '{made.stack}'")
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    for note in notes:
        click.echo(note, err=True)
    if made.install:
        hint = (
            "nothing was written; without --dry-run, activate the schedule with:" if dry_run else "to activate it, run:"
        )
        click.echo(f"\n{hint}", err=True)
        for command in made.install:
            click.echo(f"  {command}", err=True)
