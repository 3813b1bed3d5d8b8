"""A home that was renamed or copied: what MLflow and ZenML store of its path is brought to where it is, whole or not at all."""

import base64
import hashlib
import json
import logging
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from mlflow.tracking import MlflowClient

from image_finder.components.errors import BusyError, ConfigError, StorageError
from image_finder.components.storage import hash_directory
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import Registry
from image_finder.pipelines import moved_home as moved
from image_finder.pipelines.stores import EXPERIMENT_NAME, Home

MODEL = "finder"
STORE = Path("zenml", "stores", "default_zen_store", "zenml.db")


@pytest.fixture
def home(mlflow_template, tmp_path):
    """A home at a path with a blank and an umlaut: a run with an artefact, a model with a ledger, a ZenML store."""
    made = Home(tmp_path / "first höme")
    made.root.mkdir()
    shutil.copyfile(mlflow_template, made.mlflow_db)
    client = MlflowClient(tracking_uri=made.mlflow_uri, registry_uri=made.mlflow_uri)
    experiment = client.create_experiment(EXPERIMENT_NAME, made.mlflow_artifacts.as_uri())
    run = client.create_run(experiment).info
    client.log_text(run.run_id, "whole", "reports/report.txt")
    promotions = Promotions(Registry(made.mlflow_uri))
    promotions.registry.ensure_model(MODEL)
    client.create_model_version(MODEL, f"{run.artifact_uri}/model", run.run_id)
    promotions.move_champion(MODEL, "1", reason="the first")
    write_zenml(made)
    return made


def write_zenml(home):
    """The tables of ZenML 0.98 that hold paths, and its configuration."""
    database = home.root / STORE
    database.parent.mkdir(parents=True)
    settings = base64.b64encode(json.dumps({"tracking_uri": home.mlflow_uri}).encode())
    parameters = {"gallery": {"root": str(home.root / "data"), "images": f"{home.root}-other/images"}}
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("CREATE TABLE artifact_version (uri TEXT)")
        store.execute("INSERT INTO artifact_version VALUES (?)", (f"{home.zenml_dir}/stores/1/index",))
        store.execute("INSERT INTO artifact_version VALUES (?)", (f"{home.root}-other/index",))
        store.execute("CREATE TABLE pipeline_snapshot (pipeline_configuration TEXT)")
        store.execute("INSERT INTO pipeline_snapshot VALUES (?)", (json.dumps(parameters, ensure_ascii=False),))
        store.execute("CREATE TABLE stack_component (configuration BLOB)")
        store.execute("INSERT INTO stack_component VALUES (?)", (settings,))
    configuration = {"store": {"type": "sql", "url": f"sqlite:///{database}", "database": str(database)}}
    (home.zenml_dir / "config.yaml").write_text(yaml.safe_dump(configuration))


def rename(home, name="second"):
    return Home(home.root.rename(home.root.with_name(name)))


def stored(home):
    """What the ZenML store of a home says."""
    with closing(sqlite3.connect(home.root / STORE)) as store:
        uris = [uri for (uri,) in store.execute("SELECT uri FROM artifact_version")]
        ((snapshot,),) = store.execute("SELECT pipeline_configuration FROM pipeline_snapshot")
        ((settings,),) = store.execute("SELECT configuration FROM stack_component")
    configured = yaml.safe_load((home.zenml_dir / "config.yaml").read_text())["store"]
    return uris, json.loads(snapshot)["gallery"], json.loads(base64.b64decode(settings)), configured


def require_adopted(home, former):
    """Everything in the home is found at its present path."""
    client = MlflowClient(tracking_uri=home.mlflow_uri, registry_uri=home.mlflow_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT_NAME)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.artifact_uri.startswith(f"{home.mlflow_artifacts.as_uri()}/")
    assert client.get_model_version_download_uri(MODEL, "1").startswith(home.root.as_uri())
    assert Path(client.download_artifacts(run.info.run_id, "reports/report.txt")).read_text() == "whole"
    uris, gallery, settings, configured = stored(home)
    assert uris == [f"{home.zenml_dir}/stores/1/index", f"{former.root}-other/index"]
    assert gallery == {"root": str(home.root / "data"), "images": f"{former.root}-other/images"}
    assert settings == {"tracking_uri": home.mlflow_uri}
    assert configured["database"] == str(home.root / STORE)
    assert configured["url"] == f"sqlite:///{home.root / STORE}"


def test_a_renamed_home_is_adopted_once_with_one_line_and_its_ledger_stays_valid(home, caplog):
    before = Promotions(Registry(home.mlflow_uri)).history(MODEL).entries
    second = rename(home)
    for _ in range(2):
        moved.adopt(second)
    assert caplog.messages == [f"Home moved from {home.root} to {second.root}: stored paths updated"]
    require_adopted(second, home)
    history = Promotions(Registry(second.mlflow_uri)).history(MODEL)
    assert (history.entries, history.faults) == (before, ())


def test_adopting_a_copy_leaves_every_file_of_the_original(home):
    digest = hash_directory(home.root)
    copy = Home(Path(shutil.copytree(home.root, home.root.with_name("copy"))))
    moved.adopt(copy)
    require_adopted(copy, home)
    assert hash_directory(home.root) == digest
    moved.adopt(home)
    require_adopted(home, home)


