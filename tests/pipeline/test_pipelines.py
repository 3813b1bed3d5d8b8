"""Both pipelines on a few demo scenes with real ZenML, MLflow and towers; each command is a process."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.drift.report import DriftReport
from image_finder.components.index.index import VectorIndex
from image_finder.pipelines.step_phases import TITLES
from tests.support.checkout import CHECKOUT
from tests.support.colour_bundle import imported_model, write_colour_bundle
from tests.support.small_trunk import SMALL_IMAGE_TRUNK, write_text_trunk

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "parameters": {
        "dataset": {"name": "tiny", "layout": "demo", "demo_images": 80},
        "split": {"val_fraction": 0.2, "test_fraction": 0.2},
        "model": {
            "embedding_dim": 64,
            "image": {**SMALL_IMAGE_TRUNK, "pool_width": 64, "pool_heads": 4},
            "text": {"weights": "hub", "pooling": "mean_end"},  # with the trunk of write_text_trunk
        },
        "training": {"epochs": 2, "batch_images": 16},
        "evaluation": {"min_times_random": 0, "bootstrap_samples": 100},
        "export": {"parity_images": 8},
        "drift": {"min_images": 20},
    }
}
INDEXING = {"parameters": {"gallery": {"annotations": "annotations/captions.json", "images": "images"}}}


def run(*words, home, cwd="/", check=True):
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "image_finder", *map(str, words), "--home", str(home)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home after one training and one indexing of few demo scenes, and the output."""
    root = tmp_path_factory.mktemp("pipelines")
    TINY["parameters"]["model"]["text"]["trunk"] = str(write_text_trunk(root / "words"))
    baseline = write_colour_bundle(root / "baseline", imported=imported_model())
    TINY["parameters"]["registry"] = {"baseline": str(baseline.path)}
    for name, values in (("training", TINY), ("indexing", INDEXING)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values))
    home = root / "home"
    training = run("pipeline", "run", "training", "--config", root / "training.yaml", "--json", home=home)
    indexing = run("pipeline", "run", "indexing", "--config", root / "indexing.yaml", "--json", home=home)
    return root, home, json.loads(training.stdout), json.loads(indexing.stdout)


def test_training_reports_recall_with_its_denominators_and_promotes_the_first_version(trained):
    _, _, training, _ = trained
    report = training["report"]
    assert report["split"] == "test"
    assert report["n_captions"] == 5 * report["n_images"]
    assert report["text_to_image"]["random_recall"]["1"] == pytest.approx(1 / report["n_images"])
    assert training["parity"]["passed"]
    assert training["decision"]["promoted"]
    assert training["decision"]["champion_version"] is None


def test_the_published_index_belongs_to_the_champion_and_holds_every_image(trained):
    _, home, _, indexing = trained
    index = VectorIndex.open(home / "library" / "index", verify=True)
    bundle = Bundle.open(Path(index.manifest.bundle_uri))
    index.require_bundle(bundle.sha256)
    assert index.manifest.count == indexing["count"] == 80
    check = index.manifest.self_check
    assert check.found_themselves_first == check.n_images == 80


def test_verbose_adds_what_zenml_reports(trained):
    root, home, _, _ = trained
    words = ("pipeline", "run", "indexing", "--config", root / "indexing.yaml", "--json")
    verbose = run(*words, "--verbose", home=home)
    assert "Step `publish_index` has started." in verbose.stderr.splitlines()
    assert "Initiating a new run for the pipeline: `finder_indexing`." in verbose.stderr
    assert json.loads(verbose.stdout)["count"] == 80


