"""Commands `image-finder pipeline retrain`, `schedule` and `alert`: retraining that nobody watches."""

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from image_finder.components.errors import BusyError, ConfigError
from image_finder.pipelines.commands.options import home_option, mlflow_option
from image_finder.pipelines.scheduling.supervision import TERMINATED, Ended, Terminated, supervise

if TYPE_CHECKING:
    from image_finder.pipelines.scheduling.machine_schedule import Schedule
    from image_finder.pipelines.scheduling.retrain import PipelineInput, RetrainOutcome

BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later
_TOLD = {0, 1, BUSY, TERMINATED}  # exit codes of runs that sent their alerts themselves
_Folder = click.Path(file_okay=False, path_type=Path)  # looked at when the command runs, so that its absence is alerted

_training_option = click.option("--training", metavar="NAME|FILE", help="Configuration of the training.")
_data_option = click.option("--data", type=_Folder, envvar="IMAGE_FINDER_DATA", help="Folder of the captioned images.")
_indexing_option = click.option("--indexing", metavar="NAME|FILE", help="Configuration of the indexing.")
_gallery_option = click.option("--gallery", type=_Folder, help="Folder of the images to index.")
_environment_option = click.option(
    "--environment",
    type=click.Path(dir_okay=False, path_type=Path),
    help='File of NAME="value" lines, mode 0600, to take variables from; for cron, systemd has EnvironmentFile.',
)


class _Busy(click.ClickException):
    exit_code = BUSY


@click.command(
    epilog="\b\nExample:\n"
    "  image-finder pipeline retrain --training flickr8k --data flickr8k --if-changed --home /srv/finder\n\n"
    "Exit code 0: done, or nothing to do. 1: failed; champion and index stay as they were. 75: another run is at it."
)
@_training_option
@_data_option
@_indexing_option
@_gallery_option
@click.option("--if-changed", is_flag=True, help="Only if data, code, configuration or packages changed.")
@_environment_option
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@home_option
@mlflow_option
def retrain(
    training: str | None,
    *,
    data: Path | None,
    indexing: str | None,
    gallery: Path | None,
    if_changed: bool,
    environment: Path | None,
    as_json: bool,
    home: Path | None,
    mlflow_uri: str | None,
) -> None:
    """Train, decide, index the new champion, report and alert; what a schedule starts.

    Without --indexing the images of the last indexing run are indexed again when there is a new champion. Alerts go to
    the addresses in IMAGE_FINDER_ALERTS.
    """
    if training is None:
        raise click.UsageError("Missing option '--training'.")
    _load_environment(environment)
    ended = supervise()
    from image_finder.pipelines.scheduling.retrain import report_killed, retrain_and_alert
    from image_finder.pipelines.stores import Home

    given, place = _input(training, data), Home.resolve(home)
    if ended is not None:
        if told := _unexpected(ended):
            report_killed(told, given, home=place, mlflow_uri=mlflow_uri)
            click.echo(f"Error: {told}", err=True)
            raise click.exceptions.Exit(TERMINATED if ended.asked or ended.code == TERMINATED else 1)
        raise click.exceptions.Exit(ended.code)
    try:
        outcome = retrain_and_alert(
            given,
            _input(indexing or "local", gallery) if indexing or gallery else None,
            if_changed=if_changed,
            home=place,
            mlflow_uri=mlflow_uri,
        )
    except BusyError as error:
        raise _Busy(str(error)) from error
    except Terminated as error:  # the parent tells of it
        raise click.exceptions.Exit(TERMINATED) from error
    _show_outcome(outcome, as_json=as_json)


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder pipeline schedule --cron '30 3 * * 1' --zone Europe/Zurich --training flickr8k --data flickr8k\n"
    "  image-finder pipeline schedule --on crontab --cron @daily --zone UTC --training local --data coco --dry-run\n"
    "  image-finder pipeline schedule --on stack --cron '0 2 1 * *' --zone UTC --training cluster"
)
@click.option("--cron", required=True, metavar="EXPRESSION", help="Five fields: minute hour day month weekday.")
@click.option("--zone", required=True, metavar="ZONE", help="Time zone that the expression means, e.g. Europe/Zurich.")
@click.option(
    "--on",
    "kind",
    type=click.Choice(["systemd", "crontab", "stack"]),
    default="systemd",
    show_default=True,
    help="What starts the runs: this machine's systemd or cron, or the orchestrator of the active ZenML stack.",
)
@_training_option
@_data_option
@_indexing_option
@_gallery_option
@click.option("--always", is_flag=True, help="Train also when nothing changed.")
@click.option(
    "--max-hours", default=24, show_default=True, type=click.IntRange(1, 1000), help="systemd ends longer runs."
)
@click.option("--to", type=_Folder, help="Folder for the files.  [default: schedule in the home]")
@click.option("--name", default=None, help="Name of a stack's schedule.  [default: image-finder and the pipeline]")
@click.option("--replace", is_flag=True, help="Replace a stack's schedule of that name.")
@click.option("--cluster-zone", default="UTC", show_default=True, help="Zone of Kubeflow's schedule controller.")
@click.option("--dry-run", is_flag=True, help="Show the next runs and files; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the schedule as JSON.")
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
    """Write what retrains on a schedule, and show when it will run.

    systemd makes up for a run that was missed and never starts two at once; cron does neither, the second run then ends
    with exit code 75. A stack runs the training pipeline itself; its indexing is a schedule of its own (--indexing
    without --training). Secrets go to the file `environment`, which only its owner can read, never into a unit.
    """
    from image_finder.pipelines.scheduling.cron_expression import CronExpression, parse_zone
    from image_finder.pipelines.scheduling.machine_schedule import (
        Retraining,
        Timing,
        describe,
        plan_files,
        require_runnable,
        write,
    )
    from image_finder.pipelines.stores import Home

    place = Home.resolve(home)
    when = Timing(CronExpression.parse(cron), parse_zone(zone))
    now = datetime.now(UTC)
    notes: list[str] = []
    if kind == "stack":
        from image_finder.pipelines.scheduling.stack_schedule import StackSchedule, create

        if (training is None) == (indexing is None):
            raise click.UsageError("--on stack schedules one pipeline: give either --training or --indexing")
        pipeline: Literal["training", "indexing"] = "training" if training else "indexing"
        given = _input(training, data) if training else _input(indexing or "", gallery)
        plan = StackSchedule(
            pipeline, given, when, name or f"image-finder {pipeline}", parse_zone(cluster_zone), replace=replace
        )
        made = describe("stack", when, now=now) if dry_run else create(plan, place, mlflow_uri, now=now)
    else:
        if training is None:
            raise click.UsageError("Missing option '--training'.")
        what = Retraining(
            _input(training, data),
            _input(indexing or "local", gallery) if indexing or gallery else None,
            if_changed=not always,
            home=place,
        )
        require_runnable(what)
        folder = (to or place.root / "schedule").resolve()
        made = plan_files(kind, what, when, to=folder, now=now, max_hours=max_hours)
        if not dry_run:
            notes = write(made, place, environment=os.environ, mlflow_uri=mlflow_uri)
    _show_schedule(made, notes, dry_run=dry_run, as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  IMAGE_FINDER_ALERTS=jsons://hooks.example.org/finder image-finder pipeline alert"
)
@click.option("--exit-status", type=int, help="Alert only if a run that ended so could not do it itself.")
@click.option("--of-service", is_flag=True, help="The same, of the systemd service that failed.")
@_environment_option
def alert(*, exit_status: int | None, of_service: bool, environment: Path | None) -> None:
    """Send a test to every address in IMAGE_FINDER_ALERTS, or tell of a run that was killed.

    The exit code is 1 when an address could not be reached.
    """
    _load_environment(environment)
    from image_finder.pipelines.scheduling.alerts import Alert, AlertSettings, deliver, machine, notify

    how = _service_end() if of_service else exit_status
    if how is not None:
        if how not in _TOLD:
            notify(Alert(f"image-finder: retraining on {machine()} was killed", f"it ended with {how}", "failure"))
        return
    settings = AlertSettings.of(os.environ)
    if not settings.addresses:
        raise ConfigError(
            "nobody to alert: IMAGE_FINDER_ALERTS holds no address, e.g. jsons://hooks.example.org/finder"
        )
    test = Alert(f"image-finder: test from {machine()}", f"alerts are sent on: {settings.occasions}", "success")
    deliveries = deliver(test, settings.addresses, environment=os.environ)
    for each in deliveries:
        click.echo(f"{each.address}: {each.reason or 'delivered'}")
    if failed := sum(bool(each.reason) for each in deliveries):
        raise ConfigError(f"{failed} of {len(deliveries)} addresses could not be reached")


