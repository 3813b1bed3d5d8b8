"""Token file: the secret that requests must carry, in a file that other accounts cannot read."""

import os
import shlex
import stat
from pathlib import Path

from image_finder.components.errors import ConfigError

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG


def read_token(path: Path) -> str:
    """The token in a file, which may be a link or a pipe. Raises ConfigError.

    Nobody but the owner may have access to a file of this account. A file of another account, such as a secret that
    Kubernetes mounts as root with the pod's fsGroup, may be readable by a group: this process reads it that way.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            _require_private(path, os.fstat(stream.fileno()))
            token = stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path} cannot be read as text; check it") from error
    if not token:
        written = f"(umask 077; openssl rand -hex 24 > {shlex.quote(str(path))})"
        raise ConfigError(f"--token-file {path} is empty; write a token into it, e.g. by '{written}'")
    return token


def _require_private(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return  # modes say nothing there
    is_own = status.st_uid == os.geteuid()
    if status.st_mode & (_OTHERS | _GROUP if is_own else _OTHERS):
        raise ConfigError(
            f"--token-file {path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}): run chmod 600 "
            f"{shlex.quote(str(path))}; for a mounted secret set its mode to 0440"
        )
