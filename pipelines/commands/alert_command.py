"""Command `image-finder pipeline alert`: tests the alert addresses, or reports a run that was killed."""

import os
import socket
from pathlib import Path

import click

from image_finder.components.errors import ConfigError
from image_finder.pipelines.commands.retrain_command import BUSY, environment_option, load_environment
from image_finder.pipelines.scheduling.supervision import TERMINATED

_ALERTED_BY_RUN = {0, 1, BUSY, TERMINATED}  # exit codes of runs that sent their own alerts


@click.command(
    epilog="\b\nExample:\n  IMAGE_FINDER_ALERTS=jsons://hooks.example.org/finder image-finder pipeline alert"
)
@click.option("--exit-status", type=int, help="Exit status of the run; alerts only if the run could not.")
@click.option("--of-service", is_flag=True, help="As --exit-status, taken from the failed systemd service.")
@environment_option
def alert(*, exit_status: int | None, of_service: bool, environment: Path | None) -> None:
    """Send a test alert, or report a run that was killed.

    The test goes to every address in IMAGE_FINDER_ALERTS. The exit code is 1 if an address could not be reached.
    """
    load_environment(environment)
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
