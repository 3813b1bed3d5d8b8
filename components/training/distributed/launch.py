"""Launcher: starts the processes of a training job on one host with torch's elastic launcher, and says why they ended.

    python -m image_finder.components.training.distributed.launch JOB [--within SECONDS]

The training step runs it on its own host. With training.hosts above 1 this command is run on each other host as well,
once, before the step or after it: it waits until JOB is there and the step's host answers at training.rendezvous, which
must name that host; then all hosts wait for each other, 15 minutes at the longest. It ends with the training. JOB is

    <cache folder>/training-jobs/job-HOST-PORT        for training.rendezvous=HOST:PORT; the step says it too

and lies, as the cache folder, the images and the checkpoint's folder do, under the same path on all hosts, on a file
system they share. So a scheduler (Slurm, say) may start all at once: image-finder pipeline run training on the host of
the rendezvous, this command with a long --within on the others. torchrun cannot take its place, nor Kubeflow's
PyTorchJob: the step's launcher is one of those that meet. Run so far on one machine only, with two launchers (a test).
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import click
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from image_finder.components.configs import TrainingConfig
from image_finder.components.errors import ConfigError, FinderError, ProcessError, StorageError
from image_finder.components.text import one_line
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Failure, Job
from image_finder.components.training.distributed.lifeline import when_stdin_ends

_GATHER_S = 900  # for all hosts to be there
_LOOK_EVERY_S = 1.0
_ANSWER_S = 5.0
_SHUTDOWN_S = "5"  # torch waits 30 s for a process it has asked to end
_GO_ON = "start it again: it goes on after the last finished epoch"


class Ended(Protocol):
    """What torch knows of a process that failed: its exit code (negative: a signal) and when that was noticed."""

    exitcode: int
    timestamp: int


@click.command()
@click.argument("folder", metavar="JOB", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0),
    default=_GATHER_S,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for JOB and for the host of the training step.",
)
@click.option("--attached", is_flag=True, hidden=True, help="End with whoever holds the other end of stdin.")
def main(folder: Path, *, within_s: float, attached: bool) -> None:
    """Start this host's processes of the training job in the folder JOB and wait for them."""
    if attached:
        when_stdin_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    logging.disable(logging.ERROR)  # torch's own account of a failure; ours follows
    try:
        job = jobs.read_job(folder) if attached else awaited(folder, within_s)
        launch(folder, job.training, attached=attached)
    except FinderError as error:
        if attached:  # the step waits for this word; the others' processes left theirs
            jobs.tell_failure(folder, Failure(error=type(error).__name__, message=str(error)))
        raise click.ClickException(str(error)) from error
    except SignalException as error:  # its processes are ended by then
        sys.exit(128 + error.sigval)


def awaited(folder: Path, within_s: float) -> Job:
    """The job of another host's training step, once it is there and that host answers.

    A job without a host that answers was left by a step that was killed. Raises StorageError or ProcessError after
    within_s, ConfigError for a job of one host.
    """
    end = time.monotonic() + within_s
    while True:
        try:
            job = jobs.read_job(folder)
            if job.training.hosts == 1:
                raise ConfigError(f"{folder} is a job of one host (training.hosts: 1), whose step starts all processes")
            with socket.create_connection(parse_rendezvous_endpoint(job.training.rendezvous, -1), _ANSWER_S):
                return job
        except (StorageError, OSError) as error:
            if time.monotonic() < end:
                time.sleep(_LOOK_EVERY_S)
                continue
            if isinstance(error, StorageError):
                raise
            raise ProcessError(
                f"the host of the training step did not answer at {job.training.rendezvous} within {within_s:g} s: "
                f"{error}; training.rendezvous must name it, and the step must run"
            ) from error


def launch(folder: Path, config: TrainingConfig, *, attached: bool) -> None:
    """Run this host's share of a job's processes to their end. Raises the FinderError of the one that failed first."""
    local = config.processes // config.hosts
    # Else all attempts share a store, and a process that starts sooner than its neighbour finds the address of that one's
    # predecessor there: on a busy machine no restart would succeed (torch 2.14).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SHUTDOWN_S)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // local)))
    torch_config = LaunchConfig(
        min_nodes=config.hosts,
        max_nodes=config.hosts,
        nproc_per_node=local,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint=config.rendezvous or "localhost:0",
        rdzv_configs={"join_timeout": _GATHER_S},
        max_restarts=config.restarts,
        local_addr=None if config.hosts > 1 else "127.0.0.1",
        logs_specs=DefaultLogsSpecs(
            log_dir=str(folder / "torch")
        ),  # else a folder of the system's, which nobody removes
    )
    options = ["--attached"] if attached else []
    try:
        elastic_launch(torch_config, sys.executable)(
            "-m", "image_finder.components.training.distributed.worker", str(folder), *options
        )
    except ChildFailedError as error:
        raise cause(error.failures, jobs.failures(folder)).as_error() from error
    except RendezvousError as error:
        reason = one_line(error)
        raise ProcessError(
            f"the {config.hosts} hosts of training.hosts did not meet at {config.rendezvous}: {reason}; it must name "
            f"the host of the training step, and the launcher must be started on each other within {_GATHER_S} s"
        ) from error


def cause(ended: Mapping[int, Ended], told: list[Failure]) -> Failure:
    """The failure that the others followed from. ended: by rank, those of this host; told: what processes left word of.

    When one is gone, those that talk to it fail too, and the rest is ended by the launcher: a reason that was given
    counts most, a lost connection least.
    """
    for failure in told:
        if failure.final:
            return failure.model_copy(update={"message": f"process {failure.rank}: {failure.message}"})
    lost = [failure for failure in told if failure.error == ProcessError.__name__]
    own = [failure for failure in told if failure not in lost]
    noticed = min(each.timestamp for each in ended.values())
    # whom the launcher had to kill for not ending has died later
    signals = {n: -each.exitcode for n, each in ended.items() if each.exitcode < 0 and each.timestamp <= noticed + 1}
    silent = [rank for rank in ended if rank not in signals and all(rank != failure.rank for failure in told)]
    for rank, number in sorted(signals.items(), key=lambda item: item[1] == signal.SIGTERM):
        if number != signal.SIGTERM or not (own or silent):  # the launcher ends the rest with SIGTERM
            hint = " (the system does that when memory runs out)" if number == signal.SIGKILL else ""
            return _process_failure(rank, f"was ended by {signal.Signals(number).name}{hint}")
    for failure in [*own, *lost]:
        return _process_failure(failure.rank, f"failed: {failure.message}")
    return _process_failure(silent[0], f"ended with exit code {ended[silent[0]].exitcode}")


def _process_failure(rank: int, what: str) -> Failure:
    return Failure(error=ProcessError.__name__, message=f"process {rank} of the training {what}; {_GO_ON}")


if __name__ == "__main__":
    main()
