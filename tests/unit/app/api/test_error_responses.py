"""The form of every error answer."""

import re

import pytest
from starlette.testclient import TestClient

from image_finder.components.app.api.error_responses import TITLES
from tests.support.checkout import CHECKOUT

PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}
JSON = {"Content-Type": "application/json"}


def problem(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert set(document) - {"errors"} == PROBLEM
    assert document["status"] == answer.status_code
    assert document["title"] == TITLES[document["code"]]
    assert document["type"] == f"/docs#{document['code']}"
    assert document["request_id"] == answer.headers["X-Request-ID"]
    return document


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("PUT", "/api/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("BREW", "/api/v1/info", 405, "method_not_allowed"),
        ("GET", "/api/v1/search", 400, "bad_query"),
        ("GET", "/api/v1/images/0000", 404, "not_found"),
        ("POST", "/api/v1/search", 415, "unsupported_media_type"),
    ],
)
def test_every_error_is_a_problem_document(api, method, path, status, code):
    answer = api.request(method, path)
    assert (answer.status_code, problem(answer)["code"]) == (status, code)
    assert (status == 405) == ("Allow" in answer.headers)


def test_invalid_parameters_are_each_named(api):
    found = problem(api.get("/api/v1/search?q=red&k=0&since=soon&sort=name"))
    assert {error["location"] for error in found["errors"]} == {"query.k", "query.since", "query.sort"}
    assert found["detail"].endswith(" (and 2 more)")
    assert problem(api.get(f"/api/v1/images/{'x' * 65}"))["errors"][0]["location"] == "path.id"


def test_invalid_values_of_a_body_are_named_by_their_json_pointer(api):
    body = b'{"terms": [{"text": "red"}, {"text": "blue", "weight": 0}], "k": 0, "a/b~c": 1}'
    found = problem(api.post("/api/v1/search", content=body, headers=JSON))
    assert {error["location"] for error in found["errors"]} == {"/terms/1/weight", "/k", "/a~1b~0c"}
    assert problem(api.post("/api/v1/search", content=b"{", headers=JSON))["errors"][0]["location"] == ""
    in_part = problem(api.post("/api/v1/search", files={"query": (None, body)}))
    assert in_part["errors"] == found["errors"]


def test_many_invalid_values_and_long_names_are_cut(api):
    body = {"terms": [{"weight": 0}] * 16, **{f"{'x' * 500}{number}": 1 for number in range(50)}}
    found = problem(api.post("/api/v1/search", json=body))
    assert len(found["errors"]) == 20
    assert max(len(error["location"]) for error in found["errors"]) <= 100


def test_errors_without_invalid_values_have_no_list_of_them(api):
    assert "errors" not in problem(api.get("/api/v1/images/0000"))


def test_refusals_of_the_middleware_are_problems(album_tools, album):
    settings = {"token": "a-token-of-some-length", "token_attempts": 1, "token_attempt_s": 60}
    with album_tools.serving(album / "index", **settings) as client:
        assert problem(client.get("/api/v1/info"))["code"] == "unauthorized"
        wrong = {"Authorization": "Bearer wrong"}
        assert [problem(client.get("/api/v1/info", headers=wrong))["code"] for _ in range(2)] == [
            "unauthorized",
            "too_many_attempts",
        ]
        assert problem(client.get("/", headers={"Host": "evil.example"}))["code"] == "unknown_host"
        assert problem(client.post("/", headers={"Origin": "http://evil.example"}))["code"] == "cross_origin"


def test_the_type_of_a_problem_follows_the_path_prefix_of_the_server(api):
    below = TestClient(api.app, base_url=api.base_url, root_path="/finder")
    for path in ("/api/v1/nothing", "/static/nothing.js"):
        assert below.get(path).json()["type"] == "/finder/docs#not_found"


def test_every_code_of_the_program_has_a_title_and_is_used():
    sources = (CHECKOUT / "components" / "app" / "api").glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    used = set(re.findall(r'(?:Fault\((?:\d+|[\w.]+), |: \()"(\w+)"', text))
    assert used | {"refused"} == set(TITLES)
