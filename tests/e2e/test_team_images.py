"""The images of pipeline and servers are built and run with PostgreSQL, as compose.yaml and the pods start them.

The demo trains and indexes in the pipeline's image and stores runs, models and artefacts in the servers of compose.yaml.
The pods of mlflow.yaml and zenml.yaml then start with these volumes, and the jobs' pods use them.
"""

import contextlib
import json
import os
import re
import subprocess

import pytest

from tests.support.buildah import buildah_in
from tests.support.containers import (
    COMPOSE,
    Container,
    Machine,
    Options,
    container_in,
    fetch,
    manifests,
    pod_of,
    probes_of,
)
from tests.support.servers import postgresql, postgresql_binaries, wait_until

REQUEST = "IMAGE_FINDER_TEST_IMAGES"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get(REQUEST) != "1", reason=f"takes up to 30 minutes and 30 GB of disk: set {REQUEST}=1"
    ),
    pytest.mark.timeout(3600),
]

DOCKERFILES = {
    "image-finder": "serve.Dockerfile",
    "image-finder-servers": "servers.Dockerfile",
    "image-finder-pipeline": "pipeline.Dockerfile",
}
PASSWORD, JWT_SECRET, TOKEN = "team-password-0123456789", "0123456789abcdef" * 4, "a-token-of-more-than-16-characters"
COMMIT = "0123456789ab"
NAMES = ("postgres", "mlflow", "zenml", "mlflow.image-finder.svc", "zenml.image-finder.svc")
VARIABLES = {"POSTGRES_PASSWORD": PASSWORD, "ZENML_PASSWORD": PASSWORD, "ZENML_JWT_SECRET": JWT_SECRET}
DATABASE = f"postgresql://mlflow:{PASSWORD}@postgres:5432/mlflow"
STEP_ARTEFACTS = "/srv/image-finder/zenml"  # as in the commands at the top of compose.yaml
PODS = {
    name: pod_of(manifest)
    for file in ("mlflow", "zenml", "search", "pipeline")
    for (kind, name), manifest in manifests(file).items()
    if kind in ("Deployment", "CronJob")
}
CREATE_KEY = """
from zenml.client import Client
client = Client()
client.create_service_account("retrain")
print("key:", client.create_api_key("retrain", "job").key)
"""
LIST_RUNS = """
from zenml.client import Client
for run in Client().list_pipeline_runs(hydrate=True):
    print("run:", run.pipeline.name, run.status)
"""


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    with buildah_in(tmp_path_factory.mktemp("images")) as found:
        yield found


@pytest.fixture(scope="module")
def images(buildah):
    arguments = {"image-finder-pipeline": {"CODE_VERSION": COMMIT}}
    return {name: buildah.build(file, name, **arguments.get(name, {})) for name, file in DOCKERFILES.items()}


@pytest.fixture(scope="module")
def machine(buildah, isolated_network, tmp_path_factory):
    return Machine(buildah, isolated_network, tmp_path_factory.mktemp("volumes"), NAMES)


@pytest.fixture(scope="module")
def database(machine):
    """PostgreSQL on its usual port; yields query(statement), which returns the lines of the answer."""
    with postgresql(5432, PASSWORD, within=machine.network.words) as address:

        def query(statement):
            words = machine.network.words(postgresql_binaries() / "psql", address, "-Atc", statement)
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

        yield query


@contextlib.contextmanager
def services(machine, images, *names):
    """Running services of compose.yaml whose health checks have passed."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name in names:
            container = Container(machine, machine.service(name, VARIABLES, images))
            log = machine.volume(f"{name}.log")
            started[name] = (container, stack.enter_context(container.serving(log)), log)
        for name, (container, process, log) in started.items():
            kind, *check = COMPOSE["services"][name]["healthcheck"]["test"]
            assert kind == "CMD"
            wait_until(lambda container=container, check=check: container.succeeds(*check), process, log)
        yield {name: container for name, (container, _, _) in started.items()}


def client(machine, images, **environment):
    """A container of the pipeline's image as a member of the team would start it."""
    mounts = {}
    for path, name in (("/finder", "home"), ("/zenml", "client"), (STEP_ARTEFACTS, "steps")):
        mounts[path] = (machine.volume(name), False)
        machine.volume(name).mkdir(exist_ok=True)
        os.chown(machine.volume(name), 10001, 10001)
    login = {"ZENML_STORE_URL": "http://zenml:8080", "ZENML_CONFIG_PATH": "/zenml"}
    login |= {"ZENML_STORE_USERNAME": "default", "ZENML_STORE_PASSWORD": PASSWORD}
    image = images["image-finder-pipeline"]
    user = machine.buildah.config_of(image)["User"]
    return Container(machine, Options(image, user, [], login | environment, mounts, ["/tmp"]))


