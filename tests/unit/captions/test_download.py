"""Fetching images from a loopback HTTP server that misbehaves on purpose."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from image_finder.components.app.commands.data_commands import data
from image_finder.components.captions import coco2017
from image_finder.components.captions.download import FetchConfig, ImageRequest, fetch_images
from image_finder.components.errors import DataError, StorageError
from tests.support.checkout import CHECKOUT
from tests.support.hub_server import hub_server


def jpeg(seed: int) -> bytes:
    """A JPEG of noise, some 3 kB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class ImageServer(ThreadingHTTPServer):
    """Serves bodies by path. behaviours[path] is a list of what to do with its next requests; then it behaves well."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.behaviours: dict[str, list] = {}
        self.ranges = True
        self.lock = threading.Lock()
        self.seen: list[tuple[str, str | None, float]] = []  # path, Range, monotonic seconds
        self.ports: set[int] = set()  # of clients: one a connection
        self.held = threading.Semaphore(0)  # released by each request that is held
        self.let_go = threading.Event()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def hits(self) -> Counter:
        return Counter(path for path, _, _ in self.seen)

    def add(self, image_id: int, *behaviours, body: bytes | None = None) -> ImageRequest:
        path = f"/{image_id}.jpg"
        self.bodies[path] = jpeg(image_id) if body is None else body
        self.behaviours[path] = list(behaviours)
        return ImageRequest(image_id=image_id, url=self.url(path), file_name=f"{image_id}.jpg")


class Handler(BaseHTTPRequestHandler):
    server: "ImageServer"
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Range"), time.monotonic()))
            self.server.ports.add(self.client_address[1])
            behaviours = self.server.behaviours.get(self.path)
            behave = behaviours.pop(0) if behaviours else serve
        behave(self)

    def answer(self, status, body=b"", *, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != "absent":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def serve(handler):
    body = handler.server.bodies[handler.path]
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if not asked or not handler.server.ranges:
        return handler.answer(200, body)
    start = int(asked[1])
    if start >= len(body):
        return handler.answer(416, Content_Range=f"bytes */{len(body)}")
    return handler.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")


def status(code, **headers):
    return lambda handler: handler.answer(code, b"no", **headers)


def redirect(location):
    return lambda handler: handler.answer(302, Location=location)


def truncate(handler):
    body = handler.server.bodies[handler.path]
    handler.answer(200, body[: len(body) // 2], length=len(body))
    handler.close_connection = True


def truncate_without_length(handler):
    body = handler.server.bodies[handler.path]
    handler.answer(200, body[: len(body) // 2], length="absent")
    handler.close_connection = True


def stall(handler):
    """Send nothing until the test is over, or until it says so."""
    handler.server.held.release()
    handler.server.let_go.wait(30)
    handler.close_connection = True


def stall_halfway(handler):
    body = handler.server.bodies[handler.path]
    handler.answer(200, body[: len(body) // 2], length=len(body))
    stall(handler)


def hang_up(handler):
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ImageServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "images"


def fetch(requests, folder, **changes):
    quick = {"timeout_s": 5, "retries": 2, "backoff_s": 0.001, "max_backoff_s": 0.01, "workers": 4}
    return fetch_images(requests, FetchConfig(folder=folder, **{**quick, **changes}), progress=False)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_images_arrive_byte_for_byte_over_few_connections(server, folder):
    requests = [server.add(image_id) for image_id in range(1, 41)]
    report = fetch(requests, folder, workers=4)
    assert (report.fetched, report.skipped, report.failed) == (40, 0, {})
    assert report.bytes == sum(len(jpeg(image_id)) for image_id in range(1, 41))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{image_id}.jpg": jpeg(image_id) for image_id in range(1, 41)
    }
    assert len(server.ports) <= 4


def test_at_most_one_image_per_worker_is_requested_at_a_time(server, folder):
    requests = [server.add(image_id, stall) for image_id in range(1, 9)]
    thread = threading.Thread(target=fetch, args=(requests, folder), kwargs={"workers": 3})
    thread.start()
    assert all(server.held.acquire(timeout=5) for _ in range(3))
    one_more = server.held.acquire(timeout=0.2)
    server.let_go.set()
    thread.join()
    assert not one_more
    assert names_in(folder) == {f"{image_id}.jpg" for image_id in range(1, 9)}


def test_each_misbehaviour_has_its_exact_outcome_and_number_of_requests(server, folder):
    elsewhere = server.add(50)
    cases = {  # behaviours, requests it takes, reason it fails for (None: it does not)
        1: ([], 1, None),
        2: ([status(404)], 1, r"HTTP 404 \(http://.*/2.jpg\)"),
        3: ([status(503)], 2, None),
        4: ([status(503), status(500), status(502), status(503)], 3, r"HTTP 502 \(3 attempts, http://.*\)"),
        5: ([status(429, Retry_After="0")], 2, None),
        6: ([truncate], 2, None),
        7: ([truncate_without_length], 2, None),
        8: ([hang_up, hang_up], 3, None),
        9: ([redirect(elsewhere.url)], 1, None),
        10: ([redirect("file:///etc/hostname")], 1, r"cannot be requested: .*unsupported protocol 'file://'.*"),
        11: ([redirect(server.url("/11.jpg"))] * 20, 6, r"cannot be requested: .*redirects.*"),
        12: ([status(200)], 1, r"not a readable image .*"),
        13: ([status(403)], 1, r"HTTP 403 .*"),
        14: ([status(204)], 1, r"HTTP 204 .*"),
        15: ([status(200, Content_Encoding="gzip")], 1, r"sent as gzip, although identity was requested .*"),
        16: ([status(408), status(425)], 3, None),
    }
    requests = [server.add(image_id, *behaviours) for image_id, (behaviours, _, _) in cases.items()]
    report = fetch(requests, folder)
    reasons = {image_id: reason for image_id, (_, _, reason) in cases.items() if reason}
    assert list(report.failed) == sorted(reasons)
    for image_id, reason in reasons.items():
        assert re.fullmatch(reason, report.failed[image_id]), report.failed[image_id]
    assert report.fetched == len(cases) - len(reasons)
    assert names_in(folder) == {f"{image_id}.jpg" for image_id in cases if image_id not in reasons}
    assert (folder / "9.jpg").read_bytes() == jpeg(50)
    assert server.hits() == {f"/{image_id}.jpg": n for image_id, (_, n, _) in cases.items()} | {"/50.jpg": 1}


def test_second_call_requests_only_missing_images(server, folder):
    requests = [server.add(1), server.add(2, status(404)), server.add(3)]
    first = fetch(requests, folder)
    assert (first.fetched, first.skipped, list(first.failed)) == (2, 0, [2])
    server.seen.clear()
    second = fetch(requests, folder)
    assert (second.fetched, second.skipped, second.failed) == (1, 2, {})
    assert server.hits() == {"/2.jpg": 1}
    server.seen.clear()
    third = fetch(requests, folder)
    assert (third.fetched, third.skipped, third.bytes) == (0, 3, 0)
    assert server.seen == []


def test_empty_file_counts_as_missing(server, folder):
    folder.mkdir()
    (folder / "1.jpg").touch()
    assert fetch([server.add(1)], folder).fetched == 1
    assert (folder / "1.jpg").read_bytes() == jpeg(1)


def test_silent_server_is_abandoned_after_the_retries(server, folder):
    report = fetch([server.add(1, stall, stall), server.add(2)], folder, timeout_s=0.1, retries=1)
    assert report.failed == {1: f"no response within 0.1 s (2 attempts, {server.url('/1.jpg')})"}
    assert (report.fetched, server.hits()) == (1, {"/1.jpg": 2, "/2.jpg": 1})


def test_dripping_server_is_cut_off_by_the_time_for_one_attempt(server, folder):
    def drip(handler):
        body = handler.server.bodies[handler.path]
        handler.answer(200, b"", length=len(body))
        for byte in body:
            handler.wfile.write(bytes([byte]))
            if handler.server.let_go.wait(0.02):
                return

    report = fetch([server.add(1, drip)], folder, attempt_s=0.3, retries=0)
    assert report.failed == {1: f"incomplete after 0.3 s (1 attempt, {server.url('/1.jpg')})"}
    assert jpeg(1).startswith((folder / "1.jpg.part").read_bytes())


def test_truncated_image_is_resumed(server, folder):
    report = fetch([server.add(1, truncate)], folder)
    half = len(jpeg(1)) // 2
    assert [asked for _, asked, _ in server.seen] == [None, f"bytes={half}-"]
    assert (report.fetched, report.bytes) == (1, len(jpeg(1)))
    assert (folder / "1.jpg").read_bytes() == jpeg(1)


def test_part_of_an_earlier_call_is_resumed(server, folder):
    folder.mkdir()
    (folder / "1.jpg.part").write_bytes(jpeg(1)[:1000])
    report = fetch([server.add(1)], folder)
    assert [asked for _, asked, _ in server.seen] == ["bytes=1000-"]
    assert (report.fetched, report.bytes) == (1, len(jpeg(1)) - 1000)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1.jpg": jpeg(1)}


def test_range_served_in_pieces_is_put_together(server, folder):
    def piece(handler):
        start, body = 1000, handler.server.bodies[handler.path]
        handler.answer(206, body[start:1500], Content_Range=f"bytes {start}-1499/{len(body)}")

    folder.mkdir()
    (folder / "1.jpg.part").write_bytes(jpeg(1)[:1000])
    assert fetch([server.add(1, piece)], folder).fetched == 1
    assert [asked for _, asked, _ in server.seen] == ["bytes=1000-", "bytes=1500-"]
    assert (folder / "1.jpg").read_bytes() == jpeg(1)


def test_server_that_ignores_ranges_sends_the_whole_image(server, folder):
    server.ranges = False
    folder.mkdir()
    (folder / "1.jpg.part").write_bytes(b"x" * 9000)
    assert fetch([server.add(1)], folder, retries=0).fetched == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1.jpg": jpeg(1)}


@pytest.mark.parametrize(
    "refusal",
    [status(412), status(416), status(206, Content_Range="bytes 0-1/2")],
    ids=["changed since", "past the end", "other bytes"],
)
def test_part_that_cannot_be_resumed_restarts_within_the_same_attempt(server, folder, refusal):
    folder.mkdir()
    (folder / "1.jpg.part").write_bytes(jpeg(2)[:1000])
    assert fetch([server.add(1, refusal)], folder, retries=0).fetched == 1
    assert [asked for _, asked, _ in server.seen] == ["bytes=1000-", None]
    assert (folder / "1.jpg").read_bytes() == jpeg(1)


def test_part_is_resumed_only_if_the_image_is_older(server, folder):
    def serve_if_unmodified(handler):
        conditions.append(handler.headers.get("If-Unmodified-Since"))
        serve(handler)

    conditions = []
    folder.mkdir()
    part = folder / "1.jpg.part"
    part.write_bytes(jpeg(1)[:1000])
    os.utime(part, (1_600_000_000, 1_600_000_000))
    fetch([server.add(1, serve_if_unmodified)], folder)
    assert conditions == ["Sun, 13 Sep 2020 12:26:40 GMT"]


def test_invalid_part_is_removed_and_fetched_again(server, folder):
    folder.mkdir()
    (folder / "1.jpg.part").write_bytes(b"x" * 1000)
    assert fetch([server.add(1)], folder).fetched == 1
    assert [asked for _, asked, _ in server.seen] == ["bytes=1000-", None]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1.jpg": jpeg(1)}


def test_retry_after_in_seconds_is_waited_for(server, folder):
    assert fetch([server.add(1, status(429, Retry_After="1"))], folder).fetched == 1
    (_, _, first_s), (_, _, second_s) = server.seen
    assert second_s - first_s >= 1


@pytest.mark.parametrize("value", ["86400", formatdate(time.time() + 86400, usegmt=True)], ids=["seconds", "date"])
def test_retry_after_is_capped(server, folder, value):
    report = fetch([server.add(1, status(503, Retry_After=value))], folder, max_retry_after_s=0.2)
    assert report.fetched == 1
    (_, _, first_s), (_, _, second_s) = server.seen
    assert second_s - first_s >= 0.2


@pytest.mark.parametrize("value", ["soon", "-5", "Mon, 01 Jan 0001 00:00:00 +2359", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_malformed_retry_after_is_ignored(server, folder, value):
    assert fetch([server.add(1, status(429, Retry_After=value))], folder).fetched == 1


def test_refused_connection_is_retried_and_reported(server, folder):
    request = server.add(1)
    server.shutdown()
    server.socket.close()
    report = fetch([request], folder, retries=1)
    assert re.fullmatch(r"connection failed: .+ \(2 attempts, http://.*\)", report.failed[1])


def test_dead_network_is_detected_before_every_image_was_tried(server, folder):
    requests = [server.add(image_id, *[status(503)] * 9) for image_id in range(1, 101)]
    report = fetch(requests, folder, workers=1, retries=0, max_failures_in_a_row=5)
    assert len(server.seen) == 5
    assert len(report.failed) == 100
    assert report.failed[6] == "not tried: no response for 5 images in a row"


def test_absent_images_are_not_mistaken_for_a_dead_network(server, folder):
    codes = [404, 404, 404, 503, 404, 503, 404]
    requests = [server.add(image_id, status(code)) for image_id, code in enumerate(codes, start=1)]
    report = fetch([*requests, server.add(8)], folder, workers=1, retries=0, max_failures_in_a_row=2)
    assert [reason[:8] for reason in report.failed.values()] == [f"HTTP {code}" for code in codes]
    assert report.fetched == 1


@pytest.mark.parametrize("length", [None, "absent"], ids=["announced", "unannounced"])
def test_image_above_the_limit_is_refused_and_leaves_nothing(server, folder, length):
    def send(handler):
        handler.answer(200, handler.server.bodies[handler.path], length=length)
        handler.close_connection = True

    report = fetch([server.add(1, send)], folder, max_image_bytes=1000)
    assert report.failed == {1: f"larger than max_image_bytes (1,000) ({server.url('/1.jpg')})"}
    assert names_in(folder) == set()


@pytest.mark.parametrize(
    "name",
    ["../1.jpg", "/etc/1.jpg", "a/1.jpg", "..", ".", "", ".hidden.jpg", "a\\1.jpg", "C:1.jpg", "1.jpg.part", "a\0.jpg"],
)
def test_name_that_could_leave_the_folder_is_refused_without_a_request(server, tmp_path, folder, name):
    request = server.add(1).model_copy(update={"file_name": name})
    report = fetch([request, server.add(2)], folder)
    assert report.failed == {1: f"file_name {name!r} is not a plain file name"}
    assert server.hits() == {"/2.jpg": 1}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.suffix == ".jpg"} == {
        "images/2.jpg"
    }


@pytest.mark.parametrize("name", ["x" * 251, "ä" * 126])
def test_name_too_long_for_its_part_file_is_refused(server, folder, name):
    report = fetch([server.add(1).model_copy(update={"file_name": name})], folder)
    assert report.failed == {1: f"file_name {name!r} is not a plain file name"}
    longest = server.add(2).model_copy(update={"file_name": "x" * 250})
    assert fetch([longest], folder).fetched == 1


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/1.jpg", "1.jpg", "http://", "", "http://[::1"])
def test_address_other_than_http_is_refused(server, folder, url):
    report = fetch([ImageRequest(image_id=1, url=url, file_name="1.jpg")], folder)
    assert report.failed[1].startswith(f"address {url!r} is ")
    assert names_in(folder) == set()


def test_address_that_only_looks_like_http_stops_no_other_image(server, folder):
    report = fetch([ImageRequest(image_id=1, url="http://a b:c/", file_name="1.jpg"), server.add(2)], folder)
    assert report.failed[1].startswith("cannot be requested: ")
    assert names_in(folder) == {"2.jpg"}


def test_two_images_with_one_name_do_not_overwrite_each_other(server, folder):
    first, second = server.add(1), server.add(2).model_copy(update={"file_name": "1.jpg"})
    report = fetch([first, first, second], folder)
    assert (report.fetched, report.failed) == (1, {2: "file_name '1.jpg' already belongs to image 1"})
    assert (folder / "1.jpg").read_bytes() == jpeg(1)
    assert server.hits() == {"/1.jpg": 1}


def test_second_fetch_into_the_same_folder_is_refused(server, folder):
    thread = threading.Thread(target=fetch, args=([server.add(1, stall)], folder))
    thread.start()
    assert server.held.acquire(timeout=5)
    with pytest.raises(StorageError, match="another fetch is writing to"):
        fetch([server.add(2)], folder)
    server.let_go.set()
    thread.join()
    assert names_in(folder) == {"1.jpg"}


def test_folder_that_cannot_be_written_is_one_error(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        fetch([server.add(1)], tmp_path / "file" / "images")


def test_part_that_cannot_be_written_stops_the_fetch_with_one_error(server, folder):
    (folder / "1.jpg.part").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*1\.jpg\.part"):
        fetch([server.add(1), server.add(2)], folder)


def write_parquet(path: Path, requests) -> Path:
    rows = [
        {
            "license": 4,
            "file_name": request.file_name,
            "coco_url": request.url,
            "height": 40,
            "width": 56,
            "date_captured": "2013-11-17 07:15:52",
            "flickr_url": "http://example.org/",
            "image_id": request.image_id,
            "ids": [10 * request.image_id, 10 * request.image_id + 1],
            "captions": [f"Image {request.image_id}.", "An image of noise, ünïcode."],
        }
        for request in requests
    ]
    pq.write_table(pa.Table.from_pylist(rows, coco2017.SCHEMA), path)
    return path


def invoke(tmp_path, *options):
    arguments = ["fetch", "coco2017", "--split", "validation", "--to", str(tmp_path / "coco"), *options]
    return CliRunner().invoke(data, arguments)


def test_command_writes_table_captions_and_images(server, tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [server.add(3), server.add(1), server.add(2)])
    result = invoke(tmp_path, "--table", str(table), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["fetched"], report["skipped"], report["failed"]) == (3, 0, {})
    root = tmp_path / "coco"
    assert names_in(root / "val2017") == {"1.jpg", "2.jpg", "3.jpg"}
    rows = pq.read_table(root / "huggingface" / "validation.parquet")
    assert rows.schema == coco2017.SCHEMA
    assert rows.column("image_id").to_pylist() == [1, 2, 3]
    captions = json.loads((root / "annotations" / "captions_val2017.json").read_text("utf-8"))
    assert captions["images"][0] == {
        "license": 4,
        "file_name": "1.jpg",
        "coco_url": server.url("/1.jpg"),
        "height": 40,
        "width": 56,
        "date_captured": "2013-11-17 07:15:52",
        "flickr_url": "http://example.org/",
        "id": 1,
    }
    assert captions["annotations"][:2] == [
        {"image_id": 1, "id": 10, "caption": "Image 1."},
        {"image_id": 1, "id": 11, "caption": "An image of noise, ünïcode."},
    ]
    assert len(captions["annotations"]) == 6


def test_command_lists_failures_by_id_and_exits_1_until_all_are_fetched(server, tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [server.add(1), server.add(2, status(404))])
    first = invoke(tmp_path, "--table", str(table))
    assert first.exit_code == 1
    assert re.search(r"val2017: 1 fetched, 0 already present, 1 failed; ", first.stdout)
    assert f"2: HTTP 404 ({server.url('/2.jpg')})\n" in first.stderr
    assert "Error: 1 of 2 images failed" in first.stderr
    server.seen.clear()
    second = invoke(tmp_path, "--table", str(table))
    assert second.exit_code == 0
    assert re.search(r"val2017: 1 fetched, 1 already present, 0 failed; ", second.stdout)
    assert server.hits() == {"/2.jpg": 1}


def test_json_report_names_failures_and_is_alone_on_stdout(server, tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [server.add(7, status(404))])
    result = invoke(tmp_path, "--table", str(table), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"] == {"7": f"HTTP 404 ({server.url('/7.jpg')})"}


def test_limit_selects_the_lowest_ids_for_tables_and_images(server, tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [server.add(9), server.add(2), server.add(5)])
    assert invoke(tmp_path, "--table", str(table), "--limit", "2").exit_code == 0
    assert names_in(tmp_path / "coco" / "val2017") == {"2.jpg", "5.jpg"}
    rows = pq.read_table(tmp_path / "coco" / "huggingface" / "validation.parquet")
    assert rows.column("image_id").to_pylist() == [2, 5]


def test_a_table_of_another_tool_is_fetched_under_plain_names(server, tmp_path):
    path = write_parquet(tmp_path / "table.parquet", [server.add(1), server.add(2)])
    rows = pq.read_table(path).set_column(1, "file_name", pa.array(["val2017/1.jpg", "coco\\val2017\\2.jpg"]))
    rows = rows.set_column(0, "license", pa.array(["CC BY 4.0", "4"])).set_column(3, "height", pa.array([40.0, 40.0]))
    pq.write_table(rows, path)
    assert invoke(tmp_path, "--table", str(path)).exit_code == 0
    assert names_in(tmp_path / "coco" / "val2017") == {"1.jpg", "2.jpg"}
    written = pq.read_table(tmp_path / "coco" / "huggingface" / "validation.parquet")
    assert (written["license"].to_pylist(), written["height"].to_pylist()) == ([None, 4], [40, 40])


def test_train_split_goes_to_its_own_names(server, tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [server.add(1)])
    arguments = ["fetch", "coco2017", "--split", "train", "--to", str(tmp_path), "--table", str(table)]
    assert CliRunner().invoke(data, arguments).exit_code == 0
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} >= {
        "train2017/1.jpg",
        "huggingface/train.parquet",
        "annotations/captions_train2017.json",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop_columns(["ids", "coco_url"]), "no column coco_url, ids; found: "),
        (lambda rows: rows.set_column(3, "height", pa.array(["x"])), "has a column of the wrong type"),
        (
            lambda rows: rows.set_column(1, "file_name", pa.array([None], pa.string())),
            "file_name is missing in 1 of 1 row",
        ),
        (lambda rows: rows.set_column(8, "ids", pa.array([[1]])), "image 1 has 1 ids for 2 captions"),
    ],
    ids=["columns", "type", "null", "lengths"],
)
def test_table_that_cannot_be_used_is_refused_in_one_line(server, tmp_path, change, message):
    path = write_parquet(tmp_path / "table.parquet", [server.add(1)])
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DataError, match=message):
        coco2017.read_table("validation", table=path)
    result = invoke(tmp_path, "--table", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "coco").exists()


def test_table_of_the_hub_is_read_by_its_name_and_split(server, tmp_path, monkeypatch):
    import datasets

    repository = tmp_path / "phiyodr" / "coco2017"  # datasets takes a folder of that name for the hub's
    repository.mkdir(parents=True)
    write_parquet(repository / "train.parquet", [server.add(1)])
    write_parquet(repository / "validation.parquet", [server.add(4), server.add(2), server.add(3)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = coco2017.read_table("validation", limit=2)
    local = coco2017.read_table("validation", table=repository / "validation.parquet", limit=2)
    assert rows.column("image_id").to_pylist() == [2, 3]
    assert rows.equals(local)


def test_unreachable_hub_is_a_one_line_error_with_the_remedy(tmp_path):
    program = "from image_finder.components.app.commands.data_commands import data; data()"
    arguments = ["fetch", "coco2017", "--split", "train", "--to", tmp_path / "coco"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Error: cannot read the newest commit of phiyodr/coco2017" in result.stderr
    assert "give a local copy of the table with --table" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "coco").exists()


FETCHES = """
import sys
from pathlib import Path
from click.testing import CliRunner
from image_finder.components.app.commands.data_commands import data
from image_finder.components.configs import DatasetConfig
from image_finder.components.captions.captions_table import read_captions
from image_finder.components.errors import FinderError
sys.stdin.readline()
for options in (["--limit", "2"], [], ["--revision", "b" * 40]):
    done = CliRunner().invoke(data, ["fetch", "coco2017", "--split", "validation", "--to", "coco", "--json", *options])
    print(done.exit_code, done.stderr.strip().splitlines()[-1:], flush=True)
    sys.stdin.readline()
