"""Job: a folder through which the processes of one training are told what to do and tell what they did; no pickle.

    <cache folder>/training-jobs/<name>/
        job.json                          what to train, on what, where to write it
        {train,val}.{captions,images}.parquet
        epochs.jsonl                      a line for each finished epoch, from process 0
        failed-<rank>.json                why a process ended
        failure.json                      why the whole ended, from the step's launcher
        torch/                            of torch's launchers
        running.lock                      held by whoever waits for the job

On several hosts the folder lies on a file system that all share, under the same path; its name is known before: it is
that of their rendezvous, where only one training can meet at a time.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
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
    from image_finder.components.training.trainer import FeatureSettings

_PARTS = ("train", "val")
_JOB, _EPOCHS, _FAILURE, _LOCK = "job.json", "epochs.jsonl", "failure.json", "running.lock"


class Job(Record):
    """What the processes of a training are to do."""

    model: ModelConfig
    training: TrainingConfig
    embedding: EmbeddingConfig
    cache_dir: Path
    progress: bool
    roots: tuple[Path, Path]  # of the train and val images
    dataset: tuple[str, str]  # name and data version
    checkpoint: Path


class Failure(Record):
    """Why a process, or the whole, ended. error: name of a class of image_finder.components.errors; "" for any other."""

    error: str
    message: str
    rank: int = -1

    @property
    def final(self) -> bool:
        """Whether starting again would end the same way: an error of data, configuration or storage."""
        return self.error not in ("", ProcessError.__name__)

    def as_error(self) -> FinderError:
        """The error to raise where the training was asked for."""
        kind = getattr(errors, self.error, ProcessError)
        named: FinderError = kind(self.message)
        return named


@contextlib.contextmanager
def new_job(job: Job, data: "tuple[CaptionedImages, CaptionedImages]") -> Iterator[Path]:
    """A folder with a job and its train and val tables, gone afterwards; those of killed programs are swept.

    Raises ConfigError if another training meets at the same rendezvous, StorageError.
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
    """The job of a folder. Raises StorageError."""
    path = folder / _JOB
    try:
        return Job.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}; the folder must be on a file system that all hosts share"
        ) from error
    except ValidationError as error:
        raise StorageError(f"{path} is not a training job of this version: {first_fault(error)}") from error


def read_data(folder: Path, job: Job) -> "tuple[CaptionedImages, CaptionedImages]":
    """The train and val tables of a job."""
    import pandas as pd

    from image_finder.components.captions.captioned import CaptionedImages

    train, val = (
        CaptionedImages(
            pd.read_parquet(folder / f"{part}.captions.parquet"),
            pd.read_parquet(folder / f"{part}.images.parquet"),
            root,
        )
        for part, root in zip(_PARTS, job.roots, strict=True)
    )
    return train, val


def feature_settings(job: Job) -> "FeatureSettings":
    """Where the job's features are cached and how they are computed."""
    from image_finder.components.training.trainer import FeatureSettings

    return FeatureSettings(job.cache_dir, job.embedding, job.progress)


def add_epoch(folder: Path, record: EpochRecord) -> None:
    """Tell of a finished epoch. Process 0 only."""
    with write_errors(folder), (folder / _EPOCHS).open("a", encoding="utf-8") as stream:
        stream.write(record.model_dump_json() + "\n")


def epochs_after(folder: Path, epoch: int) -> list[EpochRecord]:
    """Finished epochs with a higher number, ascending; processes that were started again tell of earlier ones twice."""
    path = folder / _EPOCHS
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # the last may be unfinished
    records = {record.epoch: record for record in map(EpochRecord.model_validate_json, lines)}
    return [records[number] for number in sorted(records) if number > epoch]


def tell_failure(folder: Path, failure: Failure) -> None:
    """Leave word of a process's failure (rank 0 or more) or of the whole's."""
    name = _FAILURE if failure.rank < 0 else f"failed-{failure.rank}.json"
    write_text_atomically(folder / name, failure.model_dump_json())


def failures(folder: Path) -> list[Failure]:
    """Of the processes, by rank."""
    found = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in folder.glob("failed-*.json")]
    return sorted(found, key=lambda failure: failure.rank)


def forget_failure(folder: Path, rank: int) -> None:
    """Take back what an earlier attempt of this process left."""
    (folder / f"failed-{rank}.json").unlink(missing_ok=True)


def failure_of_all(folder: Path) -> Failure | None:
    """What the launcher said, if it did."""
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
            f"training.rendezvous ({training.rendezvous}): another training meets there, its job is {folder}; "
            "wait for its end or name another port"
        ) from error
    return folder


def _sweep(parent: Path) -> None:
    """Remove the folders of programs that were killed: nobody holds their locks."""
    for folder in parent.glob("job-*"):
        with contextlib.suppress(Timeout, OSError), FileLock(folder / _LOCK).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
