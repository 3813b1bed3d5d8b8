"""Scheduled retraining: real pipelines in one home, one process per call, alerts to a real receiver."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from image_finder.components.index.index import VectorIndex
from tests.pipeline.kube_api import cluster
from tests.pipeline.scheduled import Scheduled
from tests.support.receivers import http_receiver
from tests.support.small_trunk import write_text_trunk

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
TINY: dict[str, Any] = {
    "split": {"val_fraction": 0.2, "test_fraction": 0.2},
    "model": {
        "embedding_dim": 32,
        "image": {"trunk": "test_efficientnet", "weights": "random", "input_px": 64, "pool_width": 32, "pool_heads": 4},
        "text": {"weights": "hub", "pooling": "mean_end"},  # with the trunk of write_text_trunk
    },
    "training": {"epochs": 1, "batch_images": 16},
    "evaluation": {"min_times_random": 0, "bootstrap_samples": 100},
    "export": {"parity_images": 8},
}


def write_data(folder, empty=0):
    """A COCO folder of 40 coloured images; the first `empty` have blank captions."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    images, annotations = [], []
    for number in range(40):
        colour, name = COLOURS[number % len(COLOURS)], f"{number:012d}.png"
        Image.new("RGB", (64 + number, 64), colour).save(folder / "train" / name)
        images.append({"id": number, "file_name": name, "width": 64 + number, "height": 64})
        for which in range(5):
            text = " " if number < empty else f"a {colour} square of {64 + number} pixels, seen {which} times"
            annotations.append({"id": 5 * number + which, "image_id": number, "caption": text})
    content = {"images": images, "annotations": annotations, "licenses": []}
    (folder / "annotations" / "captions_train.json").write_text(json.dumps(content))
    return folder


