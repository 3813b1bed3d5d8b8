"""Commands `image-finder pipeline retrain`, `schedule` and `alert`: unattended runs, what starts them and who hears of them."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from image_finder.components.errors import BusyError, ConfigError
from image_finder.pipelines.commands.options import home_option, json_option, mlflow_option, verbose_option
from image_finder.pipelines.scheduling.supervision import TERMINATED, Terminated, supervise

if TYPE_CHECKING:
    from image_finder.pipelines.scheduling.machine_schedule import Schedule
    from image_finder.pipelines.scheduling.retrain import RetrainOutcome

BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later
# Checked when the command runs, so that a missing folder raises an alert too.
_Folder = click.Path(file_okay=False, path_type=Path)

_training_option = click.option("--training", metavar="NAME|FILE", help="Configuration of the training.")
_data_option = click.option("--data", type=_Folder, envvar="IMAGE_FINDER_DATA", help="Folder of captioned images.")
_indexing_option = click.option("--indexing", metavar="NAME|FILE", help="Configuration of the indexing.")
_gallery_option = click.option("--gallery", type=_Folder, help="Folder of the images to index.")
_environment_option = click.option(
    "--environment",
    type=click.Path(dir_okay=False, path_type=Path),
    help='File of NAME="value" lines (mode 0600) with environment variables; used by cron.',
)


class _Busy(click.ClickException):
    exit_code = BUSY


@click.command(
    epilog="\b\nExample:\n"
    "  image-finder pipeline retrain --training flickr8k --data flickr8k --if-changed --home /srv/finder\n\n"
    "Exit code 0: done, or nothing to do. 1: failed; champion and index are unchanged. 75: another run is in progress."
)
@_training_option
@_data_option
@_indexing_option
@_gallery_option
@click.option("--if-changed", is_flag=True, help="Only if data, code, configuration or packages changed.")
@_environment_option
@json_option
@home_option
@mlflow_option
@verbose_option
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
    """Train, compare with the champion, index and alert.

    Without --indexing, a new champion re-indexes the images of the last indexing run. Alerts go to the addresses in
    IMAGE_FINDER_ALERTS.
    """
    if training is None:
        raise click.UsageError("Missing option '--training'.")
    _load_environment(environment)
    ended = supervise()
    from image_finder.pipelines.scheduling.retrain import Retraining, report_killed, retrain_and_alert
    from image_finder.pipelines.stores import Home

    what = Retraining.of(training, data, indexing, gallery, if_changed=if_changed, home=Home.resolve(home))
    if ended is not None:
        if failure := ended.failure:
            report_killed(failure, what, mlflow_uri)
            click.echo(f"Error: {failure}", err=True)
        raise click.exceptions.Exit(ended.exit_code)
    try:
        outcome = retrain_and_alert(what, mlflow_uri)
    except BusyError as error:
        raise _Busy(str(error)) from error
    except Terminated as error:  # the parent process reports it
        raise click.exceptions.Exit(TERMINATED) from error
    _show_outcome(outcome, as_json=as_json)


def _load_environment(path: Path | None) -> None:
    """Set an environment file's variables in this process. Raises ConfigError, StorageError."""
    if path is not None:
        from image_finder.pipelines.scheduling import environment_file

        os.environ.update(environment_file.read(path))


def _show_outcome(outcome: "RetrainOutcome", *, as_json: bool) -> None:
    from image_finder.components.drift.report import verdict
    from image_finder.pipelines import report_text

    if as_json:
        click.echo(outcome.model_dump_json(indent=2))
        return
    if outcome.changes is not None:
        click.echo(outcome.changes.text)
    if outcome.report and outcome.parity and outcome.decision:
        click.echo(report_text.training_text(outcome.report, outcome.parity, outcome.decision, outcome.model_name))
    if outcome.drift is not None:
        click.echo(verdict(outcome.drift))
    if outcome.index is not None:
        click.echo(report_text.indexed_text(outcome.index))


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
@_training_option
@_data_option
@_indexing_option
@_gallery_option
@click.option("--always", is_flag=True, help="Train even if nothing changed.")
@click.option(
    "--max-hours", default=24, show_default=True, type=click.IntRange(1, 1000), help="systemd stops longer runs."
)
@click.option("--to", type=_Folder, help="Folder for the files.  [default: schedule in the home]")
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
    _show_schedule(made, notes, dry_run=dry_run, as_json=as_json)


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
        hint = (
            "nothing was written; without --dry-run, activate the schedule with:" if dry_run else "to activate it, run:"
        )
        click.echo(f"\n{hint}", err=True)
        for command in made.install:
            click.echo(f"  {command}", err=True)


_ALERTED_BY_RUN = {0, 1, BUSY, TERMINATED}  # exit codes of runs that sent their own alerts


@click.command(
    epilog="\b\nExample:\n  IMAGE_FINDER_ALERTS=jsons://hooks.example.org/finder image-finder pipeline alert"
)
@click.option("--exit-status", type=int, help="Exit status of a run; alerts if it was killed before its own alert.")
@click.option("--of-service", is_flag=True, help="As --exit-status, taken from the failed systemd service.")
@_environment_option
def alert(*, exit_status: int | None, of_service: bool, environment: Path | None) -> None:
    """Send a test alert, or report a run that was killed.

    The test goes to every address in IMAGE_FINDER_ALERTS. The exit code is 1 if an address could not be reached.
    """
    _load_environment(environment)
    from image_finder.pipelines.scheduling.alerts import Alert, AlertSettings, deliver, notify

    machine = socket.gethostname()
    status = _service_status() if of_service else exit_status
    if status is not None:
        if status not in _ALERTED_BY_RUN:
            notify(Alert(f"image-finder: retraining on {machine} was killed", f"exit status: {status}", "failure"))
        return
    settings = AlertSettings.of(os.environ)
    if not settings.addresses:
        raise ConfigError(
            "no alert addresses: set IMAGE_FINDER_ALERTS, for example to jsons://hooks.example.org/finder"
        )
    test = Alert(f"image-finder: test from {machine}", f"alerts are sent on: {settings.occasions}", "success")
    deliveries = deliver(test, settings.addresses, environment=os.environ)
    for each in deliveries:
        click.echo(f"{each.address}: {each.reason or 'delivered'}")
    if failed := sum(bool(each.reason) for each in deliveries):
        raise ConfigError(f"{failed} of {len(deliveries)} addresses could not be reached")


def _service_status() -> int | str:
    """Exit code of the failed systemd service, or what killed it. Needs systemd 251 or newer."""
    status = os.environ.get("MONITOR_EXIT_STATUS", "")
    if os.environ.get("MONITOR_SERVICE_RESULT") == "exit-code" and status.isdecimal():
        return int(status)
    return f"{os.environ.get('MONITOR_SERVICE_RESULT', 'an unknown result')} {status}".strip()