parts = {"train": {"annotations": "validation", "images": "val2017"}}
config = {"name": "coco", "layout": "coco2017_table", "hub_dataset": "phiyodr/coco2017", "parts": parts}
for pinned in ({}, {"hub_revision": "c" * 40}):
    try:
        print(len(read_captions(DatasetConfig.parse({**config, **pinned}))))
    except FinderError as error:
        print(error)
"""


def test_tables_of_the_hub_come_from_one_commit_also_when_the_hub_has_a_newer_one(server, tmp_path):
    first, newer, other = ("a" * 40, "b" * 40, "c" * 40)
    (tmp_path / "hub").mkdir()
    write_parquet(tmp_path / "hub" / "validation.parquet", [server.add(number) for number in (1, 2, 3)])
    with hub_server("phiyodr/coco2017", tmp_path / "hub", first) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
        command = [sys.executable, "-c", FETCHES]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            lines = []
            for _ in range(3):
                process.stdin.write("\n")
                process.stdin.flush()
                lines.append(process.stdout.readline())
                hub.newest = newer
            fetched = [path for path in hub.requests if "/resolve/" in path or "/tree/" in path]
            unpinned, captions = process.communicate("\n", timeout=120)[0].splitlines()
    assert [line.split()[0] for line in lines] == ["0", "0", "1"]
    assert f"come from commit {first} of phiyodr/coco2017, not {newer}; fetch to another folder" in lines[2]
    assert (tmp_path / "coco" / coco2017.REVISION_FILE).read_text() == f"{first}\n"
    assert names_in(tmp_path / "coco" / "val2017") == {"1.jpg", "2.jpg", "3.jpg"}
    assert fetched
    assert all(first in path for path in fetched)
    assert unpinned.startswith("dataset.hub_revision is not set: phiyodr/coco2017 on the hub may change at any time")
    assert captions == "6"
    assert [path for path in hub.requests if newer in path] == []
    assert any(f"/resolve/{other}/validation.parquet" in path for path in hub.requests)


def test_revisions_that_are_no_commit_and_contradicting_options_are_refused(tmp_path):
    table = write_parquet(tmp_path / "table.parquet", [])
    moving = invoke(tmp_path, "--revision", "main")
    assert (moving.exit_code, "expected a commit (40 hex digits), got 'main'" in moving.stderr) == (2, True)
    both = invoke(tmp_path, "--revision", "a" * 40, "--table", str(table))
    assert (both.exit_code, "--table and --revision exclude each other" in both.stderr) == (2, True)


def test_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_text("no table")
    with pytest.raises(DataError, match=r"table\.parquet: not a readable Parquet file"):
        coco2017.read_table("train", table=path)


def test_genuine_table_becomes_the_genuine_captions_file(shared_data):
    rows = coco2017.read_table("validation", table=shared_data / "coco" / "huggingface" / "validation.parquet")
    genuine = json.loads((shared_data / "coco" / "annotations" / "captions_val2017.json").read_text("utf-8"))
    made = coco2017.to_coco_captions(rows)
    assert sorted(made["images"], key=lambda row: row["id"]) == sorted(genuine["images"], key=lambda row: row["id"])
    assert sorted(made["annotations"], key=lambda row: row["id"]) == sorted(
        genuine["annotations"], key=lambda row: row["id"]
    )
    assert {row["id"]: row for row in made["licenses"]} == {row["id"]: row for row in genuine["licenses"]}


def test_group_shows_its_commands_with_an_example_each():
    group = CliRunner().invoke(data, ["--help"])
    assert re.search(r"^  fetch +Fetch COCO 2017: captions and images\.$", group.stdout, re.MULTILINE)
    assert "Example:\n    image-finder data fetch coco2017" in group.stdout
    for name in data.commands:
        assert f"image-finder data {name} " in CliRunner().invoke(data, [name, "--help"]).stdout


@pytest.mark.parametrize(
    ("stop", "exit_code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["kill", "ctrl-c"]
)
def test_stopped_run_leaves_complete_images_and_parts_and_is_resumed(server, tmp_path, stop, exit_code):
    requests = [server.add(image_id, *([stall_halfway] if image_id in (11, 12) else [])) for image_id in range(1, 31)]
    table = write_parquet(tmp_path / "table.parquet", requests)
    folder = tmp_path / "coco" / "val2017"
    arguments = ["fetch", "coco2017", "--split", "validation", "--to", tmp_path / "coco", "--table", table]
    program = "from image_finder.components.app.commands.data_commands import data; data()"
    command = [sys.executable, "-c", program, *arguments, "--workers", "2", "--timeout", "120"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    halves = {folder / f"{image_id}.jpg.part": len(jpeg(image_id)) // 2 for image_id in (11, 12)}
    deadline = time.monotonic() + 30
    while not all(part.exists() and part.stat().st_size == half for part, half in halves.items()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the two images that stall were never reached"
        time.sleep(0.01)
    process.send_signal(stop)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == exit_code
    assert ("Traceback" in talk, "run the same command again to resume" in talk) == (False, stop == signal.SIGINT)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert left == {f"{n}.jpg": jpeg(n) for n in range(1, 11)} | {
        part.name: jpeg(int(part.name.split(".")[0]))[:half] for part, half in halves.items()
    }
    server.seen.clear()
    result = invoke(tmp_path, "--table", str(table))
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {f"{n}.jpg": jpeg(n) for n in range(1, 31)}
    assert server.hits() == {f"/{n}.jpg": 1 for n in range(11, 31)}
    assert {path: asked for path, asked, _ in server.seen if asked} == {
        f"/{n}.jpg": f"bytes={len(jpeg(n)) // 2}-" for n in (11, 12)
    }