def test_search_answers_from_the_published_index(trained):
    _, home, _, _ = trained
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "image_finder",
            "search",
            "a dog",
            "--index",
            str(home / "library" / "index"),
            "-k",
            "3",
            "--duplicates",
            "show",
            "--json",
        ],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    hits = json.loads(done.stdout)["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert all(Path(hit["uri"]).is_file() and len(hit["captions"]) == 5 for hit in hits)


def test_one_mlflow_run_holds_parameters_curves_figures_reports_and_data_version(trained):
    _, home, training, _ = trained
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs(
        [client.get_experiment_by_name("image-finder").experiment_id], order_by=["attributes.start_time"]
    )
    run_of_training = runs[0]
    assert run_of_training.data.params["training.epochs"] == "2"
    assert run_of_training.data.tags["data_version"] == training["report"]["data_version"]
    assert [m.step for m in client.get_metric_history(run_of_training.info.run_id, "train/loss")] == [1, 2]
    files = {
        f.path for folder in ("figures", "reports") for f in client.list_artifacts(run_of_training.info.run_id, folder)
    }
    assert {"figures/similarity_heat_map.png", "figures/query_examples.png", "figures/recall_curve.png"} <= files
    assert {
        "figures/training_curves.png",
        "reports/validation.html",
        "reports/promotion.html",
        "reports/parity.json",
        "reports/scores.json",
    } <= files
    assert {"reports/baseline.json", "reports/baseline_comparison.json"} <= files
    metrics = run_of_training.data.metrics
    assert metrics["baseline/gain"] == pytest.approx(
        training["report"]["mean_recall"] - metrics["baseline/mean_recall"], abs=0.02
    )
    assert {"train/val_t2i_r10", "test/t2i_r10", "promotion/promoted"} <= set(metrics)
    contexts = {each.dataset.name: each.tags[0].value for each in run_of_training.inputs.dataset_inputs}
    assert contexts == {"tiny train": "training", "tiny val": "validation", "tiny test": "test"}
    version = client.get_model_version_by_alias("image-finder", "champion")
    assert version.run_id == run_of_training.info.run_id
    assert version.tags["data_version"] == training["report"]["data_version"]


def test_no_artefact_was_pickled(trained):
    _, home, _, _ = trained
    with closing(sqlite3.connect(home / "zenml" / "stores" / "default_zen_store" / "zenml.db")) as store:
        rows = store.execute("select distinct materializer from artifact_version").fetchall()
    materializers = {json.loads(source)["attribute"] for (source,) in rows}
    assert {"BundleMaterializer", "CheckpointMaterializer", "RecordMaterializer", "TableMaterializer"} < materializers
    assert not [name for name in materializers if "pickle" in name.lower()]


def test_a_second_run_with_nothing_changed_does_nothing_again(trained):
    root, home, training, _ = trained
    again = run("pipeline", "run", "training", "--config", root / "training.yaml", "--json", home=home)
    ended = [line for line in again.stderr.splitlines() if "...." in line]
    # What was compared with the champion is never cached; in the first run there was none.
    worked = {line.partition(" ..")[0] for line in ended if not line.endswith(" cached")}
    assert worked - {"prepare the run", "open the stores"} == {
        "log the data sets",
        "measure drift",
        "check drift",
        "compare with the champion",
    }
    assert len(ended) >= len(TITLES["training"])
    assert "Step `" not in again.stderr
    outcome = json.loads(again.stdout)
    assert outcome["report"] == training["report"]
    assert outcome["decision"]["reasons"] == ["version 1 is champion already"]


def test_versions_are_compared_on_the_test_images_of_the_first_ones_data(trained, tmp_path):
    _, home, training, _ = trained
    page = tmp_path / "comparison.html"
    printed = run("models", "compare", "1", "1", "--html", page, home=home).stdout
    report = training["report"]
    assert printed.startswith(f"tiny test: {report['n_images']} images, {report['n_captions']} captions")
    assert "All models rank the image of every caption alike." in page.read_text()


def test_a_champion_measured_on_other_data_is_measured_again_before_it_is_compared(trained):
    root, home, _, _ = trained
    words = (
        "pipeline",
        "run",
        "training",
        "--config",
        root / "training.yaml",
        "--set",
        "dataset.max_images=60",
        "--json",
    )
    decision = json.loads(run(*words, home=home).stdout)["decision"]
    assert decision["champion_version"] == "1"
    assert decision["challenger_version"] == "2"
    assert 0 < decision["champion_mean_recall"] <= 1
    checks = {check["name"]: check for check in decision["checks"]}
    assert checks["same test"]["passed"]
    assert checks["champion measured"]["measured"] == decision["champion_mean_recall"]
    gain = decision["challenger_mean_recall"] - decision["champion_mean_recall"]
    assert decision["gain"] == pytest.approx(gain, abs=1e-9)
    assert decision["gain_interval"]["low"] <= decision["gain"] <= decision["gain_interval"]["high"]
    assert decision["promoted"] == all(check["passed"] for check in decision["checks"])


def test_a_training_brings_the_index_of_its_champion_where_searches_answer_with_another(trained):
    root, home, _, _ = trained
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    words = ("pipeline", "run", "training", "--config", root / "training.yaml", "--json")
    smaller = (*words, "--set", "dataset.max_images=60")
    before = str(client.get_model_version_by_alias("image-finder", "champion").version)
    for version, training in sorted({"1": words, "2": smaller}.items(), key=lambda each: each[0] == before):
        client.set_registered_model_alias("image-finder", "champion", version)  # a person may, and nothing indexes then
        outcome = json.loads(run(*training, home=home).stdout)
        assert outcome["decision"]["reasons"] == [f"version {version} is champion already"]
        champion = client.get_model_version("image-finder", version)
        index = VectorIndex.open(home / "library" / "index").manifest
        assert index.bundle_sha256 == outcome["index"]["bundle_sha256"] == champion.tags["bundle_sha256"]
        assert index.count == 80
    assert json.loads(run(*training, home=home).stdout)["index"] is None


def test_a_later_training_is_compared_with_the_images_of_the_champion(trained):
    """60 of the champion's 80 scenes: each was trained on or held out."""
    _, home, _, _ = trained
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("image-finder").experiment_id
    first, *_, last = client.search_runs([experiment], "params.drift.seed = '0'", order_by=["attributes.start_time"])
    assert first.data.tags["drift"] == "not measured"  # there was no champion
    assert last.data.tags["drift"] == "none"
    assert {"drift/embeddings", "drift/brightness_threshold", "drift/rows_drifted"} <= set(last.data.metrics)
    report = DriftReport.model_validate_json(
        Path(client.download_artifacts(last.info.run_id, "reports/drift.json")).read_bytes()
    )
    assert report.reference.version == "1"
    assert report.n_compared == report.n_images >= report.n_known >= 20
    files = {f.path for folder in ("figures", "reports") for f in client.list_artifacts(last.info.run_id, folder)}
    assert {"figures/drift.png", "reports/drift.html"} <= files


@pytest.fixture(scope="module")
def two_sets(trained):
    """A configuration that trains on 60 of the scenes and is also measured on 20 others, and its folder."""
    root, home, _, _ = trained
    scenes, data = home / "data" / "demo", root / "two sets"
    content = json.loads((scenes / "annotations" / "captions.json").read_text())
    (data / "annotations").mkdir(parents=True)
    for part, ids in (("train", range(1, 61)), ("drawn", range(61, 81))):
        (data / part).mkdir()
        images = [each for each in content["images"] if each["id"] in ids]
        for each in images:
            (data / part / each["file_name"]).symlink_to(scenes / "images" / each["file_name"])
        annotations = [each for each in content["annotations"] if each["image_id"] in ids]
        text = json.dumps({"images": images, "annotations": annotations, "licenses": []})
        (data / "annotations" / f"captions_{part}.json").write_text(text)
    parts = {"train": {"annotations": "annotations/captions_train.json", "images": "train"}}
    drawn = {"annotations": "annotations/captions_drawn.json", "images": "drawn", "min_mean_recall": 0.01}
    parameters = {
        **TINY["parameters"],
        "dataset": {"name": "two", "layout": "coco", "parts": parts},
        "split": {"val_fraction": 0.2},
        "evaluation": {**TINY["parameters"]["evaluation"], "extra_sets": {"drawn": drawn}},
        "registry": {"model_name": "two-sets"},
    }
    (root / "two.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
    return "pipeline", "run", "training", "--config", root / "two.yaml", "--data", data, "--json"


def test_an_extra_evaluation_set_is_measured_gated_judged_and_reported(trained, two_sets):
    _, home, _, _ = trained
    outcome = json.loads(run(*two_sets, home=home).stdout)
    report, decision = outcome["report"], outcome["decision"]
    assert (report["split"], report["extra_sets"]["drawn"]["n_images"]) == ("val", 20)
    checks = {check["name"]: check for check in decision["checks"]}
    assert decision["promoted"]
    assert checks["mean recall on drawn"]["required"] == "at least 0.0100"
    assert {"mean recall on val", "recall@10 on val", "recall@10 on drawn"} < set(checks)
    means = [checks[f"mean recall on {name}"]["measured"] for name in ("val", "drawn")]
    assert decision["challenger_mean_recall"] == pytest.approx(sum(means) / 2)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    version = client.get_model_version_by_alias("two-sets", "champion")
    metrics = client.get_run(version.run_id).data.metrics
    assert metrics["drawn/mean_recall"] == pytest.approx(report["extra_sets"]["drawn"]["mean_recall"])
    assert metrics["promotion/mean_recall_on_drawn"] == pytest.approx(means[1])
    shown = run("models", "show", "champion", "--model", "two-sets", "--card", home=home).stdout
    assert "Model selection used the mean of mean recall over `val` and `drawn`" in shown


def test_a_run_below_a_floor_of_an_extra_set_stops_in_one_line_and_registers_nothing(trained, two_sets):
    _, home, _, _ = trained
    floor = ("--set", "evaluation.extra_sets.drawn.min_mean_recall=0.999")
    done = run(*two_sets, *floor, home=home, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: evaluation set 'drawn' (20 images): mean recall is 0.")
    assert line.endswith("below min_mean_recall 0.9990; train longer or lower the floor")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'two-sets'")) <= 1


def test_changed_data_are_noticed_and_a_refused_data_set_leaves_champion_and_index(trained):
    root, home, _, _ = trained
    before = (home / "library" / "index" / "CURRENT").read_bytes()
    data = home / "data" / "demo"
    annotations = data / "annotations" / "captions.json"
    content = json.loads(annotations.read_text())
    for annotation in content["annotations"][:100]:
        annotation["caption"] = " "
    broken = root / "broken"
    (broken / "annotations").mkdir(parents=True)
    (broken / "annotations" / "captions_train.json").write_text(json.dumps(content))
    (broken / "train").symlink_to(data / "images")
    values = {"parameters": {key: value for key, value in TINY["parameters"].items() if key != "dataset"}}
    (root / "broken.yaml").write_text(yaml.safe_dump(values))
    done = run(
        "pipeline", "run", "training", "--config", root / "broken.yaml", "--data", broken, home=home, check=False
    )
    assert done.returncode == 1
    failed, error = done.stderr.splitlines()[-2:]
    assert failed.endswith(" failed")
    assert "100 of 400 captions" in error
    assert (home / "library" / "index" / "CURRENT").read_bytes() == before
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'image-finder'")) == 2  # none was registered from refused data


ON_A_FULL_DISK = """
set -e
mount -t tmpfs -o size=2g none "$1"
cp -r "$2" "$1/home"
mount -o remount,size=$(( $(df -k --output=used "$1" | tail -1) + $3 ))k "$1"
shift 3
"$@"
"""


def test_an_indexing_on_a_full_disk_is_one_line_changes_nothing_and_succeeds_later(trained, tmp_path):
    """In a mount namespace with a file system in memory that has less space than an artefact."""
    root, home, _, _ = trained
    disk = tmp_path / "disk"
    disk.mkdir()
    program = [sys.executable, "-m", "image_finder", "pipeline", "run", "indexing", "--home", disk / "home"]
    shown = f"cat {disk}/home/library/index/CURRENT; mount -o remount,size=4g {disk}"
    run_it = " ".join(map(str, [*program, "--config", root / "indexing.yaml"]))
    script = f"{run_it} && exit 3; {shown}; {run_it}"
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", ON_A_FULL_DISK, "-", disk, home, "200", "bash", "-c", script],
        cwd="/",
        env={
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))
            },
            "PYTHONPATH": str(CHECKOUT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    errors = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert len(errors) == 1, done.stderr[-4000:]
    assert errors[0].startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[0] == (home / "library" / "index" / "CURRENT").read_text().strip()
    assert "80 images indexed" in done.stdout


def test_a_home_that_was_moved_indexes_its_own_images(trained, tmp_path):
    root, home, _, _ = trained
    moved = tmp_path / "moved home"
    home.rename(moved)
    try:
        done = run("pipeline", "run", "indexing", "--config", root / "indexing.yaml", "--json", home=moved)
    finally:
        index = VectorIndex.open(moved / "library" / "index")
        moved.rename(home)
    assert json.loads(done.stdout)["count"] == 80
    assert f"Home moved from {home} to {moved}: stored paths updated" in done.stderr.splitlines()
    assert all(Path(root).is_relative_to(moved) for root in index.manifest.roots)
    assert Path(index.manifest.bundle_uri).is_relative_to(moved)


def test_a_second_run_at_the_same_time_is_refused_in_one_line(trained):
    from filelock import FileLock

    root, home, _, _ = trained
    with FileLock(home / "run.lock"):
        done = run("pipeline", "run", "training", "--config", root / "training.yaml", home=home, check=False)
    assert done.returncode == 1
    assert "another pipeline is running" in done.stderr.splitlines()[-1]
