"""A month of scheduled retraining on demo scenes, run by run; a server answers searches from the first day to the last.

One home, real ZenML, MLflow and towers. What runs is what `pipeline schedule` wrote into the systemd unit, each time a
process; the images and captions in the data folder change between the runs, as they do in life.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from image_finder.components.demo.data_set import compose_demo
from image_finder.components.index.index import VectorIndex
from tests.pipeline.scheduled import Scheduled
from tests.support.checkout import CHECKOUT
from tests.support.receivers import http_receiver
from tests.support.small_trunk import write_text_trunk

pytestmark = pytest.mark.slow

MODEL = "image-finder"
SCENES, TEST_FROM = 320, 241  # the images from TEST_FROM on are the test of every run, never trained on
CONFIG: dict[str, Any] = {
    "dataset": {
        "name": "month",
        "layout": "coco",
        "parts": {
            "train": {"annotations": "annotations/captions_train.json", "images": "images"},
            "test": {"annotations": "annotations/captions_test.json", "images": "images"},
        },
    },
    "split": {"val_fraction": 0.1},
    "model": {
        "embedding_dim": 64,
        "projection": "mlp",
        "image": {"input_px": 128, "pool_width": 64, "pool_heads": 4},
        "text": {"weights": "hub", "pooling": "mean"},  # with the trunk of write_text_trunk: exported in seconds
    },
    "training": {"epochs": 8, "batch_images": 32, "device": "cpu"},
    "evaluation": {"min_times_random": 0, "bootstrap_samples": 200},
    "export": {"parity_images": 8},
    "registry": {"promotion": {"min_gain": 0.01}},
    "drift": {"min_images": 20, "permutations": 899},
    "embedding": {"device": "cpu", "threads": 1},
}
TRAINING_STAGES = (
    "ingest_captions", "validate_captions", "require_valid", "split_captions", "log_data_sets", "measure_drift",
    "require_no_drift", "extract_features", "train_dual_encoder", "evaluate_retrieval", "require_quality", "export_bundle",
    "measure_parity", "require_parity", "make_drift_reference", "register_bundle", "promote_bundle",
)  # fmt: skip
INDEXING_STAGES = ("load_champion", "embed_gallery", "publish_index")


class Month:
    """The home, its data folder, and the commands that systemd would start there."""

    def __init__(self, folder, host, posts):
        self.finder = Scheduled(folder, host, posts)
        self.folder, self.home, self.data = folder, folder / "home", folder / "data"
        self._scenes = json.loads((folder / "scenes" / "annotations" / "captions.json").read_text())
        shutil.copytree(folder / "scenes" / "images", self.data / "images")
        self.captions("test", range(TEST_FROM, SCENES + 1))
        self.titles = []

    def captions(self, part, identities, change=lambda text, _: text):
        """Write a part: the scenes of these ids; change(caption, captions of the next scene) is what they are given."""
        identities = set(identities)
        images = [image for image in self._scenes["images"] if image["id"] in identities]
        of_image = {image["id"]: [] for image in images}
        for each in self._scenes["annotations"]:
            if each["image_id"] in identities:
                of_image[each["image_id"]].append(each)
        following = [*images[1:], images[0]]
        annotations = [
            {**each, "caption": change(each["caption"], [other["caption"] for other in of_image[after["id"]]])}
            for image, after in zip(images, following, strict=True)
            for each in of_image[image["id"]]
        ]
        path = self.data / "annotations" / f"captions_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "licenses": []}))

    def put_on_schedule(self):
        """Have the units written; from now on `run` does what the timer does."""
        text = {**CONFIG["model"]["text"], "trunk": str(write_text_trunk(self.folder / "words"))}
        training = self.finder.config("training", {**CONFIG, "model": {**CONFIG["model"], "text": text}})
        gallery = self.finder.config("gallery", {"gallery": {}})
        words = ("--training", training, "--data", self.data, "--indexing", gallery, "--gallery", self.data / "images")
        done = self.finder.run("schedule", "--cron", "30 3 * * 1,4", "--zone", "Europe/Zurich", *words, "--json")
        assert done["code"] == 0, done["err"][-2000:]
        written = json.loads(done["out"])
        units = {Path(path).suffix: text for path, text in written["files"].items() if "-died" not in path}
        (died,) = (text for path, text in written["files"].items() if "-died" in path)
        self._retrain, self._died = started_by(units[".service"]), started_by(died)
        assert "OnCalendar=Mon,Thu *-*-* 03:30:00 Europe/Zurich" in units[".timer"]

    def run(self, *, code=0):
        """A run of the timer, to its end; what it alerted."""
        self.finder.begin({"words": self._retrain, "home": False})
        done = self.finder.end()
        assert done["code"] == code, done["err"][-4000:]
        return self._told(done)

    def run_killed_at(self, stage):
        """A run of the timer whose process is killed as soon as a stage has started."""
        process = self.finder.begin({"words": self._retrain, "home": False})
        deadline = time.monotonic() + 180
        while f"Step `{stage}` has started" not in Path(process["err"]).read_text():
            assert time.monotonic() < deadline, Path(process["err"]).read_text()[-3000:]
            time.sleep(0.02)
        os.kill(process["pid"], signal.SIGKILL)
        assert self.finder.end()["code"] == -signal.SIGKILL

    def died(self):
        """What systemd starts when a run was killed; what it alerted."""
        environment = {"MONITOR_SERVICE_RESULT": "signal", "MONITOR_EXIT_STATUS": "KILL"}
        self.finder.begin({"words": self._died, "set": environment, "home": False})
        return self._told(self.finder.end())

    def models(self, *words):
        done = self.finder.models(*words)
        assert done["code"] == 0, done["err"][-4000:]
        return done["out"]

    def state(self):
        return self.finder.state()

    def _told(self, done):
        self.titles.append(re.sub(r"^image-finder: retraining on \S+ ?:? ?", "", self.finder.alert["title"]))
        return self.finder.alert["message"], done


def started_by(unit):
    """Words of the command a systemd unit starts, without the program. Its paths hold nothing that systemd escapes."""
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=:"))
    words = shlex.split(command.removeprefix("ExecStart=:"))
    first = words.index("pipeline")
    assert "image-finder" in words[0] or "image_finder" in words[:first]
    return words[first:]


class Searcher(threading.Thread):
    """Somebody who searches ten times a second, and what was answered: a model and a generation at each time."""

    def __init__(self, address):
        super().__init__()
        self._address, self._ended = address, threading.Event()
        self.answers, self.faults = [], []

    def run(self):
        while not self._ended.wait(0.1):
            try:
                with urllib.request.urlopen(
                    f"{self._address}/api/v1/search?q=a+fox+in+the+forest&k=3", timeout=30
                ) as got:
                    answer = json.load(got)
                assert len(answer["hits"]) == 3
                self.answers.append((answer["bundle"], answer["generation"]))
            except (OSError, ValueError, AssertionError) as error:
                self.faults.append(repr(error))

    def end(self):
        self._ended.set()
        self.join()


@contextlib.contextmanager
def searching(home, folder):
    """`image-finder serve` on the home's index, and somebody who searches all the time."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_"))}
    log = folder / "serve.jsonl"
    command = [sys.executable, "-m", "image_finder", "serve", "--index", str(home / "library" / "index"), "--port", "0"]
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [*command, "--threads", "1"], env={**environment, "PYTHONPATH": str(CHECKOUT)}, cwd="/", stderr=stream
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.1)
            searcher = Searcher(found.group())
            searcher.start()
            try:
                yield searcher
            finally:
                searcher.end()
        finally:
            server.terminate()


