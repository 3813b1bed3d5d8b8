"""Schedule files: the text of systemd units and of a crontab entry, escaped as each reads it; writes nothing itself."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from image_finder.components.errors import ConfigError

_LONGEST_CRON_LINE = 998  # bytes; Debian's cron cuts a command off at 1,000
_PATTERN_CHARACTERS = set("*?[\\")


class Job(NamedTuple):
    """What is run. Commands are the absolute path of a program and its arguments."""

    name: str  # of the units
    description: str
    command: tuple[str, ...]
    alert: tuple[str, ...]  # tells people of a run that could not do so itself
    environment_file: Path
    user: str
    max_hours: int


def systemd_units(job: Job, on_calendar: Sequence[str]) -> dict[str, str]:
    """Text by file name: service, timer, and the service that tells of a run that was killed.

    A timer starts no second run while one is going on, and makes up for one run that was missed (Persistent). What is in
    the environment file is in none of them. Raises ConfigError for paths that systemd cannot take.
    """
    return {
        f"{job.name}.service": _service(job),
        f"{job.name}.timer": _timer(job, on_calendar),
        f"{job.name}-died.service": _death_service(job),
    }


def crontab_entry(job: Job, expression: str, *, zone: str, log: Path) -> str:
    """Lines for `crontab -e`; what is printed goes to a file. Raises ConfigError for words that a crontab cannot hold.

    cron reads no environment file: the commands are told to.
    """
    environment = ("--environment", str(job.environment_file))
    run = _cron_words(["nice", "-n", "10", *job.command, *environment])
    alert = _cron_words([*job.alert, *environment, "--exit-status"])
    line = f"{expression} ({run} || {alert} $?) >> {_cron_words([str(log)])} 2>&1"
    if len(line.encode()) > _LONGEST_CRON_LINE:
        raise ConfigError(
            f"the crontab line has {len(line.encode())} bytes, cron reads {_LONGEST_CRON_LINE}: use systemd"
        )
    begin = f"# {job.name}: begin. Times are {zone}, this machine's zone; cron makes up for no run that was missed."
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
Description=Alert if it was killed: {_line(job.description)}

[Service]
Type=oneshot
User={_user(job.user)}
EnvironmentFile={_environment_path(job.environment_file)}
ExecStart={_systemd_command([*job.alert, "--of-service"])}
"""


def _systemd_command(words: Sequence[str]) -> str:
    """ExecStart= of these words (systemd.service(5)). A colon before the program keeps $ from being expanded."""
    if set(words[0]) & set("\"'\\"):
        raise ConfigError(f"systemd starts no program whose path holds quotes or backslashes: {words[0]}")
    return ":" + " ".join(_systemd_word(word) for word in words)


def _systemd_word(word: str) -> str:
    """A word between double quotes: backslashes and quotes escaped as in C, a percent sign doubled (systemd.unit(5))."""
    escaped = _line(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _environment_path(path: Path) -> str:
    """EnvironmentFile= takes the rest of the line, without quotes, as a pattern of file names."""
    text = str(path)
    if set(text) & _PATTERN_CHARACTERS or text != text.strip():
        raise ConfigError(
            f"systemd reads *, ?, [, backslashes and outer blanks in {text!r} in its own way: choose another path"
        )
    return _line(text)


def _line(text: str) -> str:
    """A text that stands in one line, percent signs doubled."""
    if any(ord(character) < ord(" ") for character in text):
        raise ConfigError(f"{text!r} holds a line break or another control character: a unit cannot hold it")
    return text.replace("%", "%%")


def _user(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"systemd takes no user named {name!r}")
    return name


def _cron_words(words: Sequence[str]) -> str:
    """Words for the shell in a crontab, where cron reads % as a line break unless a backslash stands before it."""
    for word in words:
        # Some crons take a backslash away before others than %, some do not.
        if "\\" in word or any(ord(character) < ord(" ") for character in word):
            raise ConfigError(f"a crontab cannot hold {word!r} (backslash or control character): use systemd")
    return " ".join(shlex.quote(word) for word in words).replace("%", "\\%")