@pytest.fixture(scope="module")
def trained(machine, images, database):
    """What the demo printed and what was stored; the servers have ended."""
    with services(machine, images, "mlflow", "zenml") as servers:
        member = client(machine, images)
        settings = ["--set", "experiment_tracker.tracking_uri=http://mlflow:5000"]
        settings += ["--set", f"artifact_store.path={STEP_ARTEFACTS}"]
        member.run("image-finder", "stack", "apply", "/opt/image-finder/stacks/team.yaml", *settings)
        printed = member.run("image-finder", "demo", "--home", "/finder")
        runs = re.findall(r"run: (\S+) (\S+)", member.run("python", "-c", LIST_RUNS))
        key = re.search(r"key: (\S+)", member.run("python", "-c", CREATE_KEY))[1]
        written = {"pipeline": member.written()} | {name: each.written() for name, each in servers.items()}
    return {"printed": printed, "runs": runs, "key": key, "written": written}


@pytest.fixture(scope="module")
def pods(machine, images, trained):
    """The pods of both servers, started with the volumes of the services."""
    machine.volume("artifacts").rename(machine.volume("mlflow-artifacts"))
    machine.volume("zenml").rename(machine.volume("zenml-store"))
    with contextlib.ExitStack() as stack:
        started = {}
        for name in ("mlflow", "zenml"):
            container = pod_container(machine, images, name, name)
            log = machine.volume(f"{name}-pod.log")
            process = stack.enter_context(container.serving(log))
            port, path = probes_of(container_in(PODS[name], name))["startupProbe"]
            url = f"http://127.0.0.1:{port}{path}"
            wait_until(lambda url=url: fetch(machine.network, url)[0] == 200, process, log)
            started[name] = container
        yield started


def pod_container(machine, images, pod, name, key=""):
    secrets = {
        "mlflow-database": {"uri": DATABASE},
        "zenml-server": {"password": PASSWORD, "jwt-secret": JWT_SECRET},
        "zenml-client": {"api-key": key},
        "object-store": {"access-key-id": "none", "secret-access-key": "none"},
        "search-token": {"token": TOKEN},
    }
    spec = PODS[pod]
    return Container(machine, machine.pod(spec, container_in(spec, name), secrets, images))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_built(buildah, images, name, record_property):
    record_property("size", buildah.sizes(images[name]))
    labels = buildah.config_of(images["image-finder-pipeline"])["Labels"]
    assert labels["org.opencontainers.image.revision"] == COMMIT


def test_the_demo_trains_indexes_and_finds(trained):
    assert '"a fox in the forest" among 1,500 images' in trained["printed"]
    assert "Done in" in trained["printed"]


def test_its_runs_models_and_metrics_are_in_postgresql(trained, database):
    assert database("select version from model_versions where name = 'image-finder-demo'") == ["1"]
    (run,) = database("select run_id from model_versions where name = 'image-finder-demo'")
    assert database(f"select status from runs where run_uuid = '{run}'") == ["FINISHED"]
    steps = database(f"select step from metrics where run_uuid = '{run}' and key = 'train/loss' order by step")
    assert steps == [str(epoch) for epoch in range(1, 13)]


def test_its_model_records_the_commit_of_the_image(trained, database):
    tags = "select value from model_version_tags where name = 'image-finder-demo' and key = 'code_version'"
    assert database(tags) == [COMMIT]


def test_its_runs_are_on_the_zenml_server(trained):
    assert sorted(trained["runs"]) == [("finder_indexing", "completed"), ("finder_training", "completed")]


def test_servers_and_runs_write_to_their_volumes_only(trained):
    assert trained["written"] == {"pipeline": [], "mlflow": [], "zenml": []}


@pytest.mark.parametrize("name", ["mlflow", "zenml"])
def test_the_pods_of_the_servers_answer_their_probes(machine, pods, name):
    for port, path in probes_of(container_in(PODS[name], name)).values():
        # The kubelet calls a pod by its address.
        status, _ = fetch(machine.network, f"http://127.0.0.1:{port}{path}", Host=f"10.244.1.7:{port}")
        assert status == 200
    assert pods[name].written() == []


def test_the_retrain_pod_applies_the_stack_and_knows_its_command(machine, images, trained, pods):
    apply = pod_container(machine, images, "retrain", "apply-stack", trained["key"])
    assert "image-finder-kubernetes" in apply.run()
    retrain = pod_container(machine, images, "retrain", "retrain", trained["key"])
    assert "Train, compare with the champion" in retrain.run(*retrain.options.command, "--help")
    assert apply.written() == []


@pytest.fixture(scope="module")
def fetched(machine, images, trained, pods):
    """The index job's first container has run."""
    container = pod_container(machine, images, "search-index", "fetch-champion")
    container.run()
    return container.written()


def test_the_index_job_fetches_the_champion_and_indexes(machine, images, fetched):
    images_here = machine.volume("search-images")
    subprocess.run(["cp", "-r", machine.volume("home") / "data" / "demo" / "images", images_here], check=True)
    index = pod_container(machine, images, "search-index", "index")
    assert "images searchable in /library" in index.run()
    assert fetched == []
    assert index.written() == []
    found = index.run("image-finder", "search", "a fox in the forest", "--library", "/library", "-k", "3", "--json")
    assert len(json.loads(found)["hits"]) == 3


def test_no_program_called_another_host(machine, fetched):
    assert machine.network.attempted() == []