def wait_for_children(pid):
    """Wait until a process has children; return their ids."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.02)
    return list(map(int, children))


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrain")
    with http_receiver() as (host, posts):
        made = Scheduled(folder, host, posts)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def first(scheduled):
    """The first retraining; the others detect changes since it."""
    scheduled.data = write_data(scheduled.folder / "data")
    TINY["model"]["text"]["trunk"] = str(write_text_trunk(scheduled.folder / "words"))
    scheduled.training = scheduled.config("training", TINY)
    scheduled.again = ("retrain", "--training", scheduled.training, "--data", scheduled.data, "--if-changed", "--json")
    gallery = ("--indexing", scheduled.config("indexing", {"gallery": {}}), "--gallery", scheduled.data / "train")
    done = scheduled.run(*scheduled.again, *gallery)
    assert done["code"] == 0, done["err"][-4000:]
    return json.loads(done["out"]), scheduled.alert


def test_the_first_retraining_trains_promotes_indexes_and_alerts(scheduled, first):
    outcome, alert = first
    assert outcome["status"] == "promoted"
    assert outcome["changes"]["since"] is None
    assert outcome["decision"]["challenger_version"] == str(scheduled.champion.version) == "1"
    assert outcome["index"]["count"] == 40
    index = VectorIndex.open(scheduled.home / "library" / "index")
    assert index.manifest.bundle_sha256 == scheduled.champion.tags["bundle_sha256"]
    assert alert["type"] == "success"
    assert alert["title"].endswith("version 1 is champion")
    assert "40 images indexed with it" in alert["message"]


def test_an_unchanged_retraining_trains_nothing_but_creates_a_missing_index(scheduled, first):
    (scheduled.home / "library" / "index" / "CURRENT").unlink()  # as after a crash between promotion and indexing
    done = scheduled.run(*scheduled.again)
    assert done["code"] == 0, done["err"][-4000:]
    outcome = json.loads(done["out"])
    assert outcome["status"] == "unchanged"
    assert outcome["changes"] == {"since": "1", "changed": [], "undecided": False}
    assert "train_dual_encoder" not in done["err"]
    assert outcome["index"]["count"] == 40  # from the folder of the last indexing run
    index = VectorIndex.open(scheduled.home / "library" / "index")
    assert index.manifest.bundle_sha256 == scheduled.champion.tags["bundle_sha256"]
    assert scheduled.alert["title"].endswith("nothing changed")
    assert scheduled.ledger()[-2:] == ["skipped", "index"]


def test_broken_data_fail_the_run_and_leave_champion_and_index_unchanged(scheduled, first):
    before = scheduled.state()
    broken = write_data(scheduled.folder / "broken", empty=20)
    done = scheduled.run("retrain", "--training", scheduled.training, "--data", broken, "--if-changed")
    assert done["code"] == 1
    assert "100 of 200 captions" in done["err"].splitlines()[-1]
    assert scheduled.alert["type"] == "failure"
    assert scheduled.alert["title"].endswith("failed")
    assert "100 of 200 captions" in scheduled.alert["message"]
    assert scheduled.state() == before
    assert scheduled.ledger()[-1] == "failed"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--training", "{training}", "--data", "{folder}/gone"), "gone for training does not exist"),
        (("--training", "{folder}/gone.yaml", "--data", "{data}"), "no configuration"),
        (("--training", "{training}", "--data", "{data}", "--gallery", "{folder}/gone"), "gone for indexing does not"),
    ],
)
def test_a_folder_or_configuration_removed_since_scheduling_is_reported(scheduled, first, words, fault):
    before = scheduled.state()
    done = scheduled.run("retrain", *(str(word).format(**vars(scheduled)) for word in words))
    assert done["code"] == 1
    assert fault in done["err"].splitlines()[-1]
    assert fault in scheduled.alert["message"]
    assert scheduled.state() == before


def test_a_retraining_beside_another_ends_with_75_and_alerts(scheduled, first):
    with FileLock(scheduled.home / "run.lock"):
        done = scheduled.run(*scheduled.again)
    assert done["code"] == 75
    assert "another pipeline is running" in done["err"].splitlines()[-1]
    assert scheduled.alert["title"].endswith("was skipped")


def test_a_terminated_or_killed_retraining_is_reported_and_the_next_one_succeeds(scheduled, first):
    before = scheduled.state()
    changed = scheduled.config("changed", {**TINY, "training": {**TINY["training"], "epochs": 2, "seed": 1}})
    words = ["pipeline", "retrain", "--training", str(changed), "--data", str(scheduled.data), "--if-changed", "--json"]
    process = scheduled.begin({"words": words})
    deadline = time.monotonic() + 120
    while "Step `train_dual_encoder` has started" not in Path(process["err"]).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process["pid"], signal.SIGTERM)
    done = scheduled.end()
    assert done["code"] == 143, done["err"][-4000:]
    assert "SIGTERM" in scheduled.alert["message"]
    assert done["err"].splitlines()[-1].startswith("Error: the system ended this run (SIGTERM)")
    assert scheduled.state() == before
    last = scheduled.history()["entries"][-1]
    assert last["kind"] == "failed"
    assert "SIGTERM" in last["reasons"][0]

    process = scheduled.begin({"words": words})
    (child,) = wait_for_children(process["pid"])
    os.kill(child, signal.SIGKILL)  # as the kernel does if memory runs out
    done = scheduled.end()
    assert done["code"] == 1
    assert done["err"].splitlines()[-1].startswith("Error: this run was killed (SIGKILL)")
    assert "SIGKILL" in scheduled.alert["message"]
    assert "SIGKILL" in scheduled.history()["entries"][-1]["reasons"][0]

    done = scheduled.run(*words[1:])
    assert done["code"] == 0, done["err"][-4000:]
    outcome = json.loads(done["out"])
    assert outcome["changes"] == {"since": "1", "changed": ["configuration"], "undecided": False}
    assert outcome["decision"]["challenger_version"] == "2"
    index = VectorIndex.open(scheduled.home / "library" / "index")
    assert index.manifest.bundle_sha256 == scheduled.champion.tags["bundle_sha256"]


@pytest.mark.parametrize(
    ("how", "kind", "title", "text"),
    [
        ("fail", "failure", "image-finder: hooked failed at step end", "100 of 400 captions are empty"),
        ("work", "success", "image-finder: hooked succeeded", "run hooked"),
    ],
)
def test_runs_started_by_an_orchestrator_alert_once_through_zenml_hooks(scheduled, first, how, kind, title, text):
    scheduled.begin({"hooks": how})
    scheduled.end()
    assert scheduled.alert["type"] == kind
    assert scheduled.alert["title"] == title
    assert text in scheduled.alert["message"]


def test_a_stack_without_schedules_is_refused_in_one_line(scheduled, first):
    done = scheduled.schedule("--cron", "30 3 * * 1", "--zone", "UTC", "--training", "demo")
    assert done["code"] == 1
    assert "the local orchestrator of ZenML stack 'image-finder' has no schedules" in done["err"].splitlines()[-1]


def test_kubernetes_gets_a_cron_job_in_an_explicit_zone_that_reads_its_data_again(scheduled, first):
    image = {"parent_image": "registry.example.org/image-finder-pipeline:1", "skip_build": True}
    training = scheduled.config("cluster", TINY, settings={"docker": image})
    words = ("--cron", "30 3 * * MON", "--zone", "Europe/Zurich", "--training", training, "--data", scheduled.data)
    with cluster() as (host, jobs):
        scheduled.schedule(
            *words, "--dry-run", kubernetes=host
        )  # the process that adds a cluster to the stack has the old stack loaded
        done = scheduled.schedule(*words, kubernetes=host)
        assert done["code"] == 0, done["err"][-4000:]
        ((name, job),) = jobs.kept.items()
        assert job["spec"]["schedule"] == "30 3 * * 1"
        assert job["spec"]["timeZone"] == "Europe/Zurich"
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert job["spec"]["startingDeadlineSeconds"] == 3600
        assert "schedule 'image-finder training' on ZenML stack 'image-finder'" in done["out"]

        again = scheduled.schedule(*words, kubernetes=host)
        assert again["code"] == 1
        assert "give --replace" in again["err"].splitlines()[-1]
        replaced = scheduled.schedule(*words, "--replace", kubernetes=host)
        assert replaced["code"] == 0, replaced["err"][-4000:]
        assert len(jobs.kept) == 1
        assert name not in jobs.kept

        jobs.knows_zones = False
        old = scheduled.schedule(*words, "--name", "other", kubernetes=host)
        assert old["code"] == 1
        assert "does not support timeZone" in old["err"].splitlines()[-1]
        assert len(jobs.kept) == 1  # deleted: it would have run in the cluster's time zone
