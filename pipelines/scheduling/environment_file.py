r"""Environment file: secrets for a scheduled command, readable only by its owner.

A line is a comment, NAME=value of plain characters, or NAME="value" with a backslash before ", \, $ and `. A shell,
systemd's EnvironmentFile= and this module read these lines alike; any other line is refused.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from image_finder.components.errors import ConfigError, StorageError
from image_finder.components.storage import make_private, write_errors

# Variables that runs need to reach people and servers, copied from the environment of `pipeline schedule`.
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
# Environment of the scheduled retraining. It may contain secrets: only its owner may read it (chmod 600).
# For alerts, list addresses in Apprise's notation, separated by blanks:
#   IMAGE_FINDER_ALERTS="https://hooks.slack.com/services/A/B/C mailtos://user:password@example.org?to=me@example.org"
# and choose when to send them: failure (default), success or always.
#   IMAGE_FINDER_ALERTS_ON="failure"
"""
_LINE = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\$`\r]|\\["\\$`])*)"|([\w./:@%+,=-]*))""", re.ASCII)
_ESCAPED = re.compile(r'\\(["\\$`])')
_NEEDS_ESCAPE = re.compile(r'(["\\$`])')


def write(path: Path, values: Mapping[str, str]) -> None:
    """Create the file with mode 0600. Raises ConfigError, StorageError (also if it exists)."""
    lines = [f'{name}="{_quoted(name, value)}"' for name, value in values.items()]
    with write_errors(path):
        make_private(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(_HEAD + "".join(f"{line}\n" for line in lines))
        except BaseException:
            path.unlink()  # the next call would keep an incomplete file
            raise


def read(path: Path) -> dict[str, str]:
    """Values by name. Raises StorageError, and ConfigError if others may read the file."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StorageError(f"environment file {path} cannot be read: {reason}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"environment file {path} contains secrets, but other users can read it (mode {mode:04o}): chmod 600 '{path}'"
        )
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t")
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            name = text.partition("=")[0][:40]  # not the value, which may be a secret
            raise ConfigError(
                f'environment file {path} line {number} ({name}): expected NAME="value" with \\ before ", \\, $ and `'
            )
        values[found[1]] = _ESCAPED.sub(r"\1", found[2]) if found[2] is not None else found[3]
    return values


def _quoted(name: str, value: str) -> str:
    if any(ord(character) < ord(" ") for character in value):
        raise ConfigError(
            f"{name} contains a line break or another control character: an environment file cannot hold it"
        )
    return _NEEDS_ESCAPE.sub(r"\\\1", value)
