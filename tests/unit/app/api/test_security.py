import base64
import json
import logging
import time

import pytest
from starlette.testclient import TestClient

from image_finder.components.app.api.security import COOKIE, session_value
from image_finder.components.app.api.settings import Settings
from image_finder.components.errors import ConfigError

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
GUARDED = (
    "/api/v1/search?q=red",
    "/api/v1/info",
    "/api/v1/facets",
    "/api/v1/images/x/original",
    "/metrics",
    "/nothing",
)
OPEN = ("/", "/static/app.js", "/openapi.json", "/docs", "/health/live", "/health/ready")


@pytest.fixture(scope="module")
def guarded(album_tools, album):
    settings = {"token": TOKEN, "host": "0.0.0.0", "token_attempts": 10_000}
    with album_tools.serving(album / "index", base_url="http://finder.example", **settings) as client:
        yield client


def refusal(response):
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {base64.b64encode(f'x:{TOKEN}'.encode()).decode()}"},
        {"Authorization": "Bearer \xff".encode("latin-1")},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": f"{COOKIE}=9999999999."},
        {"Cookie": f"{COOKIE}={session_value('another-token-of-length', expires=9_999_999_999)}"},
        {"Cookie": f"{COOKIE}={session_value(TOKEN, expires=1_000_000_000)}"},
        {"Cookie": "\0;;=;[]"},
    ],
)
def test_requests_without_the_token_are_refused(guarded, path, headers):
    answer = guarded.get(path, headers=headers)
    assert refusal(answer) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_token_opens_everything_and_the_page_needs_none(guarded):
    assert guarded.get("/api/v1/search?q=red", headers=BEARER).status_code == 200
    assert guarded.get("/api/v1/search?q=red", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    for path in OPEN:
        assert guarded.get(path).status_code == 200


def test_a_session_cookie_replaces_the_header(guarded):
    assert refusal(guarded.post("/api/v1/session")) == (401, "unauthorized")
    answer = guarded.post("/api/v1/session", headers=BEARER)
    assert answer.status_code == 204
    cookie = answer.headers["Set-Cookie"]
    assert TOKEN not in cookie
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="))
    assert guarded.get("/api/v1/info").status_code == 200  # the client keeps the cookie
    guarded.cookies.clear()
    assert guarded.get("/api/v1/info").status_code == 401


@pytest.fixture
def throttled(album_tools, album):
    """Clients of one server by address: allows three wrong tokens, then none for an hour."""
    settings = {"token": TOKEN, "token_attempts": 3, "token_attempt_s": 3600}
    with album_tools.serving(album / "index", **settings) as client:
        yield lambda address: TestClient(client.app, base_url=client.base_url, client=(address, 9))


def attempt(client, token=TOKEN):
    return client.get("/api/v1/info", headers={"Authorization": f"Bearer {token}"})


def test_a_client_with_many_wrong_tokens_is_refused_and_others_are_not(throttled):
    guesser, other = throttled("10.0.0.1"), throttled("10.0.0.2")
    assert [attempt(guesser, f"{TOKEN}{number}").status_code for number in range(5)] == [401, 401, 401, 429, 429]
    refused = attempt(guesser)  # right, but it does not say so
    assert refusal(refused) == (429, "too_many_attempts")
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert TOKEN not in refused.text
    assert attempt(other).status_code == 200
    assert guesser.get("/").status_code == 200
    assert refusal(guesser.get("/api/v1/info")) == (401, "unauthorized")


def test_a_trusted_client_is_not_locked_out_by_others_behind_the_same_proxy(throttled):
    proxy = throttled("10.0.0.3")
    assert attempt(proxy).status_code == 200
    assert [attempt(proxy, "wrong").status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert attempt(proxy).status_code == 200


def test_a_session_works_from_a_refused_address(throttled):
    client = throttled("10.0.0.4")
    for _ in range(5):
        attempt(client, "wrong")
    cookie = {"Cookie": f"{COOKIE}={session_value(TOKEN, expires=int(time.time()) + 60)}"}
    assert refusal(attempt(client)) == (429, "too_many_attempts")
    assert client.get("/api/v1/info", headers=cookie).status_code == 200
    assert attempt(client).status_code == 200  # a session proves the token as well


def test_invalid_cookies_and_missing_tokens_do_not_count_as_attempts(throttled):
    client = throttled("10.0.0.5")
    for _ in range(5):
        assert client.get("/api/v1/info", headers={"Cookie": f"{COOKIE}=1.f"}).status_code == 401
        assert client.get("/api/v1/info").status_code == 401
    assert attempt(client).status_code == 200


def test_a_session_expires(guarded):
    for expires, status in ((int(time.time()) + 60, 200), (int(time.time()) - 1, 401)):
        cookie = {"Cookie": f"{COOKIE}={session_value(TOKEN, expires=expires)}"}
        assert guarded.get("/api/v1/info", headers=cookie).status_code == status
    later = session_value(TOKEN, expires=int(time.time()) - 1).replace(str(int(time.time()) - 1), "9999999999")
    assert guarded.get("/api/v1/info", headers={"Cookie": f"{COOKIE}={later}"}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost.", "10.0.0.1:8080", "a@127.0.0.1:x"]
)
def test_an_unknown_host_is_refused(api, host):
    assert refusal(api.get("/api/v1/info", headers={"Host": host})) == (400, "unknown_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:9"])
def test_names_of_this_machine_are_allowed(api, host):
    assert api.get("/api/v1/info", headers={"Host": host}).status_code == 200


def test_allowed_hosts_are_answered(album_tools, album):
    with album_tools.serving(album / "index", allowed_hosts=("Finder.example",)) as client:
        assert client.get("/api/v1/info", headers={"Host": "finder.example:80"}).status_code == 200
        assert client.get("/api/v1/info", headers={"Host": "other.example"}).status_code == 400


def test_cross_origin_requests_are_refused(api):
    body = {"terms": [{"text": "red"}]}
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "["):
        answer = api.post("/api/v1/search", json=body, headers={"Origin": origin})
        assert refusal(answer) == (403, "cross_origin")
    assert api.post("/api/v1/search", json=body, headers={"Origin": "http://127.0.0.1:8080"}).status_code == 200
    answer = api.options(
        "/api/v1/search", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", [*GUARDED, *OPEN, "/api/v1/search?k=0", "/static/nothing"])
def test_every_answer_has_the_security_headers(api, path):
    headers = api.get(path).headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert not [name for name in headers if name.startswith("access-control") or name == "server"]


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "BREW"])
def test_other_methods_get_the_common_error_format(api, method):
    answer = api.request(method, "/api/v1/info")
    assert refusal(answer) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/redoc",
        "/api",
        "/api/v2/search",
        "/api/v1/search/",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/" + "x" * 8000,
    ],
)
def test_unknown_paths_get_the_common_error_format(api, path):
    assert refusal(api.get(path, follow_redirects=False)) == (404, "not_found")


