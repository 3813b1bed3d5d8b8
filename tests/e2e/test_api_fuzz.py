"""Requests generated from the OpenAPI document: no answer is a server error or undocumented.

Random requests seldom put a given odd value into a given field, so a second test puts every one of them into each.
"""

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.settings import Settings
from image_finder.components.search.finder import Finder
from tests.support.album import publish_album
from tests.support.colour_bundle import write_colour_bundle

pytestmark = pytest.mark.slow

EXAMPLES = 40  # per operation, mode and kind of id; all take less than a minute
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@contextlib.contextmanager
def listening(app):
    """Address of the application, served in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, http="h11", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a server with five images, and their ids."""
    folder = tmp_path_factory.mktemp("fuzzed")
    bundle = write_colour_bundle(folder / "bundle")
    (folder / "images").mkdir()
    for colour in ("red", "green", "blue", "yellow", "white"):
        Image.new("RGB", (64, 48), colour).save(folder / "images" / f"{colour}.png")
    index = publish_album(folder / "images", bundle, folder)
    app = create_app(lambda: Finder.open(index, threads=1), Settings.parse({"thumbnails_path": folder / "thumbnails"}))
    with listening(app) as address:
        yield address


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as documented", "otherwise"])
def test_no_generated_request_causes_a_server_error_or_an_undocumented_answer(served, mode):
    schema = schemathesis.openapi.from_url(f"{served}/openapi.json")
    known = requests.get(f"{served}/api/v1/search?q=red", timeout=30).json()["hits"][0]["id"]
    succeeded = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), "the description is valid"
        operation = result.ok()
        for identity in (None, known):
            statuses = _statuses(operation, mode, identity)
            assert mode is GenerationMode.NEGATIVE or statuses
            succeeded |= {operation.label} if 200 in statuses else set()
    if mode is GenerationMode.POSITIVE:
        assert succeeded >= EVERYTHING


def _statuses(operation, mode, identity):
    """Statuses of all answers, each of them documented.

    identity: replaces every generated id; generated folders and part names are replaced by existing ones.
    """
    seen = set()

    @seed(20261124)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        if identity is not None:
            _name(case, identity)
        response = case.call(timeout=30)
        assert response.status_code < 500 or response.status_code == 503
        case.validate_response(response, checks=CHECKS)
        seen.add(response.status_code)

    # Operations without parameters have no invalid requests.
    with contextlib.suppress(*[Unsatisfiable] * (mode is GenerationMode.NEGATIVE)):
        check()
    return seen


def _name(case, identity):
    if isinstance(case.path_parameters, dict) and "id" in case.path_parameters:
        case.path_parameters["id"] = identity
    if isinstance(case.query, dict):
        known = {"like": [identity], "folder": ["images"]}
        case.query.update({name: value for name, value in known.items() if name in case.query})
    body = case.body.get("query", case.body) if isinstance(case.body, dict) else {}
    if not isinstance(body, dict):
        return
    if "id" in body:
        body["id"] = identity
    if "image" in body and body is not case.body:
        body["image"] = "image"
    if "like" in body:
        body["like"] = [identity]
    if "folder" in body:
        body["folder"] = ["images"]
    for term in [*_list(body.get("terms")), *_list(body.get("not"))]:
        if isinstance(term, dict):
            term.update({name: value for name, value in {"like": identity, "image": "image"}.items() if name in term})


def _list(value):
    return value if isinstance(value, list) else []


# JSON values that most fields do not expect; "\\xff" is not UTF-8, a lone surrogate ("\\ud800") not text.
HOSTILE = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e400", b"-1e400", b"NaN", b"Infinity", b"9" * 400, b"9" * 5000),
    *(b'""', b'"a"', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"' + b"x" * 2000 + b'"', b'"2024-02-30"'),
    *(b"[]", b"[null]", b"{}", b'{"":null}', b'{"text":"a","text":null}', b"[" * 90 + b"]" * 90, b"[" * 5000, b""),
)
_HERE = "<here>"  # marks the position of a hostile value
BOUNDARY = "part-of-a-body"


