"""Training started in several processes: epochs and the checkpoint come back, a killed process is made up for or named."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import psutil
import pytest
import torch
from safetensors.torch import load_file

from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.errors import ConfigError, DataError, ProcessError, StorageError
from image_finder.components.records.training import EpochRecord
from image_finder.components.training import trainer
from image_finder.components.training.distributed import job as jobs
from image_finder.components.training.distributed.job import Failure
from image_finder.components.training.distributed.launch import first_failure, wait_for_job
from image_finder.components.training.distributed.run import train_checkpoint
from image_finder.components.training.trainer import FeatureSettings, TrainingTask
from tests.support.checkout import CHECKOUT

# Loaded by every Python that starts with this folder on its path: kills process 1 of the first attempt in mid-training.
KILLER = """
import os, pathlib, signal, threading, time

def kill():
    while not list(pathlib.Path({cache!r}).glob("training/*/epoch-0002/progress.json")):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    threading.Thread(target=kill, daemon=True).start()
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def configs(tiny_model, *, image=None, **training):
    values = {"batch_images": 9, "device": "cpu", "head_rate": 0.003, "processes": 2, "wait_s": 60, **training}
    model = {**tiny_model, "image": {**tiny_model["image"], **(image or {})}}
    return ModelConfig.parse(model), TrainingConfig.parse(values)


def settings_of(folder):
    return FeatureSettings(folder, EmbeddingConfig(device="cpu", batch_images=8))


