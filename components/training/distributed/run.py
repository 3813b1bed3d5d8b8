"""Training in as many processes as the config says, on one host or several; the caller's process only waits.

One process: this one. Several: a launcher is started (image_finder.components.training.distributed.launch), which starts the processes
(image_finder.components.training.distributed.worker), and their epochs and their failure are told here. Nothing of it outlives this process.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import ModelConfig, TrainingConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.errors import ProcessError
from image_finder.components.training import trainer
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Job
from image_finder.components.training.distributed.ranks import require_gpus
from image_finder.components.training.loop import OnEpoch, pick_device
from image_finder.components.training.trainer import FeatureSettings

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_END_WITHIN_S = 20.0


def train_checkpoint(
    train_data: CaptionedImages,
    val_data: CaptionedImages,
    configs: tuple[ModelConfig, TrainingConfig],
    settings: FeatureSettings,
    *,
    path: Path,
    dataset: tuple[str, str],
    on_epoch: OnEpoch = lambda _: None,
) -> Checkpoint:
    """As trainer.train_checkpoint, in training.processes processes; on_epoch is told in this one, each epoch once.

    With several the result is that of one process, but for dropout and the order of additions; started again after a
    failure, the same number of processes goes on after the last finished epoch. Raises what one process raises,
    ConfigError for more processes than GPUs, and ProcessError, naming the process that died, after training.restarts
    attempts to go on.
    """
    model, training = configs
    if training.processes == 1:
        return trainer.train_checkpoint(
            train_data, val_data, configs, settings, path=path, dataset=dataset, on_epoch=on_epoch
        )
    if pick_device(training.device).type == "cuda":
        require_gpus(training.processes // training.hosts)
    job = Job(
        model=model,
        training=training,
        embedding=settings.embedding,
        cache_dir=settings.cache_dir.resolve(),
        progress=settings.progress,
        roots=(train_data.root.resolve(), val_data.root.resolve()),
        dataset=dataset,
        checkpoint=path.resolve(),
    )
    with jobs.new_job(job, (train_data, val_data)) as folder:
        if training.hosts > 1:
            command = f"{sys.executable} -m image_finder.components.training.distributed.launch {folder}"
            logger.warning("each of the other %d hosts is to run: %s", training.hosts - 1, command)
        _run(folder, on_epoch)
    return Checkpoint.open(path)


def _run(folder: Path, on_epoch: OnEpoch) -> None:
    told = 0
    with _launcher(folder) as process:
        running = True
        while running:
            try:
                process.wait(_LOOK_EVERY_S)
                running = False
            except subprocess.TimeoutExpired:
                pass
            for record in jobs.epochs_after(folder, told):
                on_epoch(record)
                told = record.epoch
    if process.returncode:
        failure = jobs.failure_of_all(folder)
        raise (
            failure.as_error()
            if failure
            else ProcessError(
                f"the launcher of the training ended with exit code {process.returncode}; what it said stands above"
            )
        )


@contextmanager
def _launcher(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The launcher as a child whose standard input is its lifeline; afterwards it and its processes are gone."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "image_finder.components.training.distributed.launch", str(folder), "--attached"],
        stdin=subprocess.PIPE,
        stdout=2,  # standard output is for results
        start_new_session=True,  # Ctrl-C ends it by way of this process
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
