"""`image-finder models` with a home that has three measured versions, a ledger and an index."""

import json
import os
import shutil
import socket
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
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.components.search.finder import Finder
from image_finder.model_registry import lineage, names, tracking
from image_finder.model_registry.decision import Challenger, measure_and_decide
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import Reports
from image_finder.pipelines.mlflow_pages import mlflow_pages
from tests.support.checkout import CHECKOUT
from tests.support.evidence import MANIFEST, evidence_of
from tests.support.galleries import publish_gallery
from tests.support.tiny_bundle import BAD, FAIR, GOOD, PARITY, VALIDATION, draw_images, write_tiny_bundle

MODEL = "finder"


class ModelHome:
    """A home with a registry; versions 1 fair, 2 good, 3 bad, each with a decision."""

    def __init__(self, root, template):
        self.home, self.uri = root / "home", f"sqlite:///{root}/home/mlflow.db"
        self.home.mkdir()
        shutil.copyfile(template, self.home / "mlflow.db")
        self.root, self.images = root, draw_images(root / "images")
        self.promotions = Promotions(Registry(self.uri), actor="run of the test", home=self.home)
        self.bundles = {}

    def train(self, tables):
        """Store what a training run stores, without training."""
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
            evidence = evidence_of(measured.measurement.report, lineage=origin)
            registered = register_bundle(Registry.of_step(), bundle, MODEL, evidence, card=f"# Card {version}")
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
        """Index the images with a version and publish the index."""
        bundle = self.bundles[version]
        publish_gallery(GalleryConfig(root=self.root / "images"), bundle, self.home / "library")
        publish_bundle(bundle, self.home / "bundles")

    def run(self, *arguments, home=None):
        """Exit code, stdout and stderr of a command."""
        options = ["--home", str(home or self.home), "--mlflow-uri", self.uri]
        done = CliRunner().invoke(main, ["models", *arguments, *options])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    def champion(self):
        return self.promotions.registry.aliases(MODEL).get(names.CHAMPION)

    def searched_with(self):
        """The version of the current index."""
        return self.promotions.registry.version_of_bundle(MODEL, current_bundle_sha256(self.home / "library" / "index"))

    def kinds(self):
        return [entry.kind for entry in self.promotions.history(MODEL).entries]


@pytest.fixture(scope="module")
def models(mlflow_template, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    before, folder = mlflow.get_tracking_uri(), Path.cwd()
    os.chdir(root)
    made = ModelHome(root, mlflow_template)
    client = made.promotions.registry.client
    experiment = client.create_experiment("image-finder", (made.home / "mlartifacts").as_uri())
    mlflow.set_tracking_uri(made.uri)
    mlflow.set_experiment(experiment_id=experiment)
    made.train(FAIR)
    made.index("1")
    made.train(GOOD)
    made.index("2")
    made.train(BAD)
    mlflow.set_tracking_uri("")  # as ZenML does
    yield made
    mlflow.set_tracking_uri(before)
    os.chdir(folder)


def test_list_shows_aliases_recall_data_and_the_last_event(models):
    code, out, _ = models.run("list")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:2] == ["version", "aliases"]
    assert [line.split()[:2] for line in lines[1:]] == [["3", "challenger"], ["2", "champion"], ["1", "previous"]]
    assert "scratch 0123456789ab" in lines[2]
    assert "v2 promoted over v1, gain +" in lines[2]
    assert "v3 not promoted, v2 stays" in lines[1]


def test_the_ui_is_opened_at_the_runs_and_names_the_champions(models):
    registry, server = models.promotions.registry, "http://127.0.0.1:5000"
    identity = registry.client.get_experiment_by_name("image-finder").experiment_id
    assert mlflow_pages(registry, server, "image-finder") == {
        "runs": f"{server}/#/experiments/{identity}/runs?workflowType=machine_learning",
        "champion of finder, version 2": f"{server}/#/models/finder/versions/2",
    }
    assert "runs" not in mlflow_pages(registry, server, "no such experiment")


def test_models_are_found_by_data_version_and_show_their_data(models):
    code, out, _ = models.run("list", "--data", "0123", "--json")
    assert [(each["version"], each["tags"]["data_version"]) for each in json.loads(out)] == [
        (version, "0123456789ab") for version in "321"
    ]
    code, _, err = models.run("list", "--data", "ffff")
    assert code == 1
    assert "no version of 'finder' was trained on data ffff; known data versions: 0123456789ab" in err
    code, out, _ = models.run("show", "champion", "--json")
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


