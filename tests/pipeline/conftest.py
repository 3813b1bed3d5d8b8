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
    """MLflow keeps its address in the environment too: commands of the modules behind this one would follow it there."""
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
    """Two dimensions: a text is (share of "dog", share of "cat"), an image is (red, green), both as unit vectors."""
    return write_tiny_bundle(tmp_path / "tiny_bundle")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Makes tiny bundles: words are the rows of "dog" and "cat", colours those of red, green and blue."""
    return lambda name, **tables: write_tiny_bundle(tmp_path / name, **tables)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without anything in it: making one takes 4 s, copying it none."""
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    uri = f"sqlite:///{path}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()
    return path


@pytest.fixture(scope="module")
def registry_uri(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a registry for the tests of one module; each takes a model of its own."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"
