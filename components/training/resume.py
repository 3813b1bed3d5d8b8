"""Resumable state: all that decides how training goes on, after each epoch, as plain tensors and JSON; no pickle.

    <work folder>/epoch-0003/   model.safetensors  optimizer.safetensors  [average.safetensors]  progress.json

A folder is written whole or not at all, and the one before it goes only when the new one is there.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from image_finder.components.errors import StorageError
from image_finder.components.records.base import Record
from image_finder.components.records.training import EpochRecord
from image_finder.components.storage import new_directory, write_errors

_PROGRESS = "progress.json"
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
        if not (folder / _PROGRESS).exists():
            continue  # its removal was interrupted
        try:
            progress = Progress.model_validate_json((folder / _PROGRESS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise StorageError(f"{folder / _PROGRESS} is damaged; remove {work} to train from the start") from error
        if progress.identity == identity:
            return folder, progress
    return None


@contextlib.contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Hold the work folder for this process, and sweep what killed ones left half-written. Raises StorageError."""
    with write_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "training.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(f"another run is training the same in {work}; wait for it or stop it") from error
    try:
        for leftover in work.glob(".epoch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


def save(work: Path, progress: Progress, tensors: dict[str, dict[str, Tensor]]) -> Path:
    """Write the state after an epoch; keep only it and the best epoch. tensors: file stem -> tensors. Raises StorageError."""
    target = work / f"epoch-{progress.epochs_done:04d}"
    with new_directory(target) as folder:
        for stem, content in tensors.items():
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in content.items()},
                folder / f"{stem}.safetensors",
            )
        (folder / _PROGRESS).write_text(progress.model_dump_json(), encoding="utf-8")
    kept = {target.name, f"epoch-{progress.best_epoch:04d}"}
    for folder in _epoch_folders(work):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def load(folder: Path, stem: str) -> dict[str, Tensor]:
    """Tensors of one file of a state. Raises StorageError."""
    path = folder / f"{stem}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be read: {error}; remove {folder.parent} to train from the start") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments and step counts by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put saved moments and step counts back."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        # Moments lie in memory as their parameter does (channels last on a GPU); fused AdamW insists on it.
        laid = value if name == "step" else torch.empty_like(parameters[int(number)].detach()).copy_(value)
        state.setdefault(int(number), {})[name] = laid
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def _epoch_folders(work: Path) -> Iterable[Path]:
    if not work.is_dir():
        return []
    return [folder for folder in work.iterdir() if _NAME.fullmatch(folder.name) and folder.is_dir()]