def test_a_valid_request_id_is_kept_and_any_other_replaced(api):
    assert api.get("/health/live", headers={"X-Request-ID": "my-id.1"}).headers["X-Request-ID"] == "my-id.1"
    for bad in ("", "a b", "x" * 65, '{"a"', "\u00e4".encode()):
        made = api.get("/health/live", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert len(made) == 16
        assert int(made, 16) >= 0


def test_the_log_contains_neither_token_nor_query(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    guarded.get("/api/v1/search?q=secretive", headers=BEARER)
    guarded.get("/api/v1/search?q=secretive", headers={"Authorization": "Bearer wrong-token-of-length"})
    logged = json.dumps([{**vars(record), "exc_info": None} for record in caplog.records], default=str)
    routes = [record.route for record in caplog.records if record.message == "request"]
    assert routes[-2:] == ["/api/v1/search", "unmatched"]
    assert TOKEN not in logged
    assert "secretive" not in "".join(
        str(vars(record)) for record in caplog.records if record.name.startswith("image_finder")
    )


def test_the_log_contains_queries_with_log_queries(album_tools, album, caplog):
    caplog.set_level(logging.INFO, "image_finder")
    with album_tools.serving(album / "index", log_queries=True) as client:
        client.get("/api/v1/search?q=secretive")
    assert [record.query for record in caplog.records if record.message == "request"] == [["secretive"]]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "finder.example", "127.0.0.1.example"])
def test_an_address_reachable_by_others_needs_a_token(host):
    with pytest.raises(ConfigError, match="a token is required"):
        Settings.parse({"host": host})
    assert Settings.parse({"host": host, "token": TOKEN}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_token(host):
    assert Settings.parse({"host": host}).token is None


def test_a_short_or_non_ascii_token_is_refused():
    with pytest.raises(ConfigError, match="shorter than 16 characters") as caught:
        Settings.parse({"token": "x" * 15})
    assert "xxx" not in str(caught.value)
    with pytest.raises(ConfigError, match="must be ASCII"):
        Settings.parse({"token": "\u00e4" * 16})
    assert TOKEN not in repr(Settings.parse({"token": TOKEN}))
