"""Calls of pages of other origins, with `serve --cors-origin`."""

import pytest

from image_finder.components.app.api.settings import Settings
from image_finder.components.errors import ConfigError
from tests.unit.app.api.test_search_routes import fault

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
APP = "https://app.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def shared(album_tools, album):
    with album_tools.serving(album / "index", token=TOKEN, cors_origins=(APP, "http://localhost:3000")) as client:
        yield client


def allowed(answer):
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_an_allowed_origin_may_call_with_the_token(shared, origin):
    preflight = shared.options("/api/v1/search", headers={"Origin": origin, **PREFLIGHT})
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (200, origin)
    private = {"Origin": origin, **PREFLIGHT, "Access-Control-Request-Private-Network": "true"}
    to_this_machine = shared.options("/api/v1/search", headers=private)
    assert to_this_machine.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for call in (
        lambda headers: shared.post("/api/v1/search", json={"q": ["red"]}, headers=headers),
        lambda headers: shared.get("/api/v1/search?q=red", headers=headers),
    ):
        answer = call({"Origin": origin, **BEARER})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
        assert answer.headers["Vary"] == "Origin"
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_an_allowed_origin_can_read_errors_and_needs_the_token(shared):
    answer = shared.post("/api/v1/search", json={"q": ["red"]}, headers={"Origin": APP})
    assert fault(answer) == (401, "unauthorized")
    assert answer.headers["Access-Control-Allow-Origin"] == APP


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.org.evil.example", "http://app.example.org", ""]
)
def test_other_origins_are_refused_as_without_the_option(shared, origin):
    preflight = shared.options("/api/v1/search", headers={"Origin": origin, **PREFLIGHT})
    assert allowed(preflight) == set()
    assert preflight.status_code in {401, 405}
    posted = shared.post("/api/v1/search", json={"q": ["red"]}, headers={"Origin": origin, **BEARER})
    assert fault(posted) == (403, "cross_origin")
    got = shared.get("/api/v1/search?q=red", headers={"Origin": origin, **BEARER})
    assert (got.status_code, allowed(got), got.headers["Vary"]) == (200, set(), "Origin")


def test_the_host_header_is_checked_for_allowed_origins_too(shared):
    answer = shared.get("/api/v1/search?q=red", headers={"Origin": APP, "Host": "evil.example", **BEARER})
    assert fault(answer) == (400, "unknown_host")


def test_methods_that_the_api_lacks_are_not_allowed(shared):
    answer = shared.options(
        "/api/v1/search", headers={"Origin": APP, **PREFLIGHT, "Access-Control-Request-Method": "PUT"}
    )
    assert answer.status_code == 400


def test_no_origin_is_allowed_by_default(api):
    preflight = api.options("/api/v1/search", headers={"Origin": APP, **PREFLIGHT})
    assert (allowed(preflight), fault(preflight)) == (set(), (405, "method_not_allowed"))
    assert "Vary" not in api.get("/api/v1/info", headers={"Origin": APP}).headers


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "app.example.org",
        "https://app.example.org/",
        "https://APP.example.org",
        "https://a b",
        "https://*.org",
    ],
)
def test_what_is_not_an_origin_is_refused_at_the_start(origin):
    with pytest.raises(ConfigError, match="is not an origin; give scheme, host and port"):
        Settings.parse({"cors_origins": (origin,)})
