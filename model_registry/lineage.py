"""Lineage: where a model comes from, as hashes an auditor can compare; reads git and the installed packages."""

import json
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

from pydantic import BaseModel

from components.storage import sha256_of_bytes
from model_registry.mlflow_registry import Lineage


def of_run(code_hash: str, **configs: BaseModel) -> Lineage:
    """Lineage of a run with these configs; code_hash stands in for the commit outside a checkout."""
    values = {name: config.model_dump(mode="json") for name, config in sorted(configs.items())}
    return Lineage(
        code_version=code_version(Path(__file__).resolve().parents[1]) or f"sources-{code_hash[:12]}",
        config_sha256=sha256_of_bytes(json.dumps(values, sort_keys=True).encode()),
        environment_sha256=environment_sha256(),
    )


def code_version(checkout: Path) -> str | None:
    """Commit of a checkout, with `-dirty` when files differ from it; None where there is no checkout or no git."""
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    described = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def environment_sha256() -> str:
    """Hash over the names and versions of all installed distributions."""
    installed = sorted({f"{each.metadata['Name']}=={each.version}".lower() for each in distributions()})
    return sha256_of_bytes("\n".join(installed).encode())
