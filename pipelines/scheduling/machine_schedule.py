"""Schedule: one cron expression in one time zone as files for systemd or cron on this machine."""

import os
import pwd
import sys
from collections.abc import Mapping, Sequence
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
from image_finder.pipelines.scheduling.retrain import PipelineInput, load
from image_finder.pipelines.scheduling.schedule_files import Job, crontab_entry, systemd_units
from image_finder.pipelines.stores import Home

Kind = Literal["systemd", "crontab", "stack"]
_SHOWN_RUNS = 5
_LOCALTIME = Path("/etc/localtime")


class Timing(NamedTuple):
    """When: an expression, and the zone whose clocks it means."""

    expression: CronExpression
    zone: ZoneInfo


class Retraining(NamedTuple):
    """What: the arguments of `pipeline retrain`."""

    training: PipelineInput
    indexing: PipelineInput | None
    if_changed: bool
    home: Home


class Schedule(Record):
    """A schedule that was made, or would be."""

    kind: Kind
    expression: str  # as it was written down, in portable form
    zone: str
    next_runs: tuple[datetime, ...]
    warnings: tuple[str, ...]
    files: dict[str, str]  # text by path; empty for a stack
    install: tuple[str, ...]  # commands that put it in force
    environment_file: str = ""
    name: str = ""  # in the ZenML store; "" for files
    stack: str = ""


def require_runnable(what: Retraining) -> None:
    """Refuse what a run would refuse at once: a configuration or folder that is not there. Raises ConfigError, DataError."""
    load("training", what.training)
    if what.indexing is not None:
        load("indexing", what.indexing)


def plan_files(
    kind: Literal["systemd", "crontab"], what: Retraining, when: Timing, *, to: Path, now: datetime, max_hours: int = 24
) -> Schedule:
    """The files for this machine, not written yet. Raises ConfigError for what systemd or cron cannot do."""
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
        install = (f"(crontab -l 2>/dev/null; cat {_word(to / 'crontab')}) | crontab -",)
    return describe(kind, when, now=now).model_copy(
        update={
            "files": {str(to / name): text for name, text in files.items()},
            "install": install,
            "environment_file": str(environment),
        }
    )


def describe(kind: Kind, when: Timing, *, now: datetime) -> Schedule:
    """The next times of a schedule after `now` (aware), and what is odd about them, as the program would see it."""
    missing: MissingTime = "moved" if kind == "crontab" else "skipped"
    gap = "cron starts the run right after" if kind == "crontab" else "that run is left out"
    repeated = "the run may come twice" if kind == "stack" else "the run comes the first time"
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
    """Write the files and the environment file; one that is there is kept. Returns what a person should know.

    The environment file takes what runs need from `environment` (see environment_file.CARRIED), an MLflow address too: it
    may hold a password. Raises ConfigError, StorageError.
    """
    path = Path(schedule.environment_file)
    values = {name: environment[name] for name in environment_file.CARRIED if environment.get(name)}
    if mlflow_uri:
        values["MLFLOW_TRACKING_URI"] = mlflow_uri
    if path.exists():
        kept = environment_file.read(path)
        if mlflow_uri and kept.get("MLFLOW_TRACKING_URI") != mlflow_uri:
            raise ConfigError(
                f"{path} is there and holds another MLFLOW_TRACKING_URI than --mlflow-uri: edit or remove it"
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
    notes = [f"{path} holds {', '.join(values) or 'nothing yet'}"]
    if not settings.addresses:
        notes.append(f"nobody is alerted: set IMAGE_FINDER_ALERTS in {path}, then 'image-finder pipeline alert'")
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
    """A configuration that comes with the package by its name, a file by its absolute path."""
    return str(Path(config).resolve()) if Path(config).suffix in run_config.FILE_ENDINGS else config


def _program() -> tuple[str, ...]:
    """The command itself, by absolute path: neither systemd nor cron know the environment it is installed in."""
    script = Path(sys.executable).with_name("image-finder")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "image_finder")


def _systemd_install(to: Path, files: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    units = " ".join(_word(to / name) for name in files)
    timer = next(name for name in files if name.endswith(".timer"))
    return (
        f"sudo cp {units} /etc/systemd/system/",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {timer}",
        f"systemctl list-timers {timer}",
    )


def _word(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _require_machine_zone(zone: ZoneInfo) -> None:
    """Refuse a zone that is not the machine's: Debian's cron takes it from /etc/localtime and knows no other."""
    if (here := _zone_file(zone)) is None or not _LOCALTIME.is_file() or here.read_bytes() != _LOCALTIME.read_bytes():
        try:
            name = str(_LOCALTIME.resolve()).partition("zoneinfo/")[2] or "not known"
        except OSError:
            name = "not known"
        raise ConfigError(
            f"cron runs in this machine's time zone, which is {name}, not {zone.key} (Debian's cron ignores CRON_TZ): "
            "use --on systemd, or --zone with the machine's"
        )


def _zone_file(zone: ZoneInfo) -> Path | None:
    return next((path for folder in TZPATH if (path := Path(folder, zone.key)).is_file()), None)