def test_an_adoption_that_was_killed_half_way_is_completed_by_the_next_command(home, caplog):
    second = rename(home)
    if (child := os.fork()) == 0:
        moved._adopt_zenml = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # MLflow's part is done then
        moved.adopt(second)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (moved.mlflow_home(second), moved.zenml_home(second)) == (None, home.root)
    moved.adopt(second)
    require_adopted(second, home)
    assert caplog.messages == [f"Home moved from {home.root} to {second.root}: stored paths updated"]


def test_a_home_below_its_former_path_is_adopted_once_also_when_it_is_done_twice(home):
    former = home.root
    aside = home.root.rename(home.root.with_name("aside"))
    former.mkdir()
    below = Home(aside.rename(former / "below"))
    configuration = (below.zenml_dir / "config.yaml").read_bytes()
    moved.adopt(below)
    (below.zenml_dir / "config.yaml").write_bytes(configuration)  # as if killed before it was written
    moved.adopt(below)
    require_adopted(below, Home(former))


def test_a_store_that_refuses_the_change_is_one_line_and_unchanged(home):
    second = rename(home)
    with closing(sqlite3.connect(second.root / STORE)) as store, store:
        store.execute("CREATE TRIGGER refuse BEFORE UPDATE ON stack_component BEGIN SELECT RAISE(ABORT, 'no'); END")
    digest = hashlib.sha256((second.root / STORE).read_bytes()).hexdigest()
    with pytest.raises(StorageError, match=r"the home was moved and \S+zenml.db cannot be updated: no; "):
        moved.adopt(second)
    assert hashlib.sha256((second.root / STORE).read_bytes()).hexdigest() == digest
    with closing(sqlite3.connect(second.root / STORE)) as store, store:
        store.execute("DROP TRIGGER refuse")
    moved.adopt(second)
    require_adopted(second, home)


def test_a_home_is_not_adopted_while_a_pipeline_runs_in_it(home):
    second = rename(home)
    with FileLock(second.root / "run.lock"), pytest.raises(BusyError, match="another pipeline is running"):
        moved.adopt(second)
    assert moved.mlflow_home(second) == home.root


def test_a_registry_whose_artefacts_are_in_another_home_is_left_alone(home, tmp_path):
    """A database may be used with --mlflow-uri from a home elsewhere, which keeps the artefacts."""
    other = Home(tmp_path / "other")
    other.mlflow_artifacts.mkdir(parents=True)
    shutil.copyfile(home.mlflow_db, other.mlflow_db)
    moved.adopt(other)
    assert moved.mlflow_home(other) is None
    client = MlflowClient(tracking_uri=other.mlflow_uri)
    assert client.get_experiment_by_name(EXPERIMENT_NAME).artifact_location == home.mlflow_artifacts.as_uri()


def test_a_schedule_that_names_the_former_home_is_reported(home, caplog):
    (home.root / "schedule").mkdir()
    (home.root / "schedule" / "finder.service").write_text(f"ExecStart=image-finder --home '{home.root}'")
    second = rename(home)
    moved.adopt(second)
    assert caplog.messages[1] == (
        f"The schedule in {second.root}/schedule still names {home.root}: run 'image-finder pipeline schedule' again"
    )


def connect(home, path, pid):
    """What `zenml login --local` writes."""
    daemon = home.zenml_dir / "zen_server" / "daemon"
    daemon.mkdir(parents=True)
    (daemon / "service.json").write_text(
        json.dumps({"config": {"root_runtime_path": f"{path}/zenml/zen_server/daemon"}})
    )
    (daemon / "service.pid").write_text(f"{pid}\n")
    store = {"type": "rest", "url": "http://127.0.0.1:8237"}
    (home.zenml_dir / "config.yaml").write_text(yaml.safe_dump({"user_id": "u", "store": store}))


def test_a_home_that_a_running_server_keeps_is_refused_with_the_command_that_disconnects_it(home):
    connect(home, home.root, os.getpid())
    with pytest.raises(ConfigError) as raised:
        moved.ensure_own_store(home)
    assert str(raised.value) == (
        f"the home {home.root} is connected to the ZenML server http://127.0.0.1:8237, but pipelines use the home's own store: "
        f"run ZENML_CONFIG_PATH='{home.zenml_dir}' ZENML_LOCAL_STORES_PATH='{home.zenml_dir}/stores' zenml logout --local, "
        "or set ZENML_STORE_URL to use that server"
    )


@pytest.mark.parametrize("server", ["of the original", "that ended"])
def test_a_connection_to_a_server_of_the_original_or_of_the_past_is_undone(home, server, caplog):
    caplog.set_level(logging.WARNING)
    ended = os.fork() or os._exit(0)
    os.waitpid(ended, 0)
    connect(
        home, "/first" if server == "of the original" else home.root, os.getpid() if "original" in server else ended
    )
    moved.ensure_own_store(home)
    assert yaml.safe_load((home.zenml_dir / "config.yaml").read_text()) == {"user_id": "u"}
    assert len(caplog.messages) == 1
    assert not (home.zenml_dir / "zen_server" / "daemon").exists()


def test_a_configuration_that_names_another_store_of_the_home_is_brought_back(home):
    """`zenml logout` without ZENML_LOCAL_STORES_PATH creates a directory there."""
    path = home.zenml_dir / "config.yaml"
    path.write_text(path.read_text().replace("/stores/", "/local_stores/"))
    moved.ensure_own_store(home)
    assert "store" not in yaml.safe_load(path.read_text())
