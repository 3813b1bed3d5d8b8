"""Environment file: secrets for a scheduled command, readable by its owner alone; one reading for systemd, sh and cron.

Lines are comments, NAME=value of plain characters, or NAME="value" where a backslash stands before a quote, a backslash,
$ and a backquote. A shell, EnvironmentFile= of systemd and this module read these alike; anything else is refused.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.storage import make_private, write_errors

# What runs need to reach people and servers. Values come from the environment of the command that makes the schedule.
CARRIED = (
    "IMAGE_FINDER_ALERTS",
    "IMAGE_FINDER_ALERTS_ON",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
    "ZENML_STORE_URL",
    "ZENML_STORE_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
)
_HEAD = """\
# Environment of the scheduled retraining. It may hold secrets: only its owner may read it (chmod 600).
# To be alerted, name addresses as Apprise writes them, separated by blanks:
#   IMAGE_FINDER_ALERTS="https://hooks.slack.com/services/A/B/C mailtos://user:password@example.org?to=me@example.org"
# and when: failure (default), success or always.
#   IMAGE_FINDER_ALERTS_ON="failure"
"""
_LINE = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\$`\r]|\\["\\$`])*)"|([\w./:@%+,=-]*))""", re.ASCII)
_ESCAPED = re.compile(r'\\(["\\$`])')
_NEEDS_ESCAPE = re.compile(r'(["\\$`])')


def write(path: Path, values: Mapping[str, str]) -> None:
    """Write a new file with these values, mode 0600 from its first moment. Raises ConfigError, StorageError."""
    lines = [f'{name}="{_quoted(name, value)}"' for name, value in values.items()]
    with write_errors(path):
        make_private(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(_HEAD + "".join(f"{line}\n" for line in lines))
        except BaseException:
            path.unlink()  # half a file would be kept by the next call
            raise


def read(path: Path) -> dict[str, str]:
    """Values by name. Raises ConfigError when others may read the file or a line is not understood, StorageError."""
    try:
        status = path.stat()
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StorageError(f"environment file {path} cannot be read: {reason}") from error
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"environment file {path} may be read by others (mode {stat.S_IMODE(status.st_mode):04o}) and holds "
            f"secrets: chmod 600 '{path}'"
        )
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t")
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            name = text.partition("=")[0][:40]  # the value may be a secret
            raise ConfigError(
                f'environment file {path} line {number} ({name}): expected NAME="value" with \\ before ", \\, $ and `'
            )
        values[found[1]] = _ESCAPED.sub(r"\1", found[2]) if found[2] is not None else found[3]
    return values


def _quoted(name: str, value: str) -> str:
    if any(ord(character) < ord(" ") for character in value):
        raise ConfigError(f"{name} holds a line break or another control character: it cannot stand in a file of lines")
    return _NEEDS_ESCAPE.sub(r"\\\1", value)