def test_show_prints_tables_and_the_registered_card(models):
    code, out, _ = models.run("show", "2")
    assert code == 0
    assert out.startswith("finder version 2 (champion), registered ")
    assert "data fingerprint" in out
    assert "text to image" in out
    assert "v2 promoted over v1" in out
    assert models.run("show", "2", "--card")[1] == "# Card 2\n"
    code, _, err = models.run("show", "9")
    assert code == 1
    assert "model 'finder' has no version or alias '9'" in err


def test_compare_shows_both_reports_with_intervals_and_the_paired_gain(models):
    code, out, _ = models.run("compare", "champion", "previous")
    assert code == 0
    assert out.splitlines()[0].split() == ["version", "2", "version", "1", "difference"]
    good, fair = (models.promotions.registry.report_of(MODEL, version) for version in "21")
    line = next(line for line in out.splitlines() if line.startswith("mean recall"))
    assert f"{100 * good.mean_recall:.1f} % [{100 * good.mean_recall_interval.low:.1f}, " in line
    assert line.endswith(f"{100 * (good.mean_recall - fair.mean_recall):+.1f}")
    last = out.splitlines()[-1]
    assert last.startswith("Query by query, version 2 against 1: mean recall +")
    values = json.loads(models.run("compare", "2", "1", "--json")[1])
    assert values["comparison"]["gain"] == pytest.approx(good.mean_recall - fair.mean_recall)
    assert values["second"]["report"] == fair.model_dump(mode="json")


def test_a_worse_version_is_not_promoted_without_force_and_the_decision_is_recorded(models):
    before = models.kinds()
    code, _, err = models.run("promote", "3", "--reason", "I like it")
    assert code == 1
    assert "version 3 of 'finder' is not promoted: " in err
    assert "gain -" in err
    assert "image-finder models promote 3 --force --reason" in err
    assert (models.champion(), models.searched_with()) == ("2", "2")
    assert models.kinds() == [*before, "decision"]
    assert models.promotions.history(MODEL).entries[-1].reasons[-1] == "requested: I like it"
    code, _, err = models.run("promote", "3", "--force")
    assert code == 2
    assert "--force requires --reason" in err


def test_the_newest_decision_about_a_version_is_a_page_that_the_commands_name(models):
    models.run("promote", "3", "--reason", "I like it")
    shown = models.run("show", "3")[1].splitlines()[-1]
    page = Path(shown.removeprefix("promotion page: "))
    assert page.is_relative_to(models.home)
    text = page.read_text(encoding="utf-8")
    assert "finder version 3: promotion" in text
    assert "Not promoted; version 2 stays champion" in text
    assert "challenger, version 3" in text
    assert "requested: I like it" in text
    assert "text to image on test R@1, %" in text, "the stored measurements of both versions are beside each other"
    assert json.loads(models.run("show", "3", "--json")[1])["promotion_page"] == str(page)
    assert "promotion page" not in models.run("show", "1")[1]


def test_a_rollback_restores_model_and_index_and_only_force_undoes_it(models):
    code, out, _ = models.run("rollback", "--reason", "wrong colours")
    assert code == 0
    assert out.splitlines()[0] == "finder version 1 is now the champion (previous: 2)"
    assert "version 1 is serving searches again: 17 images" in out.splitlines()[1]
    assert (models.champion(), models.searched_with()) == ("1", "1")
    assert models.kinds()[-3:] == ["moving", "rollback", "index"]
    entry = models.promotions.history(MODEL).entries[-2]
    code, _, err = models.run("promote", "2")
    assert code == 1
    assert f"version 2 was rolled back by ledger entry {entry.n}: wrong colours" in err
    assert (models.champion(), models.searched_with()) == ("1", "1")
    code, out, _ = models.run("promote", "2", "--force", "--reason", "colours were right", "--json")
    change = json.loads(out)
    assert (code, change["version"], change["before"]) == (0, "2", "1")
    by_rule = "by the rule it would not have been: rollbacks 1.0000"
    assert change["decision"]["reasons"][1].startswith(by_rule)
    assert change["decision"]["gain"] > 0
    assert "Promoted by force over version 1" in Path(change["page"]).read_text(encoding="utf-8")
    assert (models.champion(), models.searched_with()) == ("2", "2")


