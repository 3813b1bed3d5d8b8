"""The search image is built and run, as its Dockerfile, compose.yaml and the pods of search.yaml start it."""

import json
import re
import shutil

import pytest

from tests.support.buildah import BASE, buildah_in
from tests.support.checkout import CHECKOUT
from tests.support.containers import Container, Machine, container_in, fetch, manifests, pod_of, probes_of
from tests.support.servers import wait_until

pytestmark = pytest.mark.slow

ADDED_MB = 375  # python:3.11-slim has 125 MB, and the image at most 500
TOKEN = "a-token-of-more-than-16-characters"
OWNER = 12345  # an account that the image does not have
ADDRESS = "http://127.0.0.1:8080"
PODS = {
    name: pod_of(manifest)
    for (kind, name), manifest in manifests("search").items()
    if kind in ("Deployment", "CronJob")
}


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    with buildah_in(tmp_path_factory.mktemp("images")) as found:
        yield found


@pytest.fixture(scope="module")
def image(buildah):
    return buildah.build("serve.Dockerfile", "image-finder")


@pytest.fixture(scope="module")
def machine(buildah, image, isolated_network, tmp_path_factory):
    return Machine(buildah, isolated_network, tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def library(machine, painted_library):
    """A library that only its owner can read."""
    copy = machine.volume("library")
    shutil.copytree(painted_library, copy)
    for path in (copy, *copy.rglob("*")):
        shutil.chown(path, OWNER, OWNER)
        path.chmod(0o500 if path.is_dir() else 0o400)
    return copy


@pytest.fixture
def service(machine, image, library, painted_library):
    """The running service of compose.yaml. It and the search pod use one port, so it ends with each test."""
    variables = {"OWNER": f"{OWNER}:{OWNER}", "IMAGE_FINDER_TOKEN": TOKEN, "LIBRARY": str(library)}
    variables |= {"IMAGES": str(painted_library.parent / "images"), "HOME": "/root"}
    container = Container(machine, machine.service("search", variables, {"image-finder": image}))
    log = machine.volume("service.log")
    with container.serving(log) as process:
        wait_until(lambda: fetch(machine.network, f"{ADDRESS}/health/ready")[0] == 200, process, log)
        yield container


@pytest.fixture(scope="module")
def indexed(machine, image, painted_library):
    """The index job's second container has run, on volumes with images and a bundle."""
    images = machine.volume("search-images")
    shutil.copytree(painted_library.parent / "images", images)
    champion = machine.volume("index-champion")
    shutil.copytree(painted_library.parent / "bundle", champion / "bundle")
    container = pod_container(machine, image, "search-index", "index")
    printed = container.run()
    return printed, container.written()


def pod_container(machine, image, pod, name):
    spec = PODS[pod]
    secrets = {"search-token": {"token": TOKEN}}
    return Container(machine, machine.pod(spec, container_in(spec, name), secrets, {"image-finder": image}))


def first_hit(machine, query):
    status, body = fetch(machine.network, f"{ADDRESS}/api/v1/search?q={query}&k=1", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    return json.loads(body)["hits"][0]


def test_the_image_is_small(buildah, image, record_property):
    record_property("size", buildah.sizes(image))
    assert buildah.size_mb(image) - buildah.size_mb(BASE) < ADDED_MB


def test_the_service_answers_as_another_user_with_a_read_only_library_and_writes_nothing(machine, service):
    hit = first_hit(machine, "red")
    assert hit["name"] == "red.jpg"
    assert fetch(machine.network, f"{ADDRESS}/api/v1/search?q=red&k=1")[0] == 401
    status, _ = fetch(
        machine.network, f"{ADDRESS}/api/v1/images/{hit['id']}/thumbnail", Authorization=f"Bearer {TOKEN}"
    )
    assert status == 200  # the image was found at its path in the library
    assert service.written() == []


def test_its_health_check_passes(service):
    check = (CHECKOUT / "infra" / "docker" / "serve.Dockerfile").read_text().split("HEALTHCHECK")[1]
    service.run(*json.loads(re.search(r"CMD (\[.*\])", check)[1]))


def test_its_image_starts_the_server_as_its_user(buildah, image):
    config = buildah.config_of(image)
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["image-finder"]


def test_the_index_pod_indexes_with_the_champion_and_writes_only_to_its_volumes(indexed):
    printed, written = indexed
    assert "images searchable in /library" in printed
    assert written == []


def test_the_pod_that_waits_for_an_index_ends_when_there_is_one(machine, image, indexed):
    pod_container(machine, image, "search", "wait-for-an-index").run()


def test_the_search_pod_answers_its_probes_and_a_search(machine, image, indexed):
    container, log = pod_container(machine, image, "search", "search"), machine.volume("pod.log")
    probes = probes_of(container_in(PODS["search"], "search"))
    assert {port for port, _ in probes.values()} == {8080}
    with container.serving(log) as process:
        urls = {name: f"http://127.0.0.1:{port}{path}" for name, (port, path) in probes.items()}
        wait_until(lambda: fetch(machine.network, urls["startupProbe"])[0] == 200, process, log)
        # The kubelet calls a pod by its address.
        for url in urls.values():
            assert fetch(machine.network, url, Host="10.244.1.7:8080")[0] == 200
        assert first_hit(machine, "red")["name"] == "red.jpg"
    assert container.written() == []