def _service_end() -> int | str:
    """How the systemd service ended that started this one: an exit code, or what killed it; not told before systemd 251."""
    status = os.environ.get("MONITOR_EXIT_STATUS", "")
    if os.environ.get("MONITOR_SERVICE_RESULT") == "exit-code" and status.isdecimal():
        return int(status)
    return f"{os.environ.get('MONITOR_SERVICE_RESULT', 'an unknown result')} {status}".strip()


def _input(config: str, folder: Path | None) -> "PipelineInput":
    from image_finder.pipelines.scheduling.retrain import PipelineInput

    return PipelineInput(config, folder.resolve() if folder else None)


def _load_environment(path: Path | None) -> None:
    if path is not None:
        from image_finder.pipelines.scheduling import environment_file

        os.environ.update(environment_file.read(path))


def _unexpected(ended: Ended) -> str:
    """What is to be told of a run that ended before it could tell of itself; empty when it could."""
    if ended.code == TERMINATED or (ended.asked and ended.code < 0):
        return "the system ended this run (SIGTERM): it was stopped, or took longer than the service may"
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        return f"this run was killed ({name}); the system does so when memory is short: its log may tell"
    return ""


def _show_outcome(outcome: "RetrainOutcome", *, as_json: bool) -> None:
    from image_finder.components.drift.report import verdict
    from image_finder.pipelines import report_text

    if as_json:
        click.echo(outcome.model_dump_json(indent=2))
        return
    if outcome.changes is not None:
        click.echo(outcome.changes.text)
    if outcome.report and outcome.parity and outcome.decision:
        click.echo(report_text.retrieval_table(outcome.report))
        click.echo(report_text.parity_text(outcome.parity))
        click.echo(report_text.decision_text(outcome.decision, outcome.model_name))
    if outcome.drift is not None:
        click.echo(verdict(outcome.drift))
    if outcome.index is not None:
        click.echo(report_text.indexed_text(outcome.index))


def _show_schedule(made: "Schedule", notes: list[str], *, dry_run: bool, as_json: bool) -> None:
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
        click.echo(
            "\nput it in force:" if not dry_run else "\nnothing was written; afterwards put it in force:", err=True
        )
        for command in made.install:
            click.echo(f"  {command}", err=True)
