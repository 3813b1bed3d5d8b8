"""Resumable state: all that decides how training goes on, after each epoch, as plain tensors and JSON; no pickle.

    <work folder>/epoch-0003/   model.safetensors  optimizer.safetensors  [average.safetensors]  progress.json

A folder is written whole or not at all, and the one before it goes only when the new one is there.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.records import EpochRecord, Record
from components.storage import new_directory

_NAME = re.compile(r"epoch-(\d{4})")


class Progress(Record):
    """What has been done. best_epoch counts from 1; 0: none yet."""

    identity: str  # of data, config and code: another training must not be continued
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history)


def latest(work: Path, identity: str) -> tuple[Path, Progress] | None:
    """The newest state of this training, or None."""
    for folder in sorted(_epoch_folders(work), reverse=True):
        progress = Progress.model_validate_json((folder / "progress.json").read_text(encoding="utf-8"))
        if progress.identity == identity:
            return folder, progress
    return None


def save(work: Path, progress: Progress, tensors: dict[str, dict[str, Tensor]]) -> Path:
    """Write the state after an epoch; keep only it and the best epoch. tensors: file stem -> tensors. Raises StorageError."""
    target = work / f"epoch-{progress.epochs_done:04d}"
    with new_directory(target) as folder:
        for stem, content in tensors.items():
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in content.items()},
                folder / f"{stem}.safetensors",
            )
        (folder / "progress.json").write_text(progress.model_dump_json(), encoding="utf-8")
    kept = {target.name, f"epoch-{progress.best_epoch:04d}"}
    for folder in _epoch_folders(work):
        if folder.name not in kept:
            shutil.rmtree(folder)
    return target


def load(folder: Path, stem: str) -> dict[str, Tensor]:
    """Tensors of one file of a state."""
    return load_file(folder / f"{stem}.safetensors")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments and step counts by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put saved moments and step counts back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def _epoch_folders(work: Path) -> Iterable[Path]:
    if not work.is_dir():
        return []
    return [folder for folder in work.iterdir() if _NAME.fullmatch(folder.name) and folder.is_dir()]
