"""Fixtures of the pipeline tests: tiny bundles, a report with known numbers, and registries."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.retrieval import RetrievalReport
from tests.support.tiny_bundle import retrieval_report, score_calibration, write_tiny_bundle


@pytest.fixture(scope="module", autouse=True)
def _forget_mlflow_address() -> Iterator[None]:
    """Reset MLflow's address, which it keeps in the environment, after each module."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def scores() -> ScoreCalibration:
    return score_calibration()


@pytest.fixture
def report() -> RetrievalReport:
    return retrieval_report()


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Bundle:
    """Two dimensions: (share of "dog", share of "cat") of a text, (red, green) of an image."""
    return write_tiny_bundle(tmp_path / "tiny_bundle")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Makes tiny bundles; words: vectors of "dog" and "cat", colours: of red, green and blue."""
    return lambda name, **tables: write_tiny_bundle(tmp_path / name, **tables)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, which takes 4 s to create and none to copy."""
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    uri = f"sqlite:///{path}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()
    return path


@pytest.fixture(scope="module")
def registry_uri(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a registry for the tests of one module; each uses another model."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> Iterator[str]:
    """URI of a tracking store with an experiment, all in tmp_path; global state is restored."""
    import mlflow

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
