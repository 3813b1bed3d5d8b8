"""`image-finder models` on a home with three measured versions, a ledger and an index: what a person types and reads."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.cli import main
from image_finder.components.configs import (
    EvaluationConfig,
    GalleryConfig,
    PromotionConfig,
    SplitConfig,
)
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.index.index import VectorIndex
from image_finder.components.index.publish import current_bundle_sha256, publish_bundle
from image_finder.components.metrics.comparison import StoredMeasurement
from image_finder.components.records.data import DatasetManifest
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.components.search.finder import Finder
from image_finder.model_registry import lineage, names, tracking
from image_finder.model_registry.decision import Challenger, measure_and_decide
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registration import Evidence, register_bundle
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import Reports
from tests.support.checkout import CHECKOUT
from tests.support.galleries import publish_gallery
from tests.support.tiny_bundle import BAD, FAIR, GOOD, PARITY, VALIDATION, draw_images, write_tiny_bundle

MODEL = "finder"
MANIFEST = DatasetManifest(
    name="scratch", layout="coco", root="/data", n_images=17, n_captions=17, n_images_of_part={"test": 17},
    annotations_sha256={"test": "a" * 64}, images_sha256="b" * 64, mean_caption_characters=60.0, unreadable_images=0,
)  # fmt: skip


class Place:
    """A home with a registry; versions 1 fair, 2 good, 3 bad, each decided on when it came."""

    def __init__(self, root, template):
        self.home, self.uri = root / "home", f"sqlite:///{root}/home/mlflow.db"
        self.home.mkdir()
        shutil.copyfile(template, self.home / "mlflow.db")
        self.root, self.images = root, draw_images(root / "images")
        self.promotions = Promotions(Registry(self.uri), actor="run of the test", home=self.home)
        self.bundles = {}

    def train(self, tables):
        """What a training run leaves, without the training."""
        version = str(len(self.bundles) + 1)
        bundle = self.bundles[version] = write_tiny_bundle(self.root / f"bundle{version}", **tables)
        measured = self.measured(bundle)
        with mlflow.start_run(run_name=f"training-scratch-{version}"):
            tracking.log_record(PARITY, names.PARITY_ARTIFACT)
            mlflow.log_text(StoredMeasurement.of(measured).model_dump_json(), names.MEASURED_ARTIFACT)
            origin = lineage.of_run(
                "c" * 64,
                data_fingerprint="d" * 64,
                hardware="2 cores",
                run_name=tracking.run_name(),
                split=SplitConfig(),
            )
            evidence = Evidence(
                report=measured.measurement.report, card=f"# Card {version}", manifest=MANIFEST, validation=VALIDATION
            )
            registered = register_bundle(Registry.of_step(), bundle, MODEL, origin, evidence)
        measure_and_decide(
            self.promotions,
            Challenger(MODEL, registered.version, bundle),
            self.measured,
            reports=Reports(VALIDATION, PARITY),
            config=PromotionConfig(min_mean_recall=0.1),
            folder=self.root / f"comparison{version}",
        )

    def measured(self, bundle):
        return measure_bundle(
            bundle,
            self.images,
            EvaluationConfig(ks=(1, 5, 10), bootstrap_samples=200),
            identity=EvaluatedOn(dataset="scratch", data_version="0123456789ab", split="test"),
            code_sha256="c" * 64,
        )

    def index(self, version):
        """Index the images with a version and publish that."""
        bundle = self.bundles[version]
        publish_gallery(GalleryConfig(root=self.root / "images"), bundle, self.home / "library")
        publish_bundle(bundle, self.home / "bundles")

    def run(self, *arguments, home=None):
        """Exit code, stdout and stderr of a command."""
        place = ["--home", str(home or self.home), "--mlflow-uri", self.uri]
        done = CliRunner().invoke(main, ["models", *arguments, *place])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    def champion(self):
        return self.promotions.registry.aliases(MODEL).get(names.CHAMPION)

    def searched_with(self):
        """The version that searches answer with."""
        return self.promotions.registry.version_of_bundle(MODEL, current_bundle_sha256(self.home / "library" / "index"))

    def told(self):
        return [entry.kind for entry in self.promotions.history(MODEL).entries]


@pytest.fixture(scope="module")
def place(mlflow_template, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    before, folder = mlflow.get_tracking_uri(), Path.cwd()
    os.chdir(root)
    made = Place(root, mlflow_template)
    client = made.promotions.registry.client
    experiment = client.create_experiment("image-finder", (made.home / "mlartifacts").as_uri())
    mlflow.set_tracking_uri(made.uri)
    mlflow.set_experiment(experiment_id=experiment)
    made.train(FAIR)
    made.index("1")
    made.train(GOOD)
    made.index("2")
    made.train(BAD)
    mlflow.set_tracking_uri("")  # as ZenML leaves it
    yield made
    mlflow.set_tracking_uri(before)
    os.chdir(folder)


def test_list_shows_aliases_recall_data_and_the_last_event(place):
    code, out, _ = place.run("list")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:2] == ["version", "aliases"]
    assert [line.split()[:2] for line in lines[1:]] == [["3", "challenger"], ["2", "champion"], ["1", "previous"]]
    assert "scratch 0123456789ab" in lines[2]
    assert "v2 promoted over v1, gain +" in lines[2]
    assert "v3 not promoted, v2 stays" in lines[1]


def test_from_a_data_version_to_its_models_and_back(place):
    code, out, _ = place.run("list", "--data", "0123", "--json")
    assert [(each["version"], each["tags"]["data_version"]) for each in json.loads(out)] == [
        (version, "0123456789ab") for version in "321"
    ]
    code, _, err = place.run("list", "--data", "ffff")
    assert code == 1
    assert "no version of 'finder' was trained on data ffff; known data versions: 0123456789ab" in err
    code, out, _ = place.run("show", "champion", "--json")
    shown = json.loads(out)
    assert shown["version"]["version"] == "2"
    assert shown["manifest"] == MANIFEST.model_dump(mode="json")
    assert shown["validation"]["success"] is True
    assert shown["lineage"]["configs"]["split"] == SplitConfig().model_dump(mode="json")
    assert any(each.startswith("mlflow==") for each in shown["lineage"]["environment"])
    tags = shown["version"]["tags"]
    assert (tags["hardware"], tags["seeds"], tags["run_name"]) == ("2 cores", "split.seed 0", "training-scratch-2")
    assert (tags["validation"], tags["parent_champion"]) == ("passed, 17 of 17 captions", "none")
    # the last two are version 3's: challenger went from 2 to 3, and 3 was compared with 2
    story = ["registered", "decision", "moving", "moved", "registered", "decision"]
    assert [entry["kind"] for entry in shown["ledger"]] == story


def test_show_is_readable_and_prints_the_card_as_it_was_registered(place):
    code, out, _ = place.run("show", "2")
    assert code == 0
    assert out.startswith("finder version 2 (champion), registered ")
    assert "data fingerprint" in out
    assert "text to image" in out
    assert "v2 promoted over v1" in out
    assert place.run("show", "2", "--card")[1] == "# Card 2\n"
    code, _, err = place.run("show", "9")
    assert code == 1
    assert "model 'finder' has no version or alias '9'" in err


def test_compare_stands_both_reports_side_by_side_with_intervals_and_the_paired_gain(place):
    code, out, _ = place.run("compare", "champion", "previous")
    assert code == 0
    assert out.splitlines()[0].split() == ["version", "2", "version", "1", "difference"]
    good, fair = (place.promotions.registry.report_of(MODEL, version) for version in "21")
    line = next(line for line in out.splitlines() if line.startswith("mean recall"))
    assert f"{100 * good.mean_recall:.1f} % [{100 * good.mean_recall_interval.low:.1f}, " in line
    assert line.endswith(f"{100 * (good.mean_recall - fair.mean_recall):+.1f}")
    last = out.splitlines()[-1]
    assert last.startswith("Query by query, version 2 against 1: mean recall +")
    values = json.loads(place.run("compare", "2", "1", "--json")[1])
    assert values["comparison"]["gain"] == pytest.approx(good.mean_recall - fair.mean_recall)
    assert values["second"]["report"] == fair.model_dump(mode="json")


def test_a_worse_version_is_not_promoted_without_force_and_the_refusal_is_on_record(place):
    before = place.told()
    code, _, err = place.run("promote", "3", "--reason", "I like it")
    assert code == 1
    assert "version 3 of 'finder' is not promoted: " in err
    assert "gain -" in err
    assert "image-finder models promote 3 --force --reason" in err
    assert (place.champion(), place.searched_with()) == ("2", "2")
    assert place.told() == [*before, "decision"]
    assert place.promotions.history(MODEL).entries[-1].reasons[-1] == "asked for: I like it"
    code, _, err = place.run("promote", "3", "--force")
    assert code == 2
    assert "--force requires --reason" in err


def test_a_rollback_brings_back_model_and_index_and_only_a_person_undoes_it(place):
    code, out, _ = place.run("rollback", "--reason", "wrong colours")
    assert code == 0
    assert out.splitlines()[0] == "finder version 1 is now the champion (previous: 2)"
    assert "searches answer with version 1 again: 17 images" in out.splitlines()[1]
    assert (place.champion(), place.searched_with()) == ("1", "1")
    assert place.told()[-3:] == ["moving", "rollback", "index"]
    entry = place.promotions.history(MODEL).entries[-2]
    code, _, err = place.run("promote", "2")
    assert code == 1
    assert f"version 2 was rolled back by ledger entry {entry.n}: wrong colours" in err
    assert (place.champion(), place.searched_with()) == ("1", "1")
    code, out, _ = place.run("promote", "2", "--force", "--reason", "colours were right", "--json")
    change = json.loads(out)
    assert (code, change["version"], change["before"]) == (0, "2", "1")
    told = "by the rule it would not have been: rollbacks 1.0000"
    assert change["decision"]["reasons"][1].startswith(told)
    assert change["decision"]["gain"] > 0
    assert (place.champion(), place.searched_with()) == ("2", "2")


def test_a_promotion_by_an_old_verdict_brings_model_and_index(place):
    place.run("promote", "1", "--force", "--reason", "to look at it")
    assert (place.champion(), place.searched_with()) == ("1", "1")
    code, out, _ = place.run("promote", "2", "--json")
    change = json.loads(out)
    assert (code, change["version"], change["before"]) == (0, "2", "1")
    assert change["decision"]["reasons"][0].startswith("decided before, entry ")
    assert (place.champion(), place.searched_with()) == ("2", "2")
    code, out, _ = place.run("promote", "2")
    assert (code, out.splitlines()[0]) == (0, "finder version 2 is already the champion")


def test_a_rollback_that_was_stopped_before_its_index_is_finished_and_not_turned_around(place):
    place.promotions.rollback(MODEL, reason="wrong colours")
    assert (place.champion(), place.searched_with()) == ("1", "2")
    code, out, _ = place.run("rollback")
    assert code == 0
    assert "searches answer with version 1 again" in out
    assert (place.champion(), place.searched_with()) == ("1", "1")
    place.run("rollback", "--reason", "back")
    assert (place.champion(), place.searched_with()) == ("2", "2")


def test_until_the_champion_has_its_index_every_surface_names_the_command_that_completes_it(place, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(place.home))
    place.promotions.rollback(MODEL, reason="wrong colours")  # as a command that is killed before it brings the index
    command = "models promote 1 --model finder"
    text = f"The current index belongs to version 2; version 1 is champion. Complete with: image-finder {command}"
    app = create_app(
        lambda: Finder.open(place.home / "library" / "index", threads=1), Settings.parse({"refresh_s": 0.02})
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/health/ready").json()["pending"] == text
        assert place.run("list")[2] == place.run("list", "--json")[2] == place.run("history")[2] == f"{text}\n"
        assert json.loads(place.run("history", "--json")[1])["notes"] == [text]
        shown = CliRunner().invoke(main, ["info", "--index", str(place.home / "library" / "index")])
        assert f"pending    {text}" in shown.stdout.splitlines()
        code, out, _ = place.run(*command.split()[1:])
        assert (code, out.splitlines()[0]) == (0, "finder version 1 is already the champion")
        assert (place.champion(), place.searched_with()) == ("1", "1")
        while "pending" in client.get("/health/ready").json():
            time.sleep(0.02)
    assert place.run("list")[2] == place.run("history")[2] == ""
    assert place.run("rollback", "--reason", "back")[0] == 0
    assert (place.champion(), place.searched_with()) == ("2", "2")


def test_a_home_that_was_moved_shows_fetches_and_rolls_back_without_the_original(place, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    moved = Path(shutil.copytree(place.home, tmp_path / "moved home"))
    hidden = place.home.rename(place.home.with_name("hidden"))
    try:
        for words in (
            ("show", "champion"),
            ("compare", "2", "1"),
            ("fetch", "--to", str(tmp_path / "got")),
            ("rollback", "--reason", "in the moved home"),
            ("history",),
        ):
            done = CliRunner().invoke(main, ["models", *words, "--home", str(moved)])
            assert done.exit_code == 0, done.stderr
    finally:
        hidden.rename(place.home)
    assert caplog.messages == [f"Home moved from {place.home} to {moved}: stored paths updated"]
    index = VectorIndex.open(moved / "library" / "index")
    assert Path(index.manifest.bundle_uri).parent == moved / "library" / "bundles"
    assert place.promotions.registry.version_of_bundle(MODEL, index.manifest.bundle_sha256) == "1"
    assert (place.champion(), place.searched_with()) == ("2", "2")  # in the original


def test_a_forced_promotion_says_what_the_rule_says_and_can_be_rolled_back(place, tmp_path):
    code, out, _ = place.run("promote", "challenger", "--force", "--reason", "a fair is on", home=tmp_path)
    assert code == 0
    assert "FAILED" in out
    assert f"no index in {tmp_path}" in out
    assert place.champion() == "3"
    entry = place.promotions.history(MODEL).entries[-1]
    assert (entry.kind, entry.from_version, entry.to_version) == ("forced", "2", "3")
    assert entry.reasons[0] == "forced: a fair is on"
    assert entry.reasons[1].startswith("by the rule it would not have been: ")
    assert entry.measurements["gain"] < 0
    assert place.run("rollback", "--reason", "the fair is over", home=tmp_path)[0] == 0
    assert place.champion() == "2"


def test_history_tells_the_story_verifies_it_and_holds_it_against_an_anchor(place):
    code, out, err = place.run("history")
    assert (code, err) == (0, "")
    entries = place.promotions.history(MODEL).entries
    assert f"{len(entries)} entries, anchor {entries[-1].n}:{entries[-1].sha256}" in out
    assert "v1 promoted, the first champion" in out
    exported = json.loads(place.run("history", "--json")[1])
    assert [each["n"] for each in exported["entries"]] == [entry.n for entry in entries]
    assert place.run("history", "--anchor", f"4:{entries[3].sha256}")[0] == 0
    code, _, err = place.run("history", "--anchor", f"4:{entries[4].sha256}")
    assert code == 1
    assert "the ledger was rewritten" in err


def test_history_of_a_damaged_ledger_prints_the_rest_and_fails(place):
    client = place.promotions.registry.client
    experiment = client.get_experiment_by_name(f"{MODEL} ledger").experiment_id
    (run,) = client.search_runs([experiment], "tags.n = '00000002'")
    text = run.data.tags["entry"]
    client.set_tag(run.info.run_id, "entry", text[:100])
    code, out, err = place.run("history")
    client.set_tag(run.info.run_id, "entry", text)
    assert code == 1
    assert "0001 v1 registered" in out
    assert "0002" not in out
    assert "DAMAGED: the text of entry 2 was cut or edited" in err
    assert place.run("history")[0] == 0


ALONE = """
import sys
sys.modules.update(dict.fromkeys(("mlflow", "zenml", "torch", "pandas")))  # importing one of them fails
from image_finder.components.app.cli import main
for arguments in (["index", sys.argv[1], "--bundle", "got"], ["search", "dog", "-k", "1", "--json"]):
    main(arguments, standalone_mode=False)
