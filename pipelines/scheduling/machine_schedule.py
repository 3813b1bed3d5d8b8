"""Machine schedule: a cron expression in a time zone as files for systemd or cron on this machine."""

import os
import pwd
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import TZPATH, ZoneInfo

from image_finder.components.errors import ConfigError
from image_finder.components.records.base import Record
from image_finder.components.storage import make_private, write_errors, write_text_atomically
from image_finder.pipelines import run_config
from image_finder.pipelines.scheduling import environment_file
from image_finder.pipelines.scheduling.alerts import AlertSettings
from image_finder.pipelines.scheduling.cron_expression import CronExpression, MissingTime
from image_finder.pipelines.scheduling.retrain import Retraining
from image_finder.pipelines.scheduling.schedule_files import Job, crontab_entry, systemd_units
from image_finder.pipelines.stores import Home

Kind = Literal["systemd", "crontab", "stack"]
_SHOWN_RUNS = 5
_LOCALTIME = Path("/etc/localtime")


class Timing(NamedTuple):
    expression: CronExpression
    zone: ZoneInfo


class Schedule(Record):
    kind: Kind
    expression: str  # in portable form
    zone: str
    next_runs: tuple[datetime, ...]
    warnings: tuple[str, ...]
    files: dict[str, str]  # text by path; empty for a stack's schedule
    install: tuple[str, ...]  # commands that activate it
    environment_file: str = ""
    name: str = ""  # in the ZenML store; "" for files
    stack: str = ""


def plan_files(
    kind: Literal["systemd", "crontab"], what: Retraining, when: Timing, *, to: Path, now: datetime, max_hours: int
) -> Schedule:
    """Compose the files without writing them. Raises ConfigError."""
    environment = to / "environment"
    job = Job(
        name="image-finder-retrain",
        description=f"Retrain the image finder of {what.home.root}",
        command=(*_program(), "pipeline", "retrain", *_arguments(what)),
        alert=(*_program(), "pipeline", "alert"),
        environment_file=environment,
        user=pwd.getpwuid(os.getuid()).pw_name,
        max_hours=max_hours,
    )
    if kind == "systemd":
        files = systemd_units(job, when.expression.on_calendar(when.zone))
        install = _systemd_install(to, files)
    else:
        _require_machine_zone(when.zone)
        log = what.home.root / "logs" / "retrain.log"
        files = {"crontab": crontab_entry(job, when.expression.text, zone=when.zone.key, log=log)}
        install = (f"(crontab -l 2>/dev/null; cat {shlex.quote(str(to / 'crontab'))}) | crontab -",)
    return describe(kind, when, now=now).model_copy(
        update={
            "files": {str(to / name): text for name, text in files.items()},
            "install": install,
            "environment_file": str(environment),
        }
    )


def describe(kind: Kind, when: Timing, *, now: datetime) -> Schedule:
    """The next runs after `now` (aware), and warnings about clock changes."""
    missing: MissingTime = "moved" if kind == "crontab" else "skipped"
    gap = "cron starts the run right afterwards" if kind == "crontab" else "that run is skipped"
    repeated = "the run may start twice" if kind == "stack" else "the run starts at the first of them"
    warnings = [
        f"{change}; {gap if 'does not exist' in change else repeated}"
        for change in when.expression.clock_changes(when.zone, now)
    ]
    runs = when.expression.next_runs(when.zone, now, count=_SHOWN_RUNS, missing=missing)
    return Schedule(
        kind=kind,
        expression=when.expression.text,
        zone=when.zone.key,
        next_runs=tuple(runs),
        warnings=tuple(warnings),
        files={},
        install=(),
    )


def write(schedule: Schedule, home: Home, *, environment: Mapping[str, str], mlflow_uri: str | None) -> list[str]:
    """Write the files, and the environment file unless it exists. Returns notes for the user.

    The environment file gets the variables of environment_file.CARRIED from `environment`, and the MLflow address, which
    may contain a password. Raises ConfigError, StorageError.
    """
    path = Path(schedule.environment_file)
    values = {name: environment[name] for name in environment_file.CARRIED if environment.get(name)}
    if mlflow_uri:
        values["MLFLOW_TRACKING_URI"] = mlflow_uri
    if path.exists():
        kept = environment_file.read(path)
        if mlflow_uri and kept.get("MLFLOW_TRACKING_URI") != mlflow_uri:
            raise ConfigError(
                f"{path} exists and contains another MLFLOW_TRACKING_URI than --mlflow-uri: edit or remove it"
            )
        values = kept
    settings = AlertSettings.of(values)
    settings.require_known()
    if not path.exists():
        environment_file.write(path, values)
    with write_errors(home.root):
        make_private(home.root / "logs")
    for file, text in schedule.files.items():
        write_text_atomically(Path(file), text)
    notes = [f"{path} sets {', '.join(values) or 'no variables yet'}"]
    if not settings.addresses:
        notes.append(f"nobody is alerted: set IMAGE_FINDER_ALERTS in {path}, then run 'image-finder pipeline alert'")
    return notes


def _arguments(what: Retraining) -> list[str]:
    words = ["--training", _config_word(what.training.config)]
    if what.training.folder is not None:
        words += ["--data", str(what.training.folder.resolve())]
    if what.indexing is not None:
        words += ["--indexing", _config_word(what.indexing.config)]
        if what.indexing.folder is not None:
            words += ["--gallery", str(what.indexing.folder.resolve())]
    return [*words, *(["--if-changed"] if what.if_changed else []), "--home", str(what.home.root)]


def _config_word(config: str) -> str:
    """The name of a packaged configuration, or a file's absolute path."""
    return str(Path(config).resolve()) if Path(config).suffix in run_config.FILE_ENDINGS else config


def _program() -> tuple[str, ...]:
    """Absolute path of this program: systemd and cron do not know its environment."""
    script = Path(sys.executable).with_name("image-finder")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "image_finder")


def _systemd_install(to: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    units = " ".join(shlex.quote(str(to / name)) for name in files)
    timer = next(name for name in files if name.endswith(".timer"))
    return (
        f"sudo cp {units} /etc/systemd/system/",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {timer}",
        f"systemctl list-timers {timer}",
    )


def _require_machine_zone(zone: ZoneInfo) -> None:
    """Require the machine's zone: Debian's cron reads only /etc/localtime. Raises ConfigError."""
    if (here := _zone_file(zone)) is None or not _LOCALTIME.is_file() or here.read_bytes() != _LOCALTIME.read_bytes():
        try:
            name = str(_LOCALTIME.resolve()).partition("zoneinfo/")[2] or "unknown"
        except OSError:
            name = "unknown"
        raise ConfigError(
            f"cron runs in this machine's time zone, which is {name}, not {zone.key} (Debian's cron ignores CRON_TZ): "
            "use --on systemd, or give the machine's zone"
        )


def _zone_file(zone: ZoneInfo) -> Path | None:
    return next((path for folder in TZPATH if (path := Path(folder, zone.key)).is_file()), None)
