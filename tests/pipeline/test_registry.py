"""The MLflow registry over a real SQLite store, with a bundle of two tiny towers."""

import base64
import io
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.bundle import FORMAT_VERSION
from components.errors import BundleError, ConfigError
from components.records import ScoreCalibration
from model_registry import tracking
from model_registry.mlflow_registry import Evidence, Lineage, Registry

LINEAGE = Lineage(code_version="c0de", config_sha256="c" * 64, environment_sha256="e" * 64)


@pytest.fixture
def store(tmp_path, monkeypatch, mlflow_template):
    """A tracking address with an experiment whose artefacts lie in tmp_path; global state is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    shutil.copyfile(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).create_experiment("scratch", (tmp_path / "art").as_uri())
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("scratch")
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def registered(store, tiny_bundle, report):
    """Version 1 of the model `finder`; afterwards MLflow's global address is blank, as ZenML leaves it."""
    with mlflow.start_run():
        found = Registry.of_step().register_bundle(
            tiny_bundle, "finder", LINEAGE, Evidence(report=report, card="# Card")
        )
    mlflow.set_tracking_uri("")
    return found


def test_registered_bundle_carries_its_lineage_and_is_challenger(registered, tiny_bundle):
    assert (registered.version, registered.aliases) == ("1", ("challenger",))
    assert registered.tags["bundle_sha256"] == tiny_bundle.sha256
    assert registered.tags["bundle_format"] == str(FORMAT_VERSION)
    assert registered.tags["data_version"] == "0123456789ab"
    assert registered.tags["code_version"] == "c0de"
    assert float(registered.tags["mean_recall"]) == 0.5


def test_report_and_bundle_come_back_whole_without_any_global_address(store, registered, tiny_bundle, report, tmp_path):
    registry = Registry(store)
    assert registry.report_of("finder", "challenger") == report
    bundle = registry.download_bundle("finder", "1", tmp_path / "got")
    assert bundle.sha256 == tiny_bundle.sha256
    assert sorted(path.name for path in bundle.path.iterdir()) == sorted(
        path.name for path in tiny_bundle.path.iterdir()
    )
    assert (tiny_bundle.path / "text_encoder.onnx").is_file()


def test_only_runs_that_nobody_ended_are_shown_as_killed_and_only_those_of_the_experiment(store):
    client = mlflow.MlflowClient(tracking_uri=store)
    own = client.get_experiment_by_name("scratch").experiment_id
    other = client.create_experiment("other")
    finished, failed, left, foreign = (client.create_run(each).info.run_id for each in (own, own, own, other))
    client.set_terminated(finished)
    client.set_terminated(failed, "FAILED")
    tracking.mark_killed(store, "scratch")
    statuses = [client.get_run(each).info.status for each in (finished, failed, left, foreign)]
    assert statuses == ["FINISHED", "FAILED", "KILLED", "RUNNING"]
    tracking.mark_killed(store, "never made")  # nothing to do, nothing raised


def test_promotion_moves_the_champion_and_leaves_the_challenger(store, registered, tiny_bundle, report):
    registry = Registry(store)
    assert registry.champion_version("finder") is None
    registry.set_alias("finder", "champion", "1")
    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        Registry.of_step().register_bundle(tiny_bundle, "finder", LINEAGE, Evidence(report=report, card="# Card"))
    assert registry.champion_version("finder") == "1"
    assert [(each.version, each.aliases) for each in registry.versions("finder")] == [
        ("2", ("challenger",)),
        ("1", ("champion",)),
    ]


def test_unknown_model_has_no_champion_and_no_versions(store):
    assert Registry(store).champion_version("nobody") is None
    assert Registry(store).versions("nobody") == []
    with pytest.raises(ConfigError, match="model 'nobody' has no version or alias '3'"):
        Registry(store).version("nobody", "3")


def test_damaged_artefact_is_refused(store, registered, tmp_path):
    (damaged,) = (tmp_path / "art").rglob("tokenizer.json")
    damaged.write_text(damaged.read_text() + " ")
    with pytest.raises(BundleError, match="corrupted"):
        Registry(store).download_bundle("finder", "1", tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_another_bundle_in_the_place_of_the_registered_one_is_refused(store, registered, tmp_path):
    mlflow.MlflowClient(tracking_uri=store, registry_uri=store).set_model_version_tag(
        "finder", "1", "bundle_sha256", "f" * 64
    )
    with pytest.raises(BundleError, match="registered as ffffffffffff"):
        Registry(store).download_bundle("finder", "1", tmp_path / "got")


def test_registered_model_answers_texts_and_pictures_in_one_space(store, registered, tmp_path):
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model("models:/finder@challenger")
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "red.png")
    green = io.BytesIO()
    Image.new("RGB", (9, 9), (0, 255, 0)).save(green, "PNG")
    inline = base64.b64encode(green.getvalue()).decode()
    texts = model.predict(pd.DataFrame({"text": ["a dog", "cat cat"]}))
    images = model.predict(pd.DataFrame({"image": [str(tmp_path / "red.png"), inline]}))
    np.testing.assert_allclose(texts, [[1, 0], [0, 1]], atol=1e-5)
    np.testing.assert_allclose(images, [[1, 0], [0, 1]], atol=1e-5)


def test_registered_model_holds_no_pickle(store, registered, tmp_path):
    files = [path.name for path in (tmp_path / "art").rglob("*") if path.is_file()]
    assert "bundle_model.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_logging_without_a_run_is_refused_instead_of_opening_one(store, report):
    with pytest.raises(ConfigError, match="no MLflow run is open"):
        tracking.log_retrieval(report)
    assert mlflow.search_runs(output_format="list") == []


def test_report_is_logged_with_denominators_and_without_what_is_not_a_number(store, report):
    broken = report.model_copy(update={"mean_recall": float("nan")})
    with mlflow.start_run() as run:
        tracking.log_retrieval(broken)
    found = mlflow.get_run(run.info.run_id).data.metrics
    assert (found["val.t2i_r10"], found["val.t2i_queries"], found["val.t2i_gallery"]) == (0.5, 50, 10)
    assert "val.mean_recall" not in found


def test_scores_are_logged_as_numbers_and_whole(store, scores, tmp_path):
    with mlflow.start_run() as run:
        tracking.log_scores(scores)
    found = mlflow.get_run(run.info.run_id).data.metrics
    assert found == {"val.good_match": 0.5, "val.pair_median": 0.5, "val.logit_scale": 10.0}
    (path,) = (tmp_path / "art").rglob("scores.json")
    assert ScoreCalibration.model_validate_json(path.read_text()) == scores