"""


def test_a_fetched_bundle_is_whole_and_searches_with_no_registry_in_reach(place, tmp_path):
    to = tmp_path / "got"
    code, out, _ = place.run("fetch", "--alias", "champion", "--to", str(to))
    assert code == 0
    assert out == f"finder version 2 in {to}, 5 files verified\n"
    code, _, err = place.run("fetch", "--to", str(to))
    assert code == 1
    assert "exists already" in err
    done = subprocess.run(
        [sys.executable, "-c", ALONE, place.root / "images"],
        cwd=tmp_path,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW"))},
            "PYTHONPATH": str(CHECKOUT),
            "IMAGE_FINDER_HOME": str(tmp_path / "home"),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["hits"][0]["name"] == "0.png"


def test_a_damaged_artefact_is_not_fetched(place, tmp_path):
    source = place.promotions.registry.client.get_model_version_download_uri(MODEL, "3").removeprefix("file://")
    path = Path(source) / "artifacts" / "bundle" / "tokenizer.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    code, _, err = place.run("fetch", "--alias", "3", "--to", str(tmp_path / "got"))
    path.write_bytes(whole)
    assert code == 1
    assert "corrupted: tokenizer.json" in err
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_is_away_or_has_no_such_model_is_one_line(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = CliRunner().invoke(main, ["models", "list", "--mlflow-uri", "http://127.0.0.1:9", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the registry at http://127.0.0.1:9 cannot be reached; nothing was changed")
    assert len(done.stderr.splitlines()) == 1
    code, _, err = place.run("list", "--model", "lamp")
    assert code == 1
    assert "no model 'lamp' at sqlite" in err
    assert "name one of finder with --model" in err
    done = CliRunner().invoke(main, ["models", "list", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "no registry at sqlite" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_promotion_embeds_the_library_where_no_index_of_the_version_is_kept(place, mlflow_template, tmp_path):
    """In a process of its own: ZenML keeps the home it was started with."""
    home = tmp_path / "home"
    publish_gallery(GalleryConfig(root=place.root / "images"), place.bundles["1"], home / "library")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-m", "image_finder", "models", "promote", "2", "--home", home, "--mlflow-uri", place.uri],
        env={**kept, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "17 images" in done.stdout
    index = VectorIndex.open(home / "library" / "index")
    assert index.manifest.bundle_sha256 == place.bundles["2"].sha256
    assert index.manifest.self_check.found_themselves_first == 17
