"""The MLflow registry over a real SQLite store, with a bundle of two tiny towers."""

import base64
import functools
import io
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from image_finder.components.bundle.bundle import FORMAT_VERSION
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.model_registry import tracking
from image_finder.model_registry.former_models import renew_code
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from tests.support.checkout import CHECKOUT
from tests.support.evidence import evidence_of


@pytest.fixture
def registered(store, tiny_bundle, report):
    """Version 1 of the model `finder`; MLflow's global URI is reset, as ZenML does."""
    with mlflow.start_run():
        found = register_bundle(Registry.of_step(), tiny_bundle, "finder", evidence_of(report), card="# Card")
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
        register_bundle(Registry.of_step(), tiny_bundle, "finder", evidence_of(report), card="# Card")
    assert registry.champion_version("finder") == "1"
    assert [(each.version, each.aliases) for each in registry.versions("finder")] == [
        ("2", ("challenger",)),
        ("1", ("champion",)),
    ]


@pytest.mark.parametrize(("lines", "is_whole"), [(420, True), (423, False), (2000, False)])
def test_a_long_card_is_shortened_to_the_description_that_postgresql_stores(
    store, tiny_bundle, report, lines, is_whole
):
    card = "# A card\n" * (lines - 1) + "the end. "  # 9 characters each, 3,780 for 420 lines
    card += "x" * 500
    with mlflow.start_run():
        found = register_bundle(Registry.of_step(), tiny_bundle, "finder", evidence_of(report), card=card)
    text = (
        mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
        .get_model_version("finder", found.version)
        .description
    )
    assert len(text) <= 5000
    sentence, _, described = text.partition("\n\n")
    assert sentence.startswith("Finds 50 of 100 images first on scratch val (")
    assert sentence.endswith(", not compared with the champion yet.")
    assert (described == card) is is_whole
    if not is_whole:
        assert described.startswith("# A card\n")
        assert text.endswith("# A card\n\nThe whole card is the file MODEL_CARD.md in this version's artifacts.\n")
    assert Registry(store).card_of("finder", found.version) == card


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


def test_registered_model_answers_texts_and_images_in_one_space(store, registered, tmp_path):
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model("models:/finder@challenger")
    red, green = _png((255, 0, 0)), _png((0, 255, 0))
    texts = model.predict(pd.DataFrame({"text": ["a dog", "cat cat"]}))
    images = model.predict(pd.DataFrame({"image": [red, base64.encodebytes(green).decode()]}))
    mixed = model.predict(pd.DataFrame({"text": ["a dog", None], "image": [None, green]}))
    for found in (texts, images, mixed):
        np.testing.assert_allclose(found, [[1, 0], [0, 1]], atol=1e-5)


def test_a_model_registered_with_former_import_names_can_be_loaded_after_its_code_was_renewed(
    store, registered, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [each for each in sys.path if Path(each).resolve() != CHECKOUT])
    mlflow.set_tracking_uri(store)
    (code,) = (tmp_path / "art").glob("models/*/artifacts/bundle_model.py")
    former = code.read_text().replace("from image_finder.components.", "from components.")
    code.write_text(former)
    load = functools.partial(mlflow.pyfunc.load_model, "models:/finder@challenger")
    with pytest.raises(MlflowException, match="No module named 'components'"):
        load()
    renew_code(tmp_path / "art")
    np.testing.assert_allclose(load().predict(pd.DataFrame({"text": ["a dog"]})), [[1, 0]], atol=1e-5)
    current = code.stat()
    renew_code(tmp_path / "art")
    assert code.stat() == current, "current code is not written again"


def _png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(stream, "PNG")
    return stream.getvalue()


def test_registered_model_opens_files_only_below_the_directory_it_was_loaded_with(store, registered, tmp_path):
    mlflow.set_tracking_uri(store)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    red, secret = tmp_path / "images" / "sub" / "red.png", tmp_path / "images-secret.png"
    for path in (red, secret):
        path.write_bytes(_png((255, 0, 0)))
    (tmp_path / "images" / "link.png").symlink_to(secret)
    (tmp_path / "images" / "loop.png").symlink_to("loop.png")
    load = functools.partial(mlflow.pyfunc.load_model, "models:/finder@challenger")
    with pytest.raises(MlflowException, match="row 0: this model opens no files; send the bytes as `image`"):
        load().predict(pd.DataFrame({"image_path": [str(red)]}))
    with pytest.raises(MlflowException, match="image in row 0 is neither bytes nor base64: '/"):
        load().predict(pd.DataFrame({"image": [str(red)]}))
    with pytest.raises(ConfigError, match=r"image_directory is not a directory: '.*/none'; name one"):
        load(model_config={"image_directory": str(tmp_path / "none")})
    model = load(model_config={"image_directory": str(tmp_path / "images")})
    found = model.predict(pd.DataFrame({"image_path": [str(red), "sub/red.png", "sub/../sub/red.png"]}))
    np.testing.assert_allclose(found, [[1, 0]] * 3, atol=1e-5)
    for path in (
        str(secret),
        "../images-secret.png",
        "sub/../../images-secret.png",
        "link.png",
        "/etc/passwd",
        "/none",
    ):
        with pytest.raises(MlflowException, match=f"image_path in row 0 is not below {tmp_path}/images: '{path}'"):
            model.predict(pd.DataFrame({"image_path": [path]}))
    for path, reason in (
        ("loop.png", "cannot be resolved"),
        ("a\0b", "cannot be resolved"),
        ("", "not a regular file"),
    ):
        with pytest.raises(MlflowException, match=reason) as refused:
            model.predict(pd.DataFrame({"image_path": [path]}))
        assert refused.value.get_http_status_code() == 400


def test_a_scoring_server_answers_base64_and_refuses_files_with_a_clear_message(store, registered, tmp_path):
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    mlflow.set_tracking_uri(store)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "red.png").write_bytes(_png((255, 0, 0)))
    model = mlflow.pyfunc.load_model(
        "models:/finder@challenger", model_config={"image_directory": str(tmp_path / "images")}
    )
    with TestClient(scoring_server.init(model)) as client:
        inline = base64.b64encode(_png((0, 255, 0))).decode()
        rows = [{"text": "a dog"}, {"image": inline}, {"image_path": "red.png"}]
        answer = client.post("/invocations", json={"dataframe_records": rows})
        np.testing.assert_allclose(answer.json()["predictions"], [[1, 0], [0, 1], [1, 0]], atol=1e-5)
        refused = client.post("/invocations", json={"dataframe_records": [{"image_path": "/etc/passwd"}]})
    assert refused.status_code == 400
    assert f"image_path in row 0 is not below {tmp_path}/images: '/etc/passwd'" in refused.json()["message"]
    assert "Traceback" not in refused.text


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
    assert (found["val/t2i_r10"], found["val/t2i_queries"], found["val/t2i_gallery"]) == (0.5, 50, 10)
    assert "val/mean_recall" not in found


def test_scores_are_logged_as_numbers_and_whole(store, scores, tmp_path):
    with mlflow.start_run() as run:
        tracking.log_scores(scores)
    found = mlflow.get_run(run.info.run_id).data.metrics
    assert found == {"val/good_match": 0.5, "val/pair_median": 0.5, "val/logit_scale": 10.0}
    (path,) = (tmp_path / "art").rglob("scores.json")
    assert ScoreCalibration.model_validate_json(path.read_text()) == scores