def test_a_promotion_by_an_earlier_decision_restores_model_and_index(models):
    models.run("promote", "1", "--force", "--reason", "to look at it")
    assert (models.champion(), models.searched_with()) == ("1", "1")
    code, out, _ = models.run("promote", "2", "--json")
    change = json.loads(out)
    assert (code, change["version"], change["before"]) == (0, "2", "1")
    assert change["decision"]["reasons"][0].startswith("decided before, entry ")
    assert (models.champion(), models.searched_with()) == ("2", "2")
    code, out, _ = models.run("promote", "2")
    assert (code, out.splitlines()[0]) == (0, "finder version 2 is already the champion")


def test_a_rollback_that_was_killed_before_its_index_is_completed_not_reversed(models):
    models.promotions.rollback(MODEL, reason="wrong colours")
    assert (models.champion(), models.searched_with()) == ("1", "2")
    code, out, _ = models.run("rollback")
    assert code == 0
    assert "version 1 is serving searches again" in out
    assert (models.champion(), models.searched_with()) == ("1", "1")
    models.run("rollback", "--reason", "back")
    assert (models.champion(), models.searched_with()) == ("2", "2")


def test_until_the_champion_has_its_index_all_outputs_name_the_completing_command(models, monkeypatch):
    monkeypatch.setenv("IMAGE_FINDER_HOME", str(models.home))
    models.promotions.rollback(
        MODEL, reason="wrong colours"
    )  # as a command that is killed before it restores the index
    command = "models promote 1 --model finder"
    text = f"The current index belongs to version 2; version 1 is champion. Complete with: image-finder {command}"
    app = create_app(
        lambda: Finder.open(models.home / "library" / "index", threads=1), Settings.parse({"refresh_s": 0.02})
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/health/ready").json()["pending"] == text
        assert models.run("list")[2] == models.run("list", "--json")[2] == models.run("history")[2] == f"{text}\n"
        assert json.loads(models.run("history", "--json")[1])["notes"] == [text]
        shown = CliRunner().invoke(main, ["info", "--index", str(models.home / "library" / "index")])
        assert f"pending    {text}" in shown.stdout.splitlines()
        code, out, _ = models.run(*command.split()[1:])
        assert (code, out.splitlines()[0]) == (0, "finder version 1 is already the champion")
        assert (models.champion(), models.searched_with()) == ("1", "1")
        while "pending" in client.get("/health/ready").json():
            time.sleep(0.02)
    assert models.run("list")[2] == models.run("history")[2] == ""
    assert models.run("rollback", "--reason", "back")[0] == 0
    assert (models.champion(), models.searched_with()) == ("2", "2")


def test_a_home_that_was_moved_shows_fetches_and_rolls_back_without_the_original(models, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    moved = Path(shutil.copytree(models.home, tmp_path / "moved home"))
    hidden = models.home.rename(models.home.with_name("hidden"))
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
        hidden.rename(models.home)
    assert caplog.messages == [f"Home moved from {models.home} to {moved}: stored paths updated"]
    index = VectorIndex.open(moved / "library" / "index")
    assert Path(index.manifest.bundle_uri).parent == moved / "library" / "bundles"
    assert models.promotions.registry.version_of_bundle(MODEL, index.manifest.bundle_sha256) == "1"
    assert (models.champion(), models.searched_with()) == ("2", "2")  # in the original


def test_a_forced_promotion_records_the_result_of_the_rule_and_can_be_rolled_back(models, tmp_path):
    code, out, _ = models.run("promote", "challenger", "--force", "--reason", "a fair is on", home=tmp_path)
    assert code == 0
    assert "FAILED" in out
    assert f"no index in {tmp_path}" in out
    assert models.champion() == "3"
    entry = models.promotions.history(MODEL).entries[-1]
    assert (entry.kind, entry.from_version, entry.to_version) == ("forced", "2", "3")
    assert entry.reasons[0] == "forced: a fair is on"
    assert entry.reasons[1].startswith("by the rule it would not have been: ")
    assert entry.measurements["gain"] < 0
    assert models.run("rollback", "--reason", "the fair is over", home=tmp_path)[0] == 0
    assert models.champion() == "2"


def test_history_shows_and_verifies_the_ledger_and_compares_it_with_an_anchor(models):
    code, out, err = models.run("history")
    assert (code, err) == (0, "")
    entries = models.promotions.history(MODEL).entries
    assert f"{len(entries)} entries, anchor {entries[-1].n}:{entries[-1].sha256}" in out
    assert "v1 promoted, the first champion" in out
    exported = json.loads(models.run("history", "--json")[1])
    assert [each["n"] for each in exported["entries"]] == [entry.n for entry in entries]
    assert models.run("history", "--anchor", f"4:{entries[3].sha256}")[0] == 0
    code, _, err = models.run("history", "--anchor", f"4:{entries[4].sha256}")
    assert code == 1
    assert "the ledger was rewritten" in err


def test_history_of_a_damaged_ledger_prints_intact_entries_and_fails(models):
    client = models.promotions.registry.client
    experiment = client.get_experiment_by_name(f"{MODEL} ledger").experiment_id
    (run,) = client.search_runs([experiment], "tags.n = '00000002'")
    text = run.data.tags["entry"]
    client.set_tag(run.info.run_id, "entry", text[:100])
    code, out, err = models.run("history")
    client.set_tag(run.info.run_id, "entry", text)
    assert code == 1
    assert "0001 v1 registered" in out
    assert "0002" not in out
    assert "DAMAGED: the text of entry 2 was cut or edited" in err
    assert models.run("history")[0] == 0


ALONE = """
import sys
sys.modules.update(dict.fromkeys(("mlflow", "zenml", "torch", "pandas")))  # importing one of them fails
from image_finder.components.app.cli import main
for arguments in (["index", sys.argv[1], "--bundle", "got"], ["search", "dog", "-k", "1", "--json"]):
    main(arguments, standalone_mode=False)
"""


def test_a_fetched_bundle_is_complete_and_searches_without_a_registry(models, tmp_path):
    to = tmp_path / "got"
    code, out, _ = models.run("fetch", "--alias", "champion", "--to", str(to))
    assert code == 0
    assert out == f"finder version 2 in {to}, 5 files verified\n"
    code, _, err = models.run("fetch", "--to", str(to))
    assert code == 1
    assert "exists already" in err
    done = subprocess.run(
        [sys.executable, "-c", ALONE, models.root / "images"],
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


def test_a_damaged_artefact_is_not_fetched(models, tmp_path):
    source = models.promotions.registry.client.get_model_version_download_uri(MODEL, "3").removeprefix("file://")
    path = Path(source) / "artifacts" / "bundle" / "tokenizer.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    code, _, err = models.run("fetch", "--alias", "3", "--to", str(tmp_path / "got"))
    path.write_bytes(whole)
    assert code == 1
    assert "corrupted: tokenizer.json" in err
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_registry_or_unknown_model_is_one_line(models, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = CliRunner().invoke(main, ["models", "list", "--mlflow-uri", "http://127.0.0.1:9", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the registry at http://127.0.0.1:9 cannot be reached; nothing was changed")
    assert len(done.stderr.splitlines()) == 1
    code, _, err = models.run("list", "--model", "lamp")
    assert code == 1
    assert "no model 'lamp' at sqlite" in err
    assert "name one of finder with --model" in err
    done = CliRunner().invoke(main, ["models", "list", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "no registry at sqlite" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_promotion_embeds_the_library_where_no_index_of_the_version_is_kept(models, mlflow_template, tmp_path):
    """In a separate process: ZenML keeps the home it was started with."""
    home = tmp_path / "home"
    publish_gallery(GalleryConfig(root=models.root / "images"), models.bundles["1"], home / "library")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-m", "image_finder", "models", "promote", "2", "--home", home, "--mlflow-uri", models.uri],
        env={**kept, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "17 images" in done.stdout
    index = VectorIndex.open(home / "library" / "index")
    assert index.manifest.bundle_sha256 == models.bundles["2"].sha256
    assert index.manifest.self_check.found_themselves_first == 17


def test_a_page_is_opened_once_the_server_answers(tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    (tmp_path / "health").write_text("OK")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "BROWSER": str(browser), "PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-m", "image_finder.pipelines.mlflow_pages", f"http://127.0.0.1:{port}", "http://x/#/runs"]
    with subprocess.Popen(words, env=environment) as opener:
        time.sleep(1)
        assert opener.poll() is None
        serve = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
        with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
            assert opener.wait(60) == 0
            server.terminate()
    assert (tmp_path / "opened").read_text() == "http://x/#/runs\n"
