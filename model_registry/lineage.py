"""Lineage: code, data, configuration, packages and hardware of a model, as facts and hashes that can be compared."""

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, Field

from image_finder.components.records.base import Record
from image_finder.components.storage import sha256_of_bytes
from image_finder.components.system import available_cores

RECORDED = Path("model_registry", "code_version.txt")  # written by infra/docker/pipeline.Dockerfile
_PATHS = {("dataset", "root")}  # not part of the identity of the data, which is their fingerprint
_SEED = re.compile(r"(?:[._]|^)seed$")
_GIB = 1 << 30


class Lineage(Record):
    """Origin of a bundle. Empty values are unknown."""

    code_version: str  # commit, with -dirty if files were changed; or hash of the sources
    config_sha256: str  # of all parameters of the pipeline
    environment_sha256: str
    code_sha256: str = ""  # of our packages
    data_fingerprint: str = ""  # of the data files before they were read
    hardware: str = ""  # of the training, one line
    seeds: dict[str, int] = Field(default_factory=dict)  # by parameter, e.g. training.seed
    parent_champion: str | None = None  # version that was champion when this one was registered
    run_name: str = ""
    configs: dict[str, Any] = Field(default_factory=dict)  # all parameters, by name
    environment: tuple[str, ...] = ()  # installed distributions, name==version

    @property
    def dirty(self) -> bool | None:
        """Whether files differed from the commit; None without a commit."""
        return None if self.code_version.startswith("sources-") else self.code_version.endswith("-dirty")


def of_run(
    code_hash: str,
    *,
    data_fingerprint: str = "",
    hardware: str = "",
    parent_champion: str | None = None,
    run_name: str = "",
    **configs: BaseModel,
) -> Lineage:
    """Lineage of a run with these configs. code_hash replaces an unknown commit.

    hardware: of the training; if unknown, this machine is recorded as the one that registered the model.
    """
    values = {name: config.model_dump(mode="json") for name, config in sorted(configs.items())}
    return Lineage(
        code_version=code_version(Path(__file__).resolve().parents[1]) or f"sources-{code_hash[:12]}",
        code_sha256=code_hash,
        config_sha256=config_sha256(configs),
        environment_sha256=environment_sha256(),
        data_fingerprint=data_fingerprint,
        hardware=hardware or f"registered on: {this_hardware()}",
        seeds={path: seed for path, seed in leaves(values).items() if isinstance(seed, int) and _SEED.search(path)},
        parent_champion=parent_champion,
        run_name=run_name,
        configs=values,
        environment=environment(),
    )


def config_sha256(configs: Mapping[str, BaseModel]) -> str:
    """Hash over all parameters except paths of data."""
    values = {name: config.model_dump(mode="json") for name, config in sorted(configs.items())}
    for config, field in _PATHS:
        values.get(config, {}).pop(field, None)
    return sha256_of_bytes(json.dumps(values, sort_keys=True).encode())


def code_version(root: Path) -> str | None:
    """Commit of the code below root, with `-dirty` if files differ from it; None if unknown.

    Read from git in a checkout, and from the file RECORDED in a container image.
    """
    options = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    described = _printed("git", "-C", str(root), *options) if (root / ".git").exists() else ""
    recorded = root / RECORDED
    return described or (recorded.read_text(encoding="utf-8").strip() if recorded.exists() else "") or None


def _printed(program: str, *arguments: str) -> str:
    """Standard output of a program; "" if it is missing or fails."""
    if (path := shutil.which(program)) is None:
        return ""
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed arguments
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def environment() -> tuple[str, ...]:
    return tuple(sorted({f"{each.metadata['Name']}=={each.version}".lower() for each in distributions()}))


def environment_sha256() -> str:
    return sha256_of_bytes("\n".join(environment()).encode())


@cache
def this_hardware() -> str:
    cores, memory = available_cores(), psutil.virtual_memory().total / _GIB
    gpus = _gpus()
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {gpus or 'no GPU'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or platform.machine()])[0].split())


def _gpus() -> str:
    """Names of the NVIDIA GPUs, from the driver's tool because callers do not import torch."""
    listed = _printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return ", ".join(line.strip() for line in listed.splitlines() if line.strip())


def leaves(values: object, path: str = "") -> dict[str, object]:
    """Values of nested dictionaries by dotted path; an empty dictionary is a value."""
    if not isinstance(values, dict) or not values:
        return {path: values}
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= leaves(value, f"{path}.{key}" if path else key)
    return found
