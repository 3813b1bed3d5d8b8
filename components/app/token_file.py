"""Token file: reads the access token from a file that other accounts cannot read."""

import os
import shlex
import stat
from pathlib import Path

from image_finder.components.errors import ConfigError

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG


def read_token(path: Path) -> str:
    """Read the token; the file may be a link or a pipe. Raises ConfigError.

    A file of this account must be accessible to its owner only. A file of another account may be readable by a group:
    Kubernetes mounts secrets as root with the pod's fsGroup.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            _require_private(path, os.fstat(stream.fileno()))
            token = stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"could not read --token-file {path} as text") from error
    if not token:
        command = f"(umask 077; openssl rand -hex 24 > {shlex.quote(str(path))})"
        raise ConfigError(f"--token-file {path} is empty; create a token with: {command}")
    return token


def _require_private(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return  # file modes have no meaning there
    is_own = status.st_uid == os.geteuid()
    if status.st_mode & (_OTHERS | _GROUP if is_own else _OTHERS):
        raise ConfigError(
            f"--token-file {path} is readable by others (mode {stat.S_IMODE(status.st_mode):04o}). Run: chmod 600 "
            f"{shlex.quote(str(path))} (for a mounted secret, set mode 0440)"
        )
