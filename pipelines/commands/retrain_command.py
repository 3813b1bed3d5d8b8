"""Command `image-finder pipeline retrain`: the unattended run that a schedule starts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.errors import BusyError
from image_finder.pipelines.commands.options import home_option, json_option, mlflow_option
from image_finder.pipelines.scheduling.supervision import TERMINATED, Terminated, supervise

if TYPE_CHECKING:
    from image_finder.pipelines.scheduling.retrain import RetrainOutcome

BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later
# Checked when the command runs, so that a missing folder raises an alert too.
Folder = click.Path(file_okay=False, path_type=Path)

training_option = click.option("--training", metavar="NAME|FILE", help="Configuration of the training.")
data_option = click.option("--data", type=Folder, envvar="IMAGE_FINDER_DATA", help="Folder of captioned images.")
indexing_option = click.option("--indexing", metavar="NAME|FILE", help="Configuration of the indexing.")
gallery_option = click.option("--gallery", type=Folder, help="Folder of the images to index.")
environment_option = click.option(
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
@training_option
@data_option
@indexing_option
@gallery_option
@click.option("--if-changed", is_flag=True, help="Only if data, code, configuration or packages changed.")
@environment_option
@json_option
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
    """Train, compare with the champion, index and alert.

    Without --indexing, a new champion re-indexes the images of the last indexing run. Alerts go to the addresses in
    IMAGE_FINDER_ALERTS.
    """
    if training is None:
        raise click.UsageError("Missing option '--training'.")
    load_environment(environment)
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
    _show(outcome, as_json=as_json)


def load_environment(path: Path | None) -> None:
    """Set an environment file's variables in this process. Raises ConfigError, StorageError."""
    if path is not None:
        import os

        from image_finder.pipelines.scheduling import environment_file

        os.environ.update(environment_file.read(path))


def _show(outcome: "RetrainOutcome", *, as_json: bool) -> None:
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
