import json
import logging
import shutil
import threading
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.server_logs import configure_logging
from image_finder.components.app.api.settings import Settings
from image_finder.components.app.watcher import Watching
from image_finder.components.errors import StorageError
from image_finder.components.index.generations import POINTER, current_generation
from image_finder.components.search.finder import Finder
from image_finder.components.storage import write_text_atomically


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to pass within 20 s")


@pytest.fixture
def home(album_tools, colour_bundle, paint, tmp_path):
    paint(tmp_path / "images" / "red.png", "red")
    album_tools.publish_album(tmp_path / "images", colour_bundle, tmp_path)
    return tmp_path


def newest(home):
    return current_generation(home / "index").name


def names(client):
    return [hit["name"] for hit in client.get("/api/v1/search?q=blue&duplicates=show").json()["hits"]]


def test_a_new_index_is_opened_without_a_failed_request(album_tools, colour_bundle, paint, home):
    seen, failures, stop = set(), [], threading.Event()

    def ask(client):
        while not stop.is_set():
            answer = client.get("/api/v1/search?q=blue&k=1")
            (failures.append(answer.text) if answer.status_code != 200 else seen.add(answer.json()["generation"]))
            hit = answer.json()["hits"][0]
            image = client.get(f"/api/v1/images/{hit['id']}/thumbnail")
            if image.status_code != 200:
                failures.append(image.text)

    with album_tools.serving(home / "index") as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number, colour in enumerate(("blue", "green", "yellow", "white"), start=2):
                paint(home / "images" / f"{colour}.png", colour)
                published = current_generation(album_tools.publish_album(home / "images", colour_bundle, home)).name
                assert published.startswith(f"{number:08d}-")
                until(lambda published=published: published in seen or failures)
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert failures == []
        assert len(names(client)) == 5
        assert "image_finder_index_images 5.0" in client.get("/metrics").text
        assert "image_finder_index_generation 5.0" in client.get("/metrics").text
        assert "image_finder_index_swaps_total 5.0" in client.get("/metrics").text


def test_a_damaged_new_index_leaves_the_current_one_in_use(album_tools, colour_bundle, paint, home, caplog):
    caplog.set_level(logging.INFO, "image_finder")
    with album_tools.serving(home / "index") as client:
        assert client.get("/health/ready").json() == client.get("/health/ready").json() | {
            "status": "ready",
            "images": 1,
        }
        paint(home / "images" / "blue.png", "blue")
        good = current_generation(home / "index").name
        damaged = home / "index" / "generations" / "00000002-0badbeef"
        shutil.copytree(home / "index" / "generations" / good, damaged)
        (damaged / "vectors.npy").write_bytes(b"not vectors")
        write_text_atomically(home / "index" / POINTER, "00000002-0badbeef\n")
        until(lambda: client.get("/health/ready").json()["status"] == "stale")
        assert names(client) == ["red.png"]
        assert client.get("/api/v1/info").json()["up_to_date"] is False
        metrics = client.get("/metrics").text
        assert "image_finder_index_failures_total 1.0" in metrics
        assert "image_finder_index_stale 1.0" in metrics
        logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(logged) == 1
        assert "is corrupted" in logged[0]
        assert str(home) not in client.get("/health/ready").text + client.get("/api/v1/info").text
        (home / "index" / POINTER).write_text(f"{good}\n")
        album_tools.publish_album(home / "images", colour_bundle, home)
        until(
            lambda: (
                client.get("/health/ready").json()
                == {"status": "ready", "generation": newest(home), "images": 2, "watching": ""}
            )
        )
        assert sorted(names(client)) == ["blue.png", "red.png"]


def test_unwatched_folders_make_the_server_stale(home):
    failures = [f"the watcher of {home} ended"]

    def source():
        return Finder.open(home / "index", threads=1)

    app = create_app(
        source, Settings.parse({}), watching=lambda: Watching(failures[-1] if failures else None, "polling")
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/health/ready").json()["status"] == "stale"
        assert client.get("/api/v1/info").json()["up_to_date"] is False
        assert "image_finder_index_stale 1.0" in client.get("/metrics").text
        assert str(home) not in client.get("/health/ready").text
        assert names(client) == ["red.png"]
        failures.clear()
        answer = client.get("/health/ready").json()
        assert (answer["status"], answer["watching"]) == ("ready", "polling")
        assert "image_finder_index_stale 0.0" in client.get("/metrics").text


def test_without_an_index_only_searches_fail(home):
    there = threading.Event()

    def source():
        if not there.is_set():
            raise StorageError(f"no index at {home}")
        return Finder.open(home / "index", threads=1)

    app = create_app(source, Settings.parse({"refresh_s": 0.02}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for path in ("/api/v1/search?q=red", "/api/v1/info", "/api/v1/facets", "/api/v1/images/x", "/health/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert answer.headers["Retry-After"] == "2"
            assert str(home) not in answer.text
        for path in ("/health/live", "/metrics", "/", "/openapi.json"):
            assert client.get(path).status_code == 200
        there.set()
        until(lambda: client.get("/health/ready").status_code == 200)
        assert names(client) == ["red.png"]


def test_an_unexpected_error_shows_only_its_request_id(album_tools, home, caplog):
    with album_tools.serving(home / "index") as client:
        engine = client.app.state.server.live.engine
        engine.index.vectors = None  # as a fault of the program would leave it
        answer = client.get("/api/v1/search?q=red", headers={"X-Request-ID": "trace-me"})
        error = answer.json()
        assert (answer.status_code, error["code"], error["request_id"]) == (500, "internal", "trace-me")
        assert "NoneType" not in answer.text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "TypeError" in record.message or "AttributeError" in record.message
    assert 'status="500"' not in record.message


def test_requests_are_counted_by_route_template(api):
    api.get("/api/v1/search?q=red")
    for identity in ("a", "b", "c"):
        api.get(f"/api/v1/images/{identity}")
    api.get("/there/is/nothing")
    api.request("BREW", "/health/live")
    metrics = api.get("/metrics").text
    assert 'image_finder_requests_total{method="GET",route="/api/v1/images/{id}",status="404"}' in metrics
    assert 'image_finder_requests_total{method="GET",route="unmatched",status="404"}' in metrics
    assert 'method="other"' in metrics
    assert "BREW" not in metrics
    assert 'image_finder_stage_seconds_count{stage="encode"}' in metrics
    assert "/there/is" not in metrics


@pytest.fixture
def kept_loggers():
    names = ("image_finder", "uvicorn.error", "asyncio", "py.warnings")
    before = {name: (*vars(logging.getLogger(name)).items(),) for name in names}
    yield
    logging.captureWarnings(False)
    for name, values in before.items():
        vars(logging.getLogger(name)).update(values)
    manager: Any = logging.getLogger("image_finder").manager
    manager._clear_cache()


def test_a_log_line_is_one_json_object(album_tools, home, capsys, kept_loggers):
    import io

    stream = io.StringIO()
    configure_logging(stream)
    with album_tools.serving(home / "index") as client:
        client.get("/api/v1/search?q=red", headers={"X-Request-ID": "of-this-one"})
        client.app.state.server.live.engine.index.vectors = None
        client.get("/api/v1/search?q=red")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    request = next(line for line in lines if line.get("request_id") == "of-this-one")
    assert (request["message"], request["route"], request["status"]) == ("request", "/api/v1/search", 200)
    assert request["ms"] >= 0
    assert request["level"] == "INFO"
    assert sum("Traceback" in line.get("traceback", "") for line in lines) == 1