@pytest.fixture
def month(tmp_path):
    compose_demo(tmp_path / "scenes", n_images=SCENES, seed=0)
    with http_receiver() as (host, posts):
        made = Month(tmp_path, host, posts)
        try:
            yield made
        finally:
            made.finder.close()


def bundle_of(client, version):
    """Identity of a version's model, as searches report it."""
    return client.get_model_version(MODEL, version).tags["bundle_sha256"][:16]


def test_a_month_of_scheduled_retraining_is_recorded_in_ledger_and_store_while_searches_are_answered(month):
    began = datetime.now(UTC)
    client = MlflowClient(f"sqlite:///{month.home / 'mlflow.db'}")
    month.captions("train", range(1, 31))
    month.put_on_schedule()

    # Monday, week 1: the first model
    message, _ = month.run()
    assert "first champion" in message
    assert f"{SCENES} images indexed with it" in message

    with searching(month.home, month.folder) as searcher:
        # Thursday: nothing has changed
        _, done = month.run()
        assert "Step `train_dual_encoder` has started" not in done["err"]
        first = month.state()

        # Monday, week 2: four times the images
        month.captions("train", range(1, 121))
        message, _ = month.run()
        assert "data changed since version 1" in message
        assert month.state()[0] == "2" != first[0]

        # Thursday: somebody has mixed up the captions
        month.captions("train", range(1, 121), change=lambda _, others: others[0])
        second = month.state()
        message, _ = month.run()
        assert "gain" in message
        assert month.state() == second

        # Monday, week 3: captions were lost
        month.captions("train", range(1, 121), change=lambda text, _: text if "a" in text[:1] else "")
        message, _ = month.run(code=1)
        assert "captions" in message
        assert month.state() == second

        # Thursday: twice the images, and a machine that dies at every stage
        month.captions("train", range(1, TEST_FROM))
        for stage in TRAINING_STAGES:
            month.run_killed_at(stage)
            assert month.state() == second, stage
        message, _ = month.died()
        assert "KILL" in message
        for stage in INDEXING_STAGES:
            month.run_killed_at(stage)
            assert month.state() == ("4", second[1]), stage  # the index of the old one until the new one is whole
        month.run()
        fourth = month.state()
        assert fourth[0] == "4"
        assert fourth[1] != second[1]

        # Friday: a person wants the third version, and goes back a day later
        month.models("promote", "3", "--force", "--reason", "the fair needs its words")
        assert month.state()[0] == "3"
        month.models("rollback", "--reason", "the fair is over")
        assert month.state() == fourth

        # Monday, week 4: nothing has changed
        month.run()
        assert month.state() == fourth

    assert searcher.faults == []
    assert len(searcher.answers) > 100

    # Alerts that people received
    assert month.titles == [
        "version 1 is champion", "nothing changed", "version 2 is champion", "version 3 was not promoted", "failed",
        "was killed", "nothing changed", "nothing changed",
    ]  # fmt: skip

    # The ledger holds exactly these events
    exported = month.finder.history()
    assert exported["faults"] == exported["notes"] == []
    story = [(entry["kind"], entry["from_version"], entry["to_version"]) for entry in exported["entries"]]
    assert story == [
        ("registered", None, "1"), ("decision", None, "1"), ("moving", None, "1"), ("moved", None, "1"),
        ("index", None, "1"), ("skipped", None, None),
        ("registered", "1", "2"), ("decision", "1", "2"), ("moving", "1", "2"), ("moved", "1", "2"), ("index", "1", "2"),
        ("registered", "2", "3"), ("decision", "2", "3"), ("failed", None, None),
        ("registered", "3", "4"), ("decision", "2", "4"), ("moving", "2", "4"), ("moved", "2", "4"),
        *[("skipped", None, None)] * 3, ("index", "2", "4"),
        ("decision", "4", "3"), ("moving", "4", "3"), ("forced", "4", "3"), ("index", "4", "3"),
        ("moving", "3", "4"), ("rollback", "3", "4"), ("index", "3", "4"), ("skipped", None, None),
    ]  # fmt: skip
    assert all(began <= datetime.fromisoformat(entry["at"]) <= datetime.now(UTC) for entry in exported["entries"])
    forced = next(entry for entry in exported["entries"] if entry["kind"] == "forced")
    assert forced["reasons"][0] == "forced: the fair needs its words"
    assert "by the rule it would not have been" in forced["reasons"][1]
    assert "gain -" in forced["reasons"][1]

    # So does the store
    versions = {str(each.version): each for each in client.search_model_versions(f"name='{MODEL}'")}
    assert sorted(versions) == ["1", "2", "3", "4"]
    aliases = client.get_registered_model(MODEL).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {
        "champion": "4",
        "previous": "3",
        "challenger": "4",
    }
    assert len({each.tags["data_version"] for each in versions.values()}) == 4
    recalls = {version: float(each.tags["mean_recall"]) for version, each in versions.items()}
    assert recalls["1"] < recalls["2"] < recalls["4"]
    assert recalls["3"] < recalls["2"]
    experiment = client.get_experiment_by_name("image-finder")
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    of_versions = {each.run_id for each in versions.values()}
    statuses = {run.info.run_id: run.info.status for run in runs}
    registered_then_killed = versions["4"].run_id  # ZenML ends a run with each step: killed between two it is finished
    assert {statuses[each] for each in of_versions - {registered_then_killed}} == {"FINISHED"}
    assert statuses[registered_then_killed] in {"FINISHED", "KILLED"}
    counted = Counter(statuses.values())
    assert counted["FAILED"] >= 1
    assert counted["RUNNING"] == 0, "the next run reported to MLflow those that were killed"

    # And what searches were answered with is the champion of the ledger at that time
    seen = [bundle for bundle, _ in searcher.answers]
    order = [bundle for at, bundle in enumerate(seen) if at == 0 or seen[at - 1] != bundle]
    assert order == [bundle_of(client, version) for version in ("1", "2", "4", "3", "4")]
    index = VectorIndex.open(month.home / "library" / "index")
    assert index.manifest.bundle_sha256.startswith(bundle_of(client, "4"))
    assert index.manifest.count == SCENES