def test_no_field_value_causes_a_server_error(served):
    paths = requests.get(f"{served}/openapi.json", timeout=30).json()["paths"]
    schemas = {
        path: operation["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path, operation in paths.items()
        if "requestBody" in operation.get("post", {})
    }
    assert set(schemas) == {
        "/api/v1/search",
        "/api/v1/searches",
        "/api/v1/embed",
        "/api/v1/labels",
        "/api/v1/folders",
        "/api/v1/images/{id}/explanation",
    }
    found = requests.get(f"{served}/api/v1/search?q=red&k=1", timeout=30).json()
    identity = found["hits"][0]["id"]
    with requests.Session() as session:
        for path, schema in schemas.items():
            bodies = hostile_bodies(schema)
            assert len(bodies) > 2 * len(HOSTILE)
            for number, body in enumerate(bodies):
                sent: dict[str, Any] = multipart(body) if number % 4 == 0 else {"data": body, "headers": JSON}
                answer = session.post(f"{served}{path.format(id=identity)}", timeout=30, **sent)
                assert answer.status_code in {200, 400, 403, 404, 413, 415, 422}, (path, body[:200], answer.text)
                assert answer.ok or set(answer.json()) - {"errors"} == PROBLEM


PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}
JSON = {"Content-Type": "application/json"}
VALID = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="query"\r\n\r\n{{"terms":[{{"text":"red"}}]}}\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="p"; filename="p.png"\r\nContent-Type: image/png\r\n\r\nx\r\n'
    f"--{BOUNDARY}--\r\n"
).encode()


@seed(20261124)
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.integers(0, len(VALID)),
    length=st.integers(0, 40),
    new=st.binary(max_size=12),
    boundary=st.sampled_from([BOUNDARY] * 3 + ["", "x", "-", '"', f'"{BOUNDARY}"; charset=nothing', "\xff", "a" * 300]),
)
def test_no_damaged_multipart_body_causes_a_server_error(served, start, length, new, boundary):
    damaged = VALID[:start] + new + VALID[start + length :]
    kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    answer = requests.post(f"{served}/api/v1/search", data=damaged, headers={"Content-Type": kind}, timeout=30)
    assert answer.status_code in {200, 400, 404, 413, 415, 422}, (damaged, answer.text)


def multipart(body):
    return {"files": {"query": (None, body), "image": ("p.png", b"no image")}}


def hostile_bodies(schema):
    """Bodies with one hostile value; all others match the schema."""
    texts = sorted({json.dumps(sample).encode() for sample in marked(schema)})
    return [text.replace(f'"{_HERE}"'.encode(), value) for text in texts for value in HOSTILE]


def marked(schema):
    """Values of a schema with one marked position each, for every field and alternative."""
    yield _HERE
    for each in schema.get("anyOf", []):
        yield from marked(each)
    if schema.get("type") == "array":
        yield from ([value] for value in marked(schema["items"]))
    if schema.get("type") == "object":
        for least in fewest(schema):
            for name, field in schema["properties"].items():
                yield from (least | {name: value} for value in marked(field))
        yield plain(schema) | {_HERE: 1}


def fewest(schema):
    """Objects with the required fields, one for each alternative."""
    for choice in schema.get("oneOf", [{}]):
        names = {*schema.get("required", []), *choice.get("required", [])}
        yield {name: plain(schema["properties"][name]) for name in sorted(names)}


def plain(schema):
    """A valid value of a schema."""
    if "anyOf" in schema:
        return plain(schema["anyOf"][0])
    if schema["type"] == "object":
        return next(fewest(schema))
    if schema["type"] == "array":
        return [plain(schema["items"])]
    return {"string": "a", "integer": 1, "number": 1.0, "boolean": True}[schema["type"]]


EVERYTHING = {
    "GET /api/v1/search",
    "POST /api/v1/search",
    "POST /api/v1/searches",
    "POST /api/v1/embed",
    "POST /api/v1/labels",
    "GET /api/v1/images/{id}",
    "GET /api/v1/images/{id}/thumbnail",
    "GET /api/v1/images/{id}/view",
    "GET /api/v1/images/{id}/explanation",
    "POST /api/v1/images/{id}/explanation",
    "GET /api/v1/images/{id}/original",
    "GET /api/v1/facets",
    "GET /api/v1/info",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
}
