"""Resumable state: model, optimizer and progress after each epoch, as safetensors and JSON.

    <work directory>/epoch-0003/   model.safetensors  optimizer.safetensors  [average.safetensors]  progress.json

A directory is written completely or not at all; the previous one is removed only afterwards.
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

from image_finder.components.encoders.checkpoint import storable
from image_finder.components.errors import StorageError
from image_finder.components.records.base import Record
from image_finder.components.records.training import EpochRecord
from image_finder.components.storage import new_directory, write_errors

_PROGRESS = "progress.json"
_NAME = re.compile(r"epoch-(\d{4})")


class Progress(Record):
    """Finished epochs. best_epoch counts from 1; 0: none yet."""

    identity: str  # hash of data, configuration and code: only the same training resumes
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0

    @property
    def epochs_done(self) -> int:
        return len(self.history)


def latest(work: Path, identity: str) -> tuple[Path, Progress] | None:
    """Newest state of this training, or None. Raises StorageError if it is damaged."""
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
    """Lock the work directory and remove incomplete states. Raises StorageError."""
    with write_errors(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "training.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(
                f"another run of this training is in progress in {work}; wait until it ends or stop it"
            ) from error
    try:
        for leftover in work.glob(".epoch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


def save(work: Path, progress: Progress, tensors: dict[str, dict[str, Tensor]]) -> Path:
    """Write the state after an epoch; keep only it and the best epoch. Raises StorageError."""
    target = work / f"epoch-{progress.epochs_done:04d}"
    with new_directory(target) as folder:
        for stem, content in tensors.items():
            save_file(storable(content), folder / f"{stem}.safetensors")
        (folder / _PROGRESS).write_text(progress.model_dump_json(), encoding="utf-8")
    kept = {target.name, f"epoch-{progress.best_epoch:04d}"}
    for folder in _epoch_folders(work):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def load(folder: Path, stem: str) -> dict[str, Tensor]:
    """Read one tensor file of a state. Raises StorageError."""
    path = folder / f"{stem}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be read: {error}; remove {folder.parent} to train from the start") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        # fused AdamW needs moments in the memory format of their parameter (channels last on a GPU)
        formatted = value if name == "step" else torch.empty_like(parameters[int(number)].detach()).copy_(value)
        state.setdefault(int(number), {})[name] = formatted
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def _epoch_folders(work: Path) -> Iterable[Path]:
    if not work.is_dir():
        return []
    return [folder for folder in work.iterdir() if _NAME.fullmatch(folder.name) and folder.is_dir()]
