"""The team stack for real: PostgreSQL, an MLflow server and a ZenML server, and two people who train at the same time.

The servers are started by the very commands of infra/compose.yaml, without containers: on loopback, in temporary folders.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.checkout import CHECKOUT
from tests.support.servers import free_port, postgresql, running, wait_until
from tests.support.small_trunk import SMALL_IMAGE_TRUNK, write_text_trunk

pytestmark = pytest.mark.slow

COMPOSE = yaml.safe_load((CHECKOUT / "infra" / "compose.yaml").read_text(encoding="utf-8"))
PASSWORD = "team-password-0123456789"
TINY: dict[str, Any] = {
    "parameters": {
        "dataset": {"name": "tiny", "layout": "demo", "demo_images": 60},
        "split": {"val_fraction": 0.2, "test_fraction": 0.2},
        "model": {
            "embedding_dim": 32,
            "image": {**SMALL_IMAGE_TRUNK, "pool_width": 32, "pool_heads": 2},
            "text": {"weights": "hub", "pooling": "mean_end"},  # with the trunk of write_text_trunk
        },
        "training": {"epochs": 2, "batch_images": 16},
        "evaluation": {"min_times_random": 0, "bootstrap_samples": 100},
        "export": {"parity_images": 8},
    }
}


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def clean_environment():
    return {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))}


@contextlib.contextmanager
def server(name, root, port, **changes):
    """A server of infra/compose.yaml, its command as it stands there but for the address."""
    service = COMPOSE["services"][name]
    words = dict(zip(service["command"], service["command"][1:], strict=False))
    command = list(service["command"])
    command[command.index(words["--host"])] = "127.0.0.1"
    command[command.index(words["--port"])] = str(port)
    command[0] = str(Path(sys.executable).with_name(command[0]))
    environment = {**service["environment"], **changes}
    assert not [value for value in environment.values() if "${" in value], "a variable of the compose file is not set"
    log = root / f"{name}.log"
    with running(command, log, cwd=root, env={**clean_environment(), **environment}) as process:
        path = re.search(r"127\.0\.0\.1:\d+(/\w+)'", service["healthcheck"]["test"][-1])[1]
        yield lambda: wait_until(lambda: answers(f"http://127.0.0.1:{port}{path}"), process, log)


class Team:
    """The servers' addresses, and commands of its people, each with a separate home and separate settings of ZenML."""

    def __init__(self, root, database, mlflow, zenml):
        self.root, self.database, self.mlflow, self.zenml = root, database, mlflow, zenml
        TINY["parameters"]["model"]["text"]["trunk"] = str(write_text_trunk(root / "words"))
        (root / "training.yaml").write_text(yaml.safe_dump(TINY))

    def run(self, person, *words, check=True):
        done = subprocess.run(
            [sys.executable, "-m", "image_finder", *map(str, words), "--home", str(self.root / person)],
            cwd="/",
            env={
                **clean_environment(),
                "PYTHONPATH": str(CHECKOUT),
                "OMP_NUM_THREADS": "1",
                "ZENML_STORE_URL": self.zenml,
                "ZENML_STORE_USERNAME": "default",
                "ZENML_STORE_PASSWORD": PASSWORD,
                "ZENML_CONFIG_PATH": str(self.root / f"{person}-zenml"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done

    def apply(self, person):
        return json.loads(
            self.run(
                *(person, "stack", "apply", "team", "--json"),
                *("--set", f"experiment_tracker.tracking_uri={self.mlflow}"),
                *("--set", f"artifact_store.path={self.root / 'shared'}"),
            ).stdout
        )

    def train(self, person, seed):
        words = ("pipeline", "run", "training", "--config", self.root / "training.yaml", "--json")
        return json.loads(self.run(person, *words, "--set", f"training.seed={seed}").stdout)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    root = tmp_path_factory.mktemp("team")
    ports = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgresql(free_port(), PASSWORD))
        mlflow_ready = stack.enter_context(
            server(
                *("mlflow", root, ports[0]),
                MLFLOW_BACKEND_STORE_URI=database,
                MLFLOW_ARTIFACTS_DESTINATION=str(root / "artifacts"),
                MLFLOW_SERVER_ALLOWED_HOSTS="127.0.0.1:*",
                MLFLOW_DISABLE_TELEMETRY="true",
            )
        )
        zenml_ready = stack.enter_context(
            server(
                *("zenml", root, ports[1]),
                ZENML_CONFIG_PATH=str(root / "zenml"),
                ZENML_SERVER_JWT_SECRET_KEY="0123456789abcdef" * 4,
                ZENML_DEFAULT_USER_PASSWORD=PASSWORD,
                ZENML_ANALYTICS_OPT_IN="false",
            )
        )
        mlflow_ready()
        zenml_ready()
        yield Team(root, database, *(f"http://127.0.0.1:{port}" for port in ports))


@pytest.fixture(scope="module")
def trained(team):
    """What two people's commands printed who applied the stack one after the other and then trained at once."""
    plans = [team.apply("ada"), team.apply("bob")]
    with ThreadPoolExecutor(2) as people:
        outcomes = list(people.map(team.train, ("ada", "bob"), (1, 2)))
    return team, plans, outcomes


def test_the_second_person_finds_the_stack_as_the_first_made_it(trained):
    _, (first, second), _ = trained
    assert first["action"] == "create"
    assert {component["action"] for component in first["components"]} == {"create"}
    assert second["action"] == "unchanged"
    assert {component["action"] for component in second["components"]} == {"unchanged"}


def test_both_runs_are_whole_in_postgresql(trained):
    import psycopg2

    team, _, outcomes = trained
    with contextlib.closing(psycopg2.connect(team.database)) as connection, connection.cursor() as cursor:
        cursor.execute("select version from model_versions where name = 'image-finder' order by version")
        assert [version for (version,) in cursor.fetchall()] == [1, 2]
        cursor.execute(
            "select r.run_uuid, r.status from runs r join experiments e using (experiment_id) "
            "where e.name = 'image-finder' and exists "
            "(select 1 from params p where p.run_uuid = r.run_uuid and p.key = 'training.seed')"
        )
        runs = cursor.fetchall()
        assert [status for _, status in runs] == ["FINISHED", "FINISHED"]
        for run, _ in runs:
            cursor.execute("select step from metrics where run_uuid = %s and key = 'train/loss' order by step", (run,))
            assert [step for (step,) in cursor.fetchall()] == [1, 2]
        cursor.execute("select value from params where key = 'training.seed' order by value")
        assert [seed for (seed,) in cursor.fetchall()] == ["1", "2"]
    assert {outcome["decision"]["challenger_version"] for outcome in outcomes} == {"1", "2"}


def test_each_version_gives_back_the_bundle_that_was_registered(trained, tmp_path):
    from image_finder.model_registry.registry import Registry

    team, _, outcomes = trained
    registry = Registry(team.mlflow)
    for outcome in outcomes:
        version = outcome["decision"]["challenger_version"]
        bundle = registry.download_bundle("image-finder", version, tmp_path / version)
        assert registry.version("image-finder", version).tags["bundle_sha256"] == bundle.sha256
        report = registry.report_of("image-finder", version)
        assert report.model_dump(mode="json") == outcome["report"]


def test_whoever_was_second_was_compared_with_the_first_and_the_aliases_say_so(trained):
    from image_finder.model_registry.registry import Registry

    team, _, outcomes = trained
    registry = Registry(team.mlflow)
    decisions = {outcome["decision"]["champion_version"]: outcome["decision"] for outcome in outcomes}
    first = decisions.pop(None)  # exactly one found no champion
    assert first["promoted"]
    ((champion, second),) = decisions.items()
    assert champion == first["challenger_version"]
    winner = second["challenger_version"] if second["promoted"] else champion
    assert registry.version("image-finder", "champion").version == winner
    assert registry.version("image-finder", "challenger").version == "2"


def test_the_ledger_is_whole_and_holds_both_decisions(trained):
    team, _, _ = trained
    done = team.run("ada", "models", "history", "--json", "--mlflow-uri", team.mlflow)
    entries = json.loads(done.stdout)["entries"]
    assert [entry["n"] for entry in entries] == list(range(1, len(entries) + 1))
    decided = {entry["to_version"] for entry in entries if entry["kind"] == "decision"}
    assert decided == {"1", "2"}


def test_both_runs_are_whole_on_the_zenml_server(trained):
    team, _, _ = trained
    form = urllib.parse.urlencode({"username": "default", "password": PASSWORD}).encode()
    with urllib.request.urlopen(f"{team.zenml}/api/v1/login", data=form, timeout=30) as answer:
        token = json.load(answer)["access_token"]
    query = urllib.request.Request(
        f"{team.zenml}/api/v1/runs?size=50&hydrate=true", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(query, timeout=30) as answer:
        runs = json.load(answer)["items"]
    assert [run["body"]["status"] for run in runs] == ["completed", "completed"]


def test_artefacts_of_steps_lie_where_both_can_read_them(trained):
    team, _, _ = trained
    kinds = {path.name for path in (team.root / "shared").iterdir()}
    assert {"train_dual_encoder", "export_bundle"} <= kinds


def test_a_server_that_does_not_let_one_in_is_named_in_one_line(trained, monkeypatch):
    team, _, _ = trained
    stranger = Team(team.root, team.database, team.mlflow, f"http://127.0.0.1:{free_port()}")
    done = stranger.run("eve", "stack", "apply", "team", "--set", "x.y=1", check=False)
    assert done.returncode == 1
    settings = ("--set", f"experiment_tracker.tracking_uri={team.mlflow}", "--set", "artifact_store.path=/srv")
    done = stranger.run("eve", "stack", "apply", "team", *settings, check=False)
    assert done.returncode == 1
    assert f"ZenML server {stranger.zenml} cannot be used" in done.stderr.splitlines()[-1]