def descendants():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_every_epoch_reported_once(scenes, tiny_model, tmp_path, monkeypatch):
    cache, before = tmp_path / "cache", descendants()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "sitecustomize.py").write_text(KILLER.format(cache=str(cache)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    records = []
    checkpoint = train_checkpoint(
        TrainingTask(
            scenes,
            scenes,
            configs(tiny_model, epochs=12, restarts=1),
            settings_of(cache),
            path=tmp_path / "c",
            dataset=("scenes", "v1"),
        ),
        on_epoch=records.append,
    )
    assert [record.epoch for record in records] == list(range(1, 13))
    assert tuple(records) == checkpoint.manifest.history
    assert records[-1].loss < records[0].loss
    assert descendants() == before
    assert list((cache / "training-jobs").iterdir()) == []
    assert list((tmp_path / "temporary").glob("torchelastic_*")) == []
    states = list((cache / "training").glob("*/epoch-*"))
    assert [state.name for state in states] == ["epoch-0012"]
    kept, saved = load_file(checkpoint.path / "model.safetensors"), load_file(states[0] / "model.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in saved)


@pytest.mark.slow
def test_an_error_of_one_process_is_that_of_the_run_and_is_not_tried_again(scenes, tiny_model, tmp_path, capfd):
    for name in scenes.images["file_name"]:
        (tmp_path / name).write_bytes((scenes.root / name).read_bytes())
    (tmp_path / "107.png").write_bytes(b"broken since")
    before = descendants()
    with pytest.raises(
        DataError, match=r"^process [01]: \S*107.png: [^\n]*; the image was readable when it was valid[^\n]*$"
    ):
        train_checkpoint(
            TrainingTask(
                dataclasses.replace(scenes, root=tmp_path),
                scenes,
                configs(tiny_model, image={"trained_stages": "all"}, loader_workers=1, restarts=3),
                settings_of(tmp_path / "cache"),
                path=tmp_path / "c",
                dataset=("scenes", "v1"),
            )
        )
    assert descendants() == before
    assert not (tmp_path / "c").exists()
    assert capfd.readouterr().err.count("the image was readable when it was validated") <= 3, (
        "two processes, the launcher"
    )


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train_on_one_host(scenes, tiny_model, folder):
    """The checkpoint of two processes that no launcher started."""
    table = {
        "captions": scenes.captions.to_dict("records"),
        "images": scenes.images.to_dict("records"),
        "root": str(scenes.root),
    }
    model, training = (config.model_dump(mode="json") for config in configs(tiny_model, epochs=1))
    places = {"cache": str(folder / "cache"), "out": str(folder / "out"), "checkpoint": str(folder / "checkpoint")}
    scenario = {"do": "train", "world": 2, "train": table, "val": table, "model": model, "training": training, **places}
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps([scenario]))
    script = CHECKOUT / "tests/support/rank_children.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, str(script), str(folder / "spec.json")], check=True, env=environment, timeout=300)
    return folder / "checkpoint"


@pytest.mark.slow
def test_two_hosts_whose_launchers_start_at_different_times_train_as_one_does(scenes, tiny_model, tmp_path, free_port):
    before = descendants()
    folder = tmp_path / "two" / "training-jobs" / f"job-localhost-{free_port}"
    command = [
        sys.executable,
        "-m",
        "image_finder.components.training.distributed.launch",
        str(folder),
        "--within",
        "60",
    ]
    other = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    checkpoint = train_checkpoint(
        TrainingTask(
            scenes,
            scenes,
            configs(tiny_model, epochs=1, hosts=2, rendezvous=f"localhost:{free_port}"),
            settings_of(tmp_path / "two"),
            path=tmp_path / "two-checkpoint",
            dataset=("scenes", "v1"),
        )
    )
    said = other.communicate(timeout=60)[1]
    assert other.returncode == 0, said
    assert not folder.exists()
    assert descendants() == before
    two = load_file(checkpoint.path / "model.safetensors")
    one = load_file(train_on_one_host(scenes, tiny_model, tmp_path / "one") / "model.safetensors")
    assert two.keys() == one.keys()
    assert all(torch.equal(two[name], one[name]) for name in one)


def test_one_process_trains_here(scenes, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    records = []
    checkpoint = train_checkpoint(
        TrainingTask(
            scenes,
            scenes,
            configs(tiny_model, epochs=2, processes=1),
            settings_of(tmp_path),
            path=tmp_path / "c",
            dataset=("scenes", "v1"),
        ),
        on_epoch=records.append,
    )
    assert tuple(records) == checkpoint.manifest.history


def test_more_processes_than_gpus_are_refused(scenes, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"^training.processes: 2 on this host, which has 1 GPU; set at most one"):
        train_checkpoint(
            TrainingTask(
                scenes,
                scenes,
                configs(tiny_model, device="cuda"),
                settings_of(tmp_path),
                path=tmp_path / "c",
                dataset=("scenes", "v1"),
            )
        )


def test_a_batch_that_cannot_be_shared_is_refused(tiny_assembled):
    from image_finder.components.training.distributed.ranks import Ranks
    from image_finder.components.training.loop import _require_shares

    config = TrainingConfig(processes=4, batch_images=4)
    _require_shares(8, config, Ranks(0, 4))
    with pytest.raises(ConfigError, match=r"^training.processes \(4\) is above the 3 images of the smallest batch"):
        _require_shares(9, config, Ranks(0, 4))


def test_how_a_training_runs_is_no_part_of_what_it_is(scenes, tiny_model):
    def identity(**training):
        return trainer._identity(scenes, scenes, configs(tiny_model, **training))

    assert identity(restarts=7, wait_s=99, rendezvous="here:1") == identity()
    assert identity(processes=3) != identity()


@dataclass
class Ended:
    exitcode: int
    timestamp: int = 100


def failed_with(rank, error, message="why"):
    return Failure(error=error, message=message, rank=rank)


LOST = "ProcessError"
CAUSES = {
    "killed, the other lost it": (
        {1: Ended(-9), 0: Ended(1)},
        [failed_with(0, LOST)],
        "process 1 .* was ended by SIGKILL \\(probably",
    ),
    "crashed, the other was ended": ({0: Ended(-11), 1: Ended(-15)}, [], "process 0 .* was ended by SIGSEGV;"),
    "asked to end from outside": (
        {1: Ended(-15), 0: Ended(1)},
        [failed_with(0, LOST)],
        "process 1 .* was ended by SIGTERM",
    ),
    "raised, the other was ended": (
        {1: Ended(1), 0: Ended(-15)},
        [failed_with(1, "", "KeyError: 3")],
        "process 1 .*: KeyError: 3;",
    ),
    "exited, the other was ended": ({1: Ended(7), 0: Ended(-15)}, [], "process 1 .* ended with exit code 7;"),
    "stopped, killed for not ending": (
        {0: Ended(1), 1: Ended(-9, 106)},
        [failed_with(0, LOST, "silent")],
        "process 0 .*: silent;",
    ),
    "on another host": (
        {0: Ended(1)},
        [failed_with(0, LOST), failed_with(5, "", "OSError: x")],
        "process 5 .*: OSError: x;",
    ),
    "refused": ({0: Ended(1), 1: Ended(-9)}, [failed_with(0, "DataError", "bad")], "process 0: bad$"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_process_that_failed_first_is_named(name):
    ended, words, expected = CAUSES[name]
    failure = first_failure(ended, words)
    with pytest.raises(DataError if name == "refused" else ProcessError, match=f"^{expected}"):
        raise failure.as_error()
    assert failure.final == (name == "refused")
    assert name == "refused" or failure.message.endswith("; start it again: it resumes after the last finished epoch")


@pytest.fixture
def job(scenes, tiny_model, tmp_path):
    model, training = configs(tiny_model)
    return jobs.Job(
        model=model,
        training=training,
        embedding=EmbeddingConfig(),
        cache_dir=tmp_path,
        progress=False,
        roots=(scenes.root, scenes.root),
        dataset=("scenes", "v1"),
        checkpoint=tmp_path / "c",
    )


def test_a_job_reads_back_as_the_same_training(job, scenes):
    with jobs.new_job(job, (scenes, scenes.first_captions(1))) as folder:
        found = jobs.read_job(folder)
        data = jobs.read_task(folder, found)[:2]
    assert found == job
    pair = (scenes, scenes.first_captions(1))
    assert trainer._identity(*data, (found.model, found.training)) == trainer._identity(
        *pair, (job.model, job.training)
    )
    assert not folder.exists()


def test_jobs_of_killed_programs_are_swept_and_those_of_others_kept(job, scenes):
    left = job.cache_dir / "training-jobs" / "job-left"
    left.mkdir(parents=True)
    (left / "running.lock").touch()
    with jobs.new_job(job, (scenes, scenes)) as folder, jobs.new_job(job, (scenes, scenes)) as other:
        assert not left.exists()
        assert (folder / "job.json").exists()
        assert (other / "job.json").exists()


def of_two_hosts(job, port):
    values = {**job.training.model_dump(), "hosts": 2, "rendezvous": f"localhost:{port}"}
    return job.model_copy(update={"training": TrainingConfig.parse(values)})


def test_a_job_of_several_hosts_is_where_they_expect_it_and_there_is_one_at_a_time(job, scenes, free_port):
    several = of_two_hosts(job, free_port)
    left = job.cache_dir / "training-jobs" / f"job-localhost-{free_port}"
    left.mkdir(parents=True)
    (left / "epochs.jsonl").write_text("of a killed program")
    with jobs.new_job(several, (scenes, scenes)) as folder:
        assert folder == left
        assert jobs.epochs_after(folder, 0) == []
        with pytest.raises(
            ConfigError, match=rf"^training.rendezvous \(localhost:{free_port}\): another training uses it"
        ):
            jobs.new_job(several, (scenes, scenes)).__enter__()
        assert jobs.read_job(folder) == several


def test_a_launcher_waits_for_the_job_and_for_its_host_but_not_for_ever(job, scenes, tmp_path, free_port):
    with pytest.raises(StorageError, match=r"job.json cannot be read: No such file"):
        wait_for_job(tmp_path / "nowhere", 0)
    several = of_two_hosts(job, free_port)
    with jobs.new_job(several, (scenes, scenes)) as folder:
        with pytest.raises(
            ProcessError,
            match=rf"^the host of the training step did not answer at localhost:{free_port} within 0.1 s: ",
        ):
            wait_for_job(folder, 0.1)
        with socket.create_server(("127.0.0.1", free_port)):
            assert wait_for_job(folder, 0) == several
    with jobs.new_job(job, (scenes, scenes)) as folder, pytest.raises(ConfigError, match=r"a job of one host"):
        wait_for_job(folder, 60)


def test_epochs_reported_twice_or_partly_are_read_once_and_complete(tmp_path):
    def record(epoch):
        return EpochRecord(
            epoch=epoch,
            loss=1 / 3,
            head_rate=0.1,
            trunk_rate=0.1,
            logit_scale=14,
            images_per_s=1,
            seconds=1,
            val_recall={"t2i_r1": 0.1},
            val_mean_recall=0.1,
        )

    assert jobs.epochs_after(tmp_path, 0) == []
    for epoch in (1, 2, 1, 2, 3):
        jobs.add_epoch(tmp_path, record(epoch))
    with (tmp_path / "epochs.jsonl").open("a") as stream:
        stream.write('{"epoch": 4, "lo')
    assert jobs.epochs_after(tmp_path, 1) == [record(2), record(3)]


def test_a_folder_that_is_not_there_is_said_to_be_not_shared(tmp_path):
    with pytest.raises(
        StorageError, match=r"job.json cannot be read: No such file[^\n]*; the directory must be on a file s"
    ):
        jobs.read_job(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(StorageError, match=r"^\S+job.json is not a training job of this version: model: "):
        jobs.read_job(tmp_path)
