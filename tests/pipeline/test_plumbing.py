"""ZenML and MLflow with a copy of the sources, a new home and another current directory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.slow
_CACHES = shutil.ignore_patterns("__pycache__")


class Sandbox:
    """A copied checkout and a home; every run is a process in an unrelated directory."""

    def __init__(self, root: Path) -> None:
        self.checkout, self.home, self.elsewhere = root / "checkout", root / "home", root / "elsewhere"
        self.elsewhere.mkdir()
        for package in (".typing", "components", "infra/package", "model_registry", "steps", "pipelines"):
            shutil.copytree(CHECKOUT / package, self.checkout / package, symlinks=True, ignore=_CACHES)
        (self.checkout / "tests" / "pipeline").mkdir(parents=True)
        shutil.copy(CHECKOUT / "tests" / "pipeline" / "scratch.py", self.checkout / "tests" / "pipeline")

    def run(self, *arguments: str) -> tuple[dict, str]:
        """Result of a run of the scratch pipeline, and its stderr."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
        done = subprocess.run(
            [sys.executable, self.checkout / "tests" / "pipeline" / "scratch.py", self.home, *arguments],
            cwd=self.elsewhere,
            env={
                **kept,
                "ZENML_CUSTOM_SOURCE_ROOT": str(self.checkout / "tests"),  # holds the steps, and none of our packages
                "PYTHONPATH": f"{self.checkout / '.typing'}{os.pathsep}{self.checkout}",
                "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    return Sandbox(tmp_path_factory.mktemp("plumbing"))


@pytest.fixture(scope="module")
def first(sandbox):
    return sandbox.run()


def test_the_first_run_needs_only_a_home(first, sandbox):
    result, talk = first
    assert [step["status"] for step in result["steps"].values()] == ["completed", "completed"]
    assert result["summary"] == "content 0.1 2 ein Hündchen 6 0.001"
    assert list(sandbox.elsewhere.iterdir()) == []  # no mlruns, no mlflow.db, no .zen in the current directory
    assert talk == ""


def test_sources_and_materializers_are_stored_by_name(first):
    result, _ = first
    assert {(step["type"], step["module"]) for step in result["steps"].values()} == {
        ("SourceType.USER", "pipeline.scratch")
    }
    outputs = result["steps"]["make_parts"]["outputs"]
    assert {name: output["materializer"] for name, output in outputs.items()} == {
        "folder": "pipeline.scratch.FolderMaterializer",
        "interval": "image_finder.steps.materializers.RecordMaterializer",
        "table": "image_finder.steps.materializers.TableMaterializer",
    }
    assert all(output["hash"] for output in outputs.values())
    assert outputs["folder"]["metadata"]["kind"] == "scratch"
    assert outputs["folder"]["metadata"]["files"] == "2"


def test_tracked_step_logs_numbers_pages_and_machine_load_into_the_home(first, sandbox):
    client = mlflow.MlflowClient(tracking_uri=first[0]["uri"])
    experiment = client.get_experiment_by_name("image-finder")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["rate"] == 0.001
    assert "system/cpu_utilization_percentage" in run.data.metrics
    (page,) = (sandbox.home / "mlartifacts").rglob("page.html")
    assert page.read_text() == "<p>hello</p>"


def test_mlflow_address_is_blank_after_a_tracked_step_and_home_names_it(first, sandbox):
    assert first[0]["after"] == ""
    assert first[0]["uri"] == f"sqlite:///{sandbox.home}/mlflow.db"


def test_a_renamed_home_keeps_its_cached_steps_and_logs_the_move_in_one_line(first, sandbox):
    former = sandbox.home
    sandbox.home = former.rename(former.with_name("renamed home"))
    try:
        result, talk = sandbox.run()
    finally:
        sandbox.home = sandbox.home.rename(former)
    assert [step["status"] for step in result["steps"].values()] == ["cached", "cached"]
    assert result["summary"] == first[0]["summary"]
    assert f"Home moved from {former} to {former.with_name('renamed home')}: stored paths updated" in talk.splitlines()
    sandbox.run()  # moved back, it is updated again


def test_unchanged_run_is_cached_until_a_component_changes(first, sandbox):
    again, _ = sandbox.run()
    assert [step["status"] for step in again["steps"].values()] == ["cached", "cached"]
    with (sandbox.checkout / "components" / "errors.py").open("a") as stream:
        stream.write("# edited\n")
    edited, _ = sandbox.run()
    assert [step["status"] for step in edited["steps"].values()] == ["completed", "completed"]


def test_yaml_parameters_fill_nested_configs_and_keep_their_defaults(first, sandbox, tmp_path):
    yaml = tmp_path / "run.yaml"
    yaml.write_text("parameters:\n  split:\n    val_fraction: 0.25\n  training:\n    epochs: 3\n")
    result, _ = sandbox.run(str(yaml))
    assert result["summary"] == "content 0.25 2 ein Hündchen 3 0.001"
