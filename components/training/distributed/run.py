"""Training in training.processes processes on one or several hosts; the caller waits and receives epochs and failures.

One process trains in the caller. For several, launch.py is started, which starts the workers; all of them end with the
caller.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.errors import ProcessError
from image_finder.components.phases import running_phase
from image_finder.components.progress_bar import progress_bar
from image_finder.components.records.training import EpochRecord
from image_finder.components.training import trainer
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Job
from image_finder.components.training.distributed.ranks import require_gpus
from image_finder.components.training.loop import OnEpoch, epoch_text, pick_device
from image_finder.components.training.trainer import TrainingTask

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_END_TIMEOUT_S = 20.0


def train_checkpoint(task: TrainingTask, *, on_epoch: OnEpoch = lambda _: None) -> Checkpoint:
    """Train like trainer.train_checkpoint, in training.processes processes.

    on_epoch runs in this process, once per epoch. Several processes give the result of one, apart from dropout and
    rounding. The same number of processes resumes after the last finished epoch. Raises what one process raises,
    ConfigError for more processes than GPUs, and ProcessError, naming the worker that failed, after training.restarts
    restarts.
    """
    model, training = task.configs
    if training.processes == 1:
        return trainer.train_checkpoint(task, on_epoch=on_epoch)
    if pick_device(training.device).type == "cuda":
        require_gpus(training.processes // training.hosts)
    data, settings = (task.train_data, task.val_data), task.settings
    job = Job(
        model=model,
        training=training,
        embedding=settings.embedding,
        cache_dir=settings.cache_dir.resolve(),
        progress=settings.progress and running_phase() is None,  # otherwise shown by this process
        roots=(task.train_data.root.resolve(), task.val_data.root.resolve()),
        dataset=task.dataset,
        checkpoint=task.path.resolve(),
    )
    with jobs.new_job(job, data) as folder:
        if training.hosts > 1:
            command = f"{sys.executable} -m image_finder.components.training.distributed.launch {folder}"
            logger.warning("run this on each of the other hosts (%d): %s", training.hosts - 1, command)
        with progress_bar(unit="", shown=settings.progress and running_phase() is not None) as bar:

            def show_epoch(record: EpochRecord) -> None:
                bar.set_description(f"epoch {min(record.epoch + 1, training.epochs)} of {training.epochs}")
                bar.set_postfix_str(epoch_text(record))
                on_epoch(record)

            _run(folder, show_epoch)
    return Checkpoint.open(task.path)


def _run(folder: Path, on_epoch: OnEpoch) -> None:
    last_epoch = 0
    with _launcher(folder) as process:
        running = True
        while running:
            try:
                process.wait(_POLL_S)
                running = False
            except subprocess.TimeoutExpired:
                pass
            for record in jobs.epochs_after(folder, last_epoch):
                on_epoch(record)
                last_epoch = record.epoch
    if process.returncode:
        failure = jobs.launcher_failure(folder)
        if failure is None:
            raise ProcessError(
                f"the training launcher failed with exit code {process.returncode}; see its output above"
            )
        raise failure.as_error()


@contextmanager
def _launcher(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the launcher; closing its standard input ends it and its workers."""
    process = subprocess.Popen(  # noqa: S603 - fixed program
        [sys.executable, "-m", "image_finder.components.training.distributed.launch", str(folder), "--attached"],
        stdin=subprocess.PIPE,
        stdout=2,  # standard output is for results
        start_new_session=True,  # Ctrl-C reaches it through this process only
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
