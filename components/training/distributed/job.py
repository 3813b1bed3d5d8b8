"""Training job: the directory through which the launcher and workers of one training exchange JSON and tables.

    <cache directory>/training-jobs/<name>/
        job.json                          configuration, data and checkpoint path
        {train,val}.{captions,images}.parquet
        epochs.jsonl                      one line per finished epoch, written by rank 0
        failed-<rank>.json                why a worker ended
        failure.json                      why the launcher ended
        torch/                            logs of torch's launcher
        running.lock                      held by the training step

With several hosts the directory must have the same path on all of them (a shared file system), and its name is derived
from training.rendezvous, where only one training can run at a time.
"""

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import ValidationError

from image_finder.components import errors
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig, first_fault
from image_finder.components.errors import ConfigError, FinderError, ProcessError, StorageError
from image_finder.components.records.base import Record
from image_finder.components.records.training import EpochRecord
from image_finder.components.storage import write_errors, write_text_atomically

if TYPE_CHECKING:
    from image_finder.components.captions.captioned import CaptionedImages
    from image_finder.components.training.trainer import TrainingTask

_PARTS = ("train", "val")
_JOB, _EPOCHS, _FAILURE, _LOCK = "job.json", "epochs.jsonl", "failure.json", "running.lock"


class Job(Record):
    model: ModelConfig
    training: TrainingConfig
    embedding: EmbeddingConfig
    cache_dir: Path
    progress: bool
    roots: tuple[Path, Path]  # of the train and val images
    dataset: tuple[str, str]  # name and data version
    checkpoint: Path


class Failure(Record):
    error: str  # name of a class in components.errors; "" for any other exception
    message: str
    rank: int = -1  # -1: the launcher

    @property
    def final(self) -> bool:
        """Whether a restart would fail in the same way: an error of data, configuration or storage."""
        return self.error not in ("", ProcessError.__name__)

    def as_error(self) -> FinderError:
        kind = getattr(errors, self.error, ProcessError)
        named: FinderError = kind(self.message)
        return named


@contextlib.contextmanager
def new_job(job: Job, data: "tuple[CaptionedImages, CaptionedImages]") -> Iterator[Path]:
    """Create a job's directory, yield it and remove it, with those of killed programs.

    data: train and val tables. Raises ConfigError if another training uses the same rendezvous, StorageError.
    """
    parent = job.cache_dir / "training-jobs"
    with write_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = _new_folder(parent, job.training)
    lock = FileLock(folder / _LOCK)
    lock.acquire()
    try:
        with write_errors(folder):
            for part, table in zip(_PARTS, data, strict=True):
                table.captions.to_parquet(folder / f"{part}.captions.parquet")
                table.images.to_parquet(folder / f"{part}.images.parquet")
        write_text_atomically(folder / _JOB, job.model_dump_json(indent=2))
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def read_job(folder: Path) -> Job:
    """Read job.json. Raises StorageError."""
    path = folder / _JOB
    try:
        return Job.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}; the directory must be on a file system that all hosts share"
        ) from error
    except ValidationError as error:
        raise StorageError(f"{path} is not a training job of this version: {first_fault(error)}") from error


def read_task(folder: Path, job: Job) -> "TrainingTask":
    import pandas as pd

    from image_finder.components.captions.captioned import CaptionedImages
    from image_finder.components.training.trainer import FeatureSettings, TrainingTask

    train, val = (
        CaptionedImages(
            pd.read_parquet(folder / f"{part}.captions.parquet"),
            pd.read_parquet(folder / f"{part}.images.parquet"),
            root,
        )
        for part, root in zip(_PARTS, job.roots, strict=True)
    )
    settings = FeatureSettings(job.cache_dir, job.embedding, job.progress)
    return TrainingTask(train, val, (job.model, job.training), settings, job.checkpoint, job.dataset)


def add_epoch(folder: Path, record: EpochRecord) -> None:
    """Append a finished epoch; only rank 0 does so."""
    with write_errors(folder), (folder / _EPOCHS).open("a", encoding="utf-8") as stream:
        stream.write(record.model_dump_json() + "\n")


def epochs_after(folder: Path, epoch: int) -> list[EpochRecord]:
    """Finished epochs after `epoch`, ascending, each once even if a worker was restarted."""
    path = folder / _EPOCHS
    lines = (
        path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    )  # the last line may be incomplete
    records = {record.epoch: record for record in map(EpochRecord.model_validate_json, lines)}
    return [records[number] for number in sorted(records) if number > epoch]


def write_failure(folder: Path, failure: Failure) -> None:
    name = _FAILURE if failure.rank < 0 else f"failed-{failure.rank}.json"
    write_text_atomically(folder / name, failure.model_dump_json())


def failures(folder: Path) -> list[Failure]:
    found = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in folder.glob("failed-*.json")]
    return sorted(found, key=lambda failure: failure.rank)


def clear_failure(folder: Path, rank: int) -> None:
    (folder / f"failed-{rank}.json").unlink(missing_ok=True)


def launcher_failure(folder: Path) -> Failure | None:
    path = folder / _FAILURE
    return Failure.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _new_folder(parent: Path, training: TrainingConfig) -> Path:
    if training.hosts == 1:
        return Path(tempfile.mkdtemp(dir=parent, prefix="job-"))
    folder = parent / f"job-{re.sub(r'[^0-9A-Za-z.]+', '-', training.rendezvous)}"
    try:
        folder.mkdir(0o700)
    except FileExistsError as error:
        raise ConfigError(
            f"training.rendezvous ({training.rendezvous}): another training uses it (job {folder}); "
            "wait until it ends or set another port"
        ) from error
    return folder


def _sweep(parent: Path) -> None:
    """Remove the directories of killed programs: their locks are free."""
    for folder in parent.glob("job-*"):
        with contextlib.suppress(Timeout, OSError), FileLock(folder / _LOCK).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def when_stdin_ends(act: Callable[[], None]) -> None:
    """Call `act` in a thread when standard input ends, that is, when the parent process ends."""

    def watch() -> None:
        # os.read, not sys.stdin.read(): a thread that holds sys.stdin's lock blocks the interpreter's exit
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()
