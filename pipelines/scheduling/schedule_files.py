"""Schedule files: text of systemd units and of a crontab entry, escaped for each; writes nothing itself."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from image_finder.components.errors import ConfigError

_LONGEST_CRON_LINE = 998  # bytes; Debian's cron truncates a command at 1,000
_PATTERN_CHARACTERS = set("*?[\\")


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
    """Lines for `crontab -e`; output is appended to `log`. Raises ConfigError.

    cron does not read environment files, so the commands do.
    """
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
