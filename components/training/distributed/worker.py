"""Worker: one process of a training job, as torch's launcher starts it: python -m image_finder.components.training.distributed.worker JOB.

The launcher sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. See image_finder.components.training.distributed.launch.
"""

import os
import sys
import traceback
from pathlib import Path

import click

from image_finder.components.errors import ConfigError, FinderError
from image_finder.components.text import one_line
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Failure
from image_finder.components.training.distributed.lifeline import when_stdin_ends


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--attached", is_flag=True, hidden=True, help="End with whoever holds the other end of stdin.")
def main(folder: Path, *, attached: bool) -> None:
    """Train as one of the processes of the job in FOLDER."""
    if attached:
        when_stdin_ends(lambda: os._exit(1))
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) and any(f.final for f in jobs.failures(folder)):
        sys.exit(1)  # it would end the same way
    rank = int(os.environ.get("RANK", "0"))
    try:
        jobs.forget_failure(folder, rank)
        work(folder, jobs.read_job(folder))
    except FinderError as error:
        _fail(folder, Failure(error=type(error).__name__, message=str(error), rank=rank))
    except Exception as error:  # noqa: BLE001 - whatever it was, the launcher is to say it
        traceback.print_exc()
        _fail(folder, Failure(error="", message=f"{type(error).__name__}: {one_line(error)}", rank=rank))


def work(folder: Path, job: jobs.Job) -> None:
    """Join the other processes and train. Raises ConfigError outside of a launcher, and as train_checkpoint does."""
    from image_finder.components.training.distributed.ranks import Place, joined
    from image_finder.components.training.trainer import train_checkpoint

    try:
        place = Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except KeyError as error:
        raise ConfigError(
            f"{error} is not set: python -m image_finder.components.training.distributed.launch starts this"
        ) from error
    train_data, val_data = jobs.read_data(folder, job)
    with joined(place, job.training) as ranks:
        train_checkpoint(
            train_data,
            val_data,
            (job.model, job.training),
            jobs.feature_settings(job),
            path=job.checkpoint,
            dataset=job.dataset,
            on_epoch=lambda record: jobs.add_epoch(folder, record) if ranks.leads else None,
            ranks=ranks,
        )


def _fail(folder: Path, failure: Failure) -> None:
    """Leave word and end. An orderly end would wait for processes that are gone."""
    click.echo(f"process {failure.rank}: {failure.message}", err=True)
    try:
        jobs.tell_failure(folder, failure)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
