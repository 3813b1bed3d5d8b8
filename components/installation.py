"""Installation: how this environment was made, and the command that changes it; knows nothing of the packages' use."""

import sys
from pathlib import Path

PACKAGE = "text-guided-image-finder"


def install_command(extra: str = "search", *, again: bool = False) -> str:
    """The command that installs this package with an extra, as pip, pipx or uv has installed it here.

    again: also where this version is installed.
    """
    requirement = f"'{PACKAGE}[{extra}]'"
    if Path(sys.prefix, "uv-receipt.toml").is_file():
        return f"uv tool install {'--reinstall ' if again else ''}{requirement}"
    if Path(sys.prefix, "pipx_metadata.json").is_file():
        return f"pipx install --force {requirement}"
    return f"pip install --force-reinstall --no-deps {PACKAGE}" if again else f"pip install {requirement}"
