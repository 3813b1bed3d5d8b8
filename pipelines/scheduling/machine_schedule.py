"""Machine schedule: a cron expression in a time zone as files for systemd or cron on this machine."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import TZPATH, ZoneInfo

from image_finder.components.errors import ConfigError
from image_finder.components.records.base import Record
from image_finder.components.storage import make_private, write_errors, write_text_atomically
from image_finder.components.system import posix_only
from image_finder.pipelines import run_config
from image_finder.pipelines.scheduling import environment_file
from image_finder.pipelines.scheduling.alerts import AlertSettings
from image_finder.pipelines.scheduling.cron_expression import CronExpression, MissingTime
from image_finder.pipelines.scheduling.retrain import Retraining
from image_finder.pipelines.stores import Home

Kind = Literal["systemd", "crontab", "stack"]
_SHOWN_RUNS = 5
_LOCALTIME = Path("/etc/localtime")
_LONGEST_CRON_LINE = 998  # bytes; Debian's cron truncates a command at 1,000
_PATTERN_CHARACTERS = set("*?[\\")


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
    """Compose the files without writing them. Raises ConfigError, also on Windows."""
    if sys.platform == "win32":
        raise posix_only("schedules of this machine")
    import pwd  # not on Windows

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


# Text of systemd units and of a crontab entry, escaped for each


class Job(NamedTuple):
    """What to run. A command is the absolute path of a program and its arguments."""

    name: str  # name of the units
    description: str
    command: tuple[str, ...]
    alert: tuple[str, ...]  # alerts if the run could not
    environment_file: Path
    user: str
    max_hours: int


def systemd_units(job: Job, on_calendar: Sequence[str]) -> dict[str, str]:
    """Text by file name: service, timer, and the service that alerts if the run was killed.

    The timer never starts a second run beside another, and makes up for one missed run (Persistent). The units contain no
    secrets; those are in the environment file. Raises ConfigError for paths that systemd cannot handle.
    """
    return {
        f"{job.name}.service": _service(job),
        f"{job.name}.timer": _timer(job, on_calendar),
        f"{job.name}-died.service": _death_service(job),
    }


def crontab_entry(job: Job, expression: str, *, zone: str, log: Path) -> str:
    """Lines for `crontab -e`; the commands read the environment file, cron does not. Raises ConfigError."""
    environment = ("--environment", str(job.environment_file))
    run = _cron_words(["nice", "-n", "10", *job.command, *environment])
    alert = _cron_words([*job.alert, *environment, "--exit-status"])
    line = f"{expression} ({run} || {alert} $?) >> {_cron_words([str(log)])} 2>&1"
    if len(line.encode()) > _LONGEST_CRON_LINE:
        raise ConfigError(
            f"the crontab line has {len(line.encode())} bytes, cron reads at most {_LONGEST_CRON_LINE}: use systemd"
        )
    begin = f"# {job.name}: begin. Times are {zone}, this machine's zone; cron does not make up for missed runs."
    return f"{begin}\n{line}\n# {job.name}: end\n"


def _service(job: Job) -> str:
    return f"""\
[Unit]
Description={_line(job.description)}
Wants=network-online.target
After=network-online.target
OnFailure={job.name}-died.service

[Service]
Type=oneshot
User={_user(job.user)}
EnvironmentFile={_environment_path(job.environment_file)}
ExecStart={_systemd_command(job.command)}
TimeoutStartSec={job.max_hours}h
KillMode=mixed
Nice=10
NoNewPrivileges=yes
"""


def _timer(job: Job, on_calendar: Sequence[str]) -> str:
    times = "\n".join(f"OnCalendar={each}" for each in on_calendar)
    return f"""\
[Unit]
Description=Schedule of: {_line(job.description)}

[Timer]
{times}
Persistent=true

[Install]
WantedBy=timers.target
"""


def _death_service(job: Job) -> str:
    return f"""\
[Unit]
Description=Alert after a killed run: {_line(job.description)}

[Service]
Type=oneshot
User={_user(job.user)}
EnvironmentFile={_environment_path(job.environment_file)}
ExecStart={_systemd_command([*job.alert, "--of-service"])}
"""


def _systemd_command(words: Sequence[str]) -> str:
    """ExecStart= for these words; the leading colon prevents the expansion of $."""
    if set(words[0]) & set("\"'\\"):
        raise ConfigError(f"systemd cannot start a program whose path contains quotes or backslashes: {words[0]}")
    return ":" + " ".join(_systemd_word(word) for word in words)


def _systemd_word(word: str) -> str:
    """Quote a word: backslash and quote escaped as in C, percent sign doubled (systemd.unit(5))."""
    escaped = _line(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _environment_path(path: Path) -> str:
    """EnvironmentFile= reads the rest of the line, unquoted, as a glob pattern."""
    text = str(path)
    if set(text) & _PATTERN_CHARACTERS or text != text.strip():
        raise ConfigError(f"systemd interprets *, ?, [, backslashes and outer blanks in {text!r}: choose another path")
    return _line(text)


def _line(text: str) -> str:
    if any(ord(character) < ord(" ") for character in text):
        raise ConfigError(f"{text!r} contains a line break or another control character: a systemd unit cannot hold it")
    return text.replace("%", "%%")


def _user(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"systemd does not accept the user name {name!r}")
    return name


def _cron_words(words: Sequence[str]) -> str:
    """Words for the shell in a crontab, where % must be escaped: cron reads it as a line break."""
    for word in words:
        # crons differ in whether they remove a backslash before other characters than %.
        if "\\" in word or any(ord(character) < ord(" ") for character in word):
            raise ConfigError(f"a crontab cannot hold {word!r} (backslash or control character): use systemd")
    return " ".join(shlex.quote(word) for word in words).replace("%", "\\%")
