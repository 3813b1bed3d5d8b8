"""Launcher: starts the workers of a training job on one host with torch's elastic launcher and reports why they failed.

    python -m image_finder.components.training.distributed.launch JOB [--within SECONDS]

The training step starts it on its own host. With training.hosts above 1, run this command once on each other host, before
or after the step starts. It waits until JOB exists and the step's host (training.rendezvous) accepts connections; then
all hosts wait for each other for at most 15 minutes. It ends with the training. JOB is

    <cache directory>/training-jobs/job-HOST-PORT        for training.rendezvous=HOST:PORT; the step prints it

The cache directory, the images and the checkpoint directory must have the same paths on all hosts, on a shared file
system. A scheduler such as Slurm can start all hosts at once: `image-finder pipeline run training` on the host of
the rendezvous and this command with a long --within on the others. torchrun and Kubeflow's PyTorchJob cannot replace it,
because the step's own launcher takes part in the rendezvous. Tested with two launchers on one machine only.
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
from image_finder.components.training.distributed.job import Failure, Job, when_stdin_ends

_JOIN_TIMEOUT_S = 900  # until all hosts have joined
_POLL_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
_SHUTDOWN_S = "5"  # torch's default of 30 s delays every failure
_RESUME = "start it again: it resumes after the last finished epoch"


class Ended(Protocol):
    """A failed worker in torch's report: exit code (negative: a signal) and time in seconds."""

    exitcode: int
    timestamp: int


@click.command()
@click.argument("folder", metavar="JOB", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0),
    default=_JOIN_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Seconds to wait for JOB and for the step's host.",
)
@click.option("--attached", is_flag=True, hidden=True, help="End when standard input ends.")
def main(folder: Path, *, within_s: float, attached: bool) -> None:
    """Run this host's workers of the training job in directory JOB."""
    if attached:
        when_stdin_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    logging.disable(logging.ERROR)  # torch's report of a failure; ours follows
    try:
        job = jobs.read_job(folder) if attached else wait_for_job(folder, within_s)
        launch(folder, job.training, attached=attached)
    except FinderError as error:
        if attached:  # on other hosts the workers' own files suffice
            jobs.write_failure(folder, Failure(error=type(error).__name__, message=str(error)))
        raise click.ClickException(str(error)) from error
    except SignalException as error:  # torch has ended the workers by then
        sys.exit(128 + error.sigval)


def wait_for_job(folder: Path, within_s: float) -> Job:
    """Wait for the job of another host's training step and for a connection to that host.

    Without a connection the job is a leftover of a killed step. Raises StorageError or ProcessError after within_s,
    ConfigError for a job of one host.
    """
    end = time.monotonic() + within_s
    while True:
        try:
            job = jobs.read_job(folder)
            if job.training.hosts == 1:
                raise ConfigError(f"{folder} is a job of one host (training.hosts: 1); its step starts all workers")
            with socket.create_connection(parse_rendezvous_endpoint(job.training.rendezvous, -1), _CONNECT_TIMEOUT_S):
                return job
        except (StorageError, OSError) as error:
            if time.monotonic() < end:
                time.sleep(_POLL_S)
                continue
            if isinstance(error, StorageError):
                raise
            raise ProcessError(
                f"the host of the training step did not answer at {job.training.rendezvous} within {within_s:g} s: "
                f"{error}; check training.rendezvous and that the step is running"
            ) from error


def launch(folder: Path, config: TrainingConfig, *, attached: bool) -> None:
    """Run this host's workers until they end. Raises the FinderError of the first failure."""
    local = config.processes // config.hosts
    # Otherwise all attempts share one store, and a restarted worker may read the address of a worker of the previous
    # attempt: on a busy machine no restart succeeds (torch 2.14).
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
        rdzv_configs={"join_timeout": _JOIN_TIMEOUT_S},
        max_restarts=config.restarts,
        local_addr=None if config.hosts > 1 else "127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "torch")),  # the default is never removed
    )
    options = ["--attached"] if attached else []
    try:
        elastic_launch(torch_config, sys.executable)(
            "-m", "image_finder.components.training.distributed.worker", str(folder), *options
        )
    except ChildFailedError as error:
        raise first_failure(error.failures, jobs.failures(folder)).as_error() from error
    except RendezvousError as error:
        reason = one_line(error)
        raise ProcessError(
            f"the {config.hosts} hosts did not join at training.rendezvous ({config.rendezvous}): {reason}; it must name "
            f"the host of the training step, and the launcher must start on all other hosts within {_JOIN_TIMEOUT_S} s"
        ) from error


def first_failure(ended: Mapping[int, Ended], reported: list[Failure]) -> Failure:
    """The failure that caused the others. ended: by rank, on this host; reported: on all hosts.

    When one worker ends, the others lose their connections and the launcher kills the rest. So a reported error counts
    most and a lost connection least.
    """
    for failure in reported:
        if failure.final:
            return failure.model_copy(update={"message": f"process {failure.rank}: {failure.message}"})
    lost = [failure for failure in reported if failure.error == ProcessError.__name__]
    raised = [failure for failure in reported if failure not in lost]
    first_end = min(each.timestamp for each in ended.values())
    # Workers that ended later than this were killed by the launcher
    signals = {n: -each.exitcode for n, each in ended.items() if each.exitcode < 0 and each.timestamp <= first_end + 1}
    silent = [rank for rank in ended if rank not in signals and all(rank != failure.rank for failure in reported)]
    for rank, number in sorted(signals.items(), key=lambda item: item[1] == signal.SIGTERM):
        if number != signal.SIGTERM or not (raised or silent):  # the launcher's own signal
            hint = " (probably out of memory)" if signal.Signals(number).name == "SIGKILL" else ""
            return _worker_failure(rank, f"was ended by {signal.Signals(number).name}{hint}")
    for failure in [*raised, *lost]:
        return _worker_failure(failure.rank, f"failed: {failure.message}")
    return _worker_failure(silent[0], f"ended with exit code {ended[silent[0]].exitcode}")


def _worker_failure(rank: int, what: str) -> Failure:
    return Failure(error=ProcessError.__name__, message=f"process {rank} of the training {what}; {_RESUME}")


if __name__ == "__main__":
    main()
