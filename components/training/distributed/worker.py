"""Worker: one process of a training job, started by launch.py, which sets RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*."""

import os
import sys
import traceback
from pathlib import Path

import click

from image_finder.components.errors import ConfigError, FinderError
from image_finder.components.text import one_line
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Failure, when_stdin_ends


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--attached", is_flag=True, hidden=True, help="End when standard input ends.")
def main(folder: Path, *, attached: bool) -> None:
    """Train as one worker of the job in FOLDER."""
    if attached:
        when_stdin_ends(lambda: os._exit(1))
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) and any(f.final for f in jobs.failures(folder)):
        sys.exit(1)  # a restart would fail in the same way
    rank = int(os.environ.get("RANK", "0"))
    try:
        jobs.clear_failure(folder, rank)
        work(folder, jobs.read_job(folder))
    except FinderError as error:
        _fail(folder, Failure(error=type(error).__name__, message=str(error), rank=rank))
    except Exception as error:  # noqa: BLE001 - the launcher reports it
        traceback.print_exc()
        _fail(folder, Failure(error="", message=f"{type(error).__name__}: {one_line(error)}", rank=rank))


def work(folder: Path, job: jobs.Job) -> None:
    """Join the other workers and train. Raises ConfigError without a launcher."""
    from image_finder.components.training.distributed.ranks import Assignment, joined
    from image_finder.components.training.trainer import train_checkpoint

    try:
        assignment = Assignment(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except KeyError as error:
        raise ConfigError(
            f"{error} is not set: start python -m image_finder.components.training.distributed.launch instead"
        ) from error
    task = jobs.read_task(folder, job)
    with joined(assignment, job.training) as ranks:
        train_checkpoint(
            task, on_epoch=lambda record: jobs.add_epoch(folder, record) if ranks.leads else None, ranks=ranks
        )


def _fail(folder: Path, failure: Failure) -> None:
    """Write the failure and exit at once; an orderly exit would wait for ended workers."""
    click.echo(f"process {failure.rank}: {failure.message}", err=True)
    try:
        jobs.write_failure(folder, failure)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
