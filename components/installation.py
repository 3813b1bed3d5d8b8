"""Installation: how this environment was made, and the command that changes it; knows nothing of the packages' use."""

import sys
from pathlib import Path

PACKAGE = "text-guided-image-finder"


def install_command(extra: str = "search", *, again: bool = False) -> str:
    """The command that installs this package with an extra, as pip, pipx or uv has installed it here.

    again: also where this version is installed.
    """
    requirement = f"'{PACKAGE}[{extra}]'"
    if _made_by_uv():
        return f"uv tool install {'--reinstall ' if again else ''}{requirement}"
    if _made_by_pipx():
        return f"pipx install --force {requirement}"
    return f"pip install --force-reinstall --no-deps {PACKAGE}" if again else f"pip install {requirement}"


def add_command(wheel: str) -> str:
    """The command that installs a wheel of the current folder here, without its dependencies."""
    if _made_by_uv():
        return f"uv pip install --python {sys.prefix} --no-deps {wheel}"
    if _made_by_pipx():
        return f'pipx runpip {PACKAGE} install --no-deps "$PWD/{wheel}"'  # which runs in the environment's folder
    return f"pip install --no-deps {wheel}"


def _made_by_uv() -> bool:
    return Path(sys.prefix, "uv-receipt.toml").is_file()


def _made_by_pipx() -> bool:
    return Path(sys.prefix, "pipx_metadata.json").is_file()
