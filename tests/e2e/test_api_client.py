"""A client generated from the API's document, as a user's program would have it."""

import importlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

# Other media types than these two would be left out of the client.
CONFIG = """
content_type_overrides:
  image/jpeg: application/octet-stream
  image/*: application/octet-stream
  application/zip: application/octet-stream
post_hooks: []
"""


@pytest.fixture(scope="module")
def document(address):
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def client_of(address, document, tmp_path_factory):
    """client_of(operation): its module of the generated client, and a client of the running server."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.yml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).parent / "openapi-python-client"),
        "generate",
        "--meta",
        "none",
        "--fail-on-warning",
    ]
    words = [*command, "--path", "openapi.json", "--config", "config.yml", "--output-path", "finder_client"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    tags = {each["operationId"]: each["tags"][0] for path in document["paths"].values() for each in path.values()}
    with importlib.import_module("finder_client").Client(base_url=address) as client:
        yield lambda operation: (importlib.import_module(f"finder_client.api.{tags[operation]}.{operation}"), client)
    sys.path.remove(str(folder))


def test_every_operation_is_in_the_client(client_of, document):
    operations = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(operations) == 23
    for operation in operations:
        module, _ = client_of(operation)
        assert callable(module.sync_detailed)


def test_the_client_searches_browses_and_loads_images(client_of, painted_library):
    search, client = client_of("search")
    found = search.sync(client=client, q=["red"], k=3)
    assert found.hits[0].name == "red.jpg"
    original, _ = client_of("original")
    expected = (painted_library.parent / "images" / "garden" / "red.jpg").read_bytes()
    assert original.sync_detailed(found.hits[0].id, client=client).content == expected
    thumbnail, _ = client_of("thumbnail")
    assert thumbnail.sync_detailed(found.hits[0].id, client=client).content[:2] == b"\xff\xd8"
    browse, _ = client_of("browse")
    first = browse.sync(client=client, k=50)
    rest = browse.sync(client=client, k=50, cursor=first.cursor)
    assert (len(first.images), len(rest.images), rest.cursor) == (50, 2, None)


def test_the_client_reads_errors(client_of):
    image, client = client_of("image")
    answer = image.sync_detailed("0" * 16, client=client)
    assert (answer.status_code, answer.parsed.code) == (404, "not_found")
