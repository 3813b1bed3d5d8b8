import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from uvicorn.server import ServerState

from image_finder.components.app import watcher
from image_finder.components.app.api import server
from tests.support.checkout import CHECKOUT

TOKEN = "correct-horse-battery-staple"


class Served:
    """A running `image-finder serve`: its address and the lines of its stderr so far."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.address = ("", 0)
        for line in process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving on http://\[?([0-9a-f.:]+?)\]?:(\d+) ", line):
                self.address = (found[1], int(found[2]))
                break
        self._reader = threading.Thread(target=lambda: self.lines.extend(process.stderr))
        self._reader.start()

    def fetch(self, path, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join(30)
        return code

    def close(self):
        self.process.kill()
        self._reader.join(30)  # it reads a stream that is about to be closed


def command(*words, **variables):
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGE_FINDER")}
    line = [sys.executable, "-m", "image_finder", *map(str, words)]
    return {"args": line, "env": {**kept, "PYTHONPATH": path, **variables}, "cwd": "/"}


@contextlib.contextmanager
def serving(*words, **variables):
    start = command("serve", "--port", 0, "--threads", 1, *words, **variables)
    process = subprocess.Popen(**start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process, contextlib.closing(Served(process)) as served:
        assert served.address[1], "".join(served.lines)
        yield served


def refused(*words, **variables):
    """The error message of a failing start."""
    done = subprocess.run(
        **command("serve", *words, **variables), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_it_serves_on_the_announced_port_and_stops_cleanly(album):
    with serving("--index", album / "index") as served:
        status, answer = served.fetch("/api/v1/search?q=red&k=1")
        assert (status, answer["hits"][0]["name"]) == (200, "red.png")
        assert served.address[0] == "127.0.0.1"
        assert served.stop() == 0
        logged = [json.loads(line) for line in served.lines if line.startswith("{")]
        assert [line["route"] for line in logged if line["message"] == "request"] == ["/api/v1/search"]
        assert "red" not in "".join(line for line in served.lines if '"request"' in line)
        with pytest.raises(ConnectionRefusedError):
            served.fetch("/health/live")


@pytest.mark.posix
def test_a_running_request_is_finished_before_the_server_stops(album):
    body = b'{"terms": [{"text": "blue"}], "k": 1}'
    head = f"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving("--index", album / "index") as served, socket.create_connection(served.address, 30) as connection:
        connection.sendall(head.encode() + body[:9])
        assert served.fetch("/health/live")[0] == 200  # so the first request has arrived
        served.process.send_signal(signal.SIGTERM)
        while True:  # until it listens no more
            try:
                socket.create_connection(served.address, 1).close()
            except OSError:
                break
            time.sleep(0.05)
        connection.sendall(body[9:])
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"blue.png" in answer + connection.recv(65536)
        assert served.stop() == 0


@pytest.mark.posix
def test_the_token_comes_from_a_file_or_the_environment(album, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "token").chmod(0o600)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for words, variables in ((("--token-file", tmp_path / "token"), {}), ((), {"IMAGE_FINDER_TOKEN": TOKEN})):
        with serving("--index", album / "index", "--host", "0.0.0.0", *words, **variables) as served:
            served.address = ("127.0.0.1", served.address[1])
            assert served.fetch("/api/v1/info")[0] == 401
            assert served.fetch("/api/v1/info", bearer)[0] == 200
            served.stop()
            assert TOKEN not in "".join(served.lines)


def test_a_port_in_use_is_reported_in_one_line(album):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lines = refused("--index", album / "index", "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in lines


@pytest.mark.posix
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--host", "0.0.0.0"),
            "Error: --host 0.0.0.0 is reachable from other machines, so a token is required",
        ),
        (("--host", "no.such.name.invalid", "--token-file", "TOKEN"), "cannot listen on no.such.name.invalid"),
        (("--token-file", "EMPTY"), "is empty"),
        (("--token-file", "OPEN"), "is readable by others (mode 0644). Run: chmod 600 "),
        (("--keep-fresh",), "--library"),
        (("--cors-origin", "*"), "--cors-origin * is not an origin; give scheme, host and port"),
    ],
)
def test_a_failed_start_is_reported_in_one_line(album, tmp_path, words, message):
    (tmp_path / "EMPTY").write_text("")
    for name, mode in (("TOKEN", 0o600), ("OPEN", 0o644)):
        (tmp_path / name).write_text(TOKEN)
        (tmp_path / name).chmod(mode)
    (tmp_path / "EMPTY").chmod(0o600)
    given = [tmp_path / word if word.isupper() and not word.startswith("-") else word for word in words]
    lines = refused("--index", album / "index", *given)
    assert message in lines
    assert "{" not in lines
    assert "Value error" not in lines


def test_library_and_index_exclude_each_other(album, tmp_path):
    given = command("serve", "--index", album / "index", "--library", tmp_path)
    done = subprocess.run(**given, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("Error: --library and --index exclude each other\n")


def test_a_missing_index_is_reported_in_one_line(tmp_path):
    assert f"no images indexed yet in {tmp_path}" in refused("--index", tmp_path)


@contextlib.asynccontextmanager
async def prompt_connections(limit=None):
    """connect(): opens a connection to an application that answers "ok" and reads no body. limit: of connections."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(
        app, http=server.PromptProtocol, log_config=None, timeout_keep_alive=20, limit_concurrency=limit
    )
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: server.PromptProtocol(config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with listener:
        yield lambda: asyncio.open_connection(*listener.sockets[0].getsockname()[:2])


async def ends(reader):
    """Whether a connection ends without further data."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 20) == b""
    return True


def test_an_incomplete_head_closes_the_connection(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_S", 0.2)

    async def scene():
        async with prompt_connections() as connect:
            for sent in (b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "):
                reader, writer = await connect()
                writer.write(sent)
                assert await ends(reader)
                writer.close()
            reader, writer = await connect()
            for _ in range(2):  # one that is used again gets a new time for each head
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 OK")
                await asyncio.sleep(0.3)
            writer.write(b"GET")
            assert await ends(reader)
            writer.close()

    asyncio.run(scene())


@pytest.mark.parametrize("sent", [b"\0\1\2\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000])
def test_what_is_not_a_request_is_answered_with_a_problem(sent):
    async def scene():
        async with prompt_connections() as connect:
            reader, writer = await connect()
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

    head, _, body = asyncio.run(scene()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["code"] == "bad_http"


def test_a_connection_above_the_limit_is_answered_with_a_problem_until_another_ends():
    async def scene():
        async with prompt_connections(limit=1) as connect:
            _, first = await connect()
            reader, second = await connect()
            second.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            refused = await asyncio.wait_for(reader.read(), 20)
            first.close()
            second.close()
            await asyncio.sleep(0.2)
            reader, third = await connect()
            third.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 OK")
            third.close()
            return refused

    head, _, body = asyncio.run(scene()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in head.lower()
    assert (json.loads(body)["status"], json.loads(body)["code"]) == (503, "busy")


def test_an_unread_body_that_trickles_in_closes_the_connection(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_S", 0.3)

    async def scene():
        async with prompt_connections() as connect:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            reader, writer = await connect()
            for _ in range(2):  # a body that arrives in time ends nothing
                writer.write(head % 3 + b"1")
                assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 OK")
                writer.write(b"23")
            writer.write(head % 1000)
            await asyncio.wait_for(reader.readuntil(b"ok"), 20)
            ending = asyncio.create_task(ends(reader))
            while not ending.done():
                with contextlib.suppress(ConnectionError):
                    writer.write(b"x")
                    await writer.drain()
                await asyncio.sleep(0.05)
            assert await ending
            writer.close()

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_it_starts_without_an_index_and_answers_once_there_is_one(album, tmp_path):
    with serving("--library", tmp_path / "new library") as served:
        assert (
            f"no images indexed yet in {tmp_path}/new library. Run: image-finder index FOLDER --library "
            in served.lines[0]
        )
        assert served.fetch("/health/ready")[0] == 503
        assert served.fetch("/api/v1/progress") == (200, {"images": 0, "generation": "", "indexing": None})
        shutil.copytree(album / "bundles", tmp_path / "new library" / "bundles")
        shutil.copytree(album / "index", tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / "new library" / "index")
        (tmp_path / "new library" / "progress.json").write_text('{"done": 1, "total": 5, "seconds": 2.0}')
        end = time.monotonic() + 60
        while served.fetch("/health/ready")[0] != 200:
            assert time.monotonic() < end, "".join(served.lines)
            time.sleep(0.05)
        indexing = {"done": 1, "total": 5, "remaining_s": 8.0}
        assert served.fetch("/health/ready")[1]["indexing"] == indexing
        answer = served.fetch("/api/v1/progress")[1]
        assert (answer["images"], answer["indexing"]) == (5, indexing)
        assert served.stop() == 0
        assert not [line for line in served.lines if '"ERROR"' in line]


def test_a_client_can_read_why_its_large_body_was_refused(album):
    with serving("--index", album / "index") as served, socket.create_connection(served.address, 30) as connection:
        head = "POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: 30000000\r\n\r\n".encode())
        for _ in range(30):
            connection.sendall(b"0" * 1_000_000)
        with connection.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 413 ")
        assert served.fetch("/health/live")[0] == 200


TRICKLES = (
    b"GET /api/v1/search?q=red HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: a",
    b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n",
    b"POST /api/v1/labels HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b'Content-Length: 20000000\r\n\r\n--x\r\nContent-Disposition: form-data; name="p"; filename="p"\r\n\r\n'
    + b"0"
    * 100_000,
    b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20000000\r\n\r\n",
)


def test_32_slow_connections_delay_no_other_client(album):
    with serving("--index", album / "index") as served, contextlib.ExitStack() as trickling:
        connections = [trickling.enter_context(socket.create_connection(served.address, 30)) for _ in range(32)]
        for number, connection in enumerate(connections):
            connection.sendall(TRICKLES[number % len(TRICKLES)])
        client = http.client.HTTPConnection(served.address[0], served.address[1], timeout=30)
        part = 'Content-Disposition: form-data; name="query"\r\n\r\n{"terms": [{"text": "red"}], "k": 1}'
        with contextlib.closing(client):
            for _ in range(3):
                for connection in connections:
                    connection.sendall(b"1")
                requests = (
                    ("GET", "/api/v1/search?q=red&k=1", None, {}),
                    (
                        "POST",
                        "/api/v1/search",
                        '{"terms": [{"text": "red"}], "k": 1}',
                        {"Content-Type": "application/json"},
                    ),
                    (
                        "POST",
                        "/api/v1/search",
                        f"--y\r\n{part}\r\n--y--\r\n",
                        {"Content-Type": "multipart/form-data; boundary=y"},
                    ),
                )
                for request in requests:
                    client.request(*request)
                    answer = client.getresponse()
                    assert (answer.status, json.loads(answer.read())["hits"][0]["name"]) == (200, "red.png")


def test_a_head_that_is_too_large_is_refused(album):
    with serving("--index", album / "index") as served, socket.create_connection(served.address, 30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000)
            assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        assert served.fetch("/health/live")[0] == 200


def test_a_url_of_a_megabyte_is_refused(album):
    with serving("--index", album / "index") as served, socket.create_connection(served.address, 30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /api/v1/search?q=" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431"))
        assert served.fetch("/api/v1/search?q=red&k=1")[0] == 200


@pytest.mark.linux
@pytest.mark.slow
def test_keep_fresh_finds_new_images_and_leaves_no_process(colour_bundle, paint, tmp_path):
    paint(tmp_path / "images" / "red.png", "red")
    library = ("--library", tmp_path / "library")
    made = command("index", tmp_path / "images", "--bundle", colour_bundle.path, *library)
    subprocess.run(**made, capture_output=True, timeout=60, check=True)
    with serving("--keep-fresh", *library) as served:
        (child,) = children_of(served.process.pid)
        assert served.fetch("/health/ready")[1]["images"] == 1
        end = time.monotonic() + 60
        while not any("watching" in lines for lines in served.lines):
            assert time.monotonic() < end, "".join(served.lines)
            time.sleep(0.1)
        paint(tmp_path / "images" / "blue.png", "blue")
        while served.fetch("/health/ready")[1]["images"] < 2:
            assert time.monotonic() < end, "".join(served.lines)
            time.sleep(0.1)
        assert served.fetch("/api/v1/search?q=blue&k=1")[1]["hits"][0]["name"] == "blue.png"
        assert served.stop() == 0
        assert not Path(f"/proc/{child}").exists()
    assert [line for line in served.lines if not line.startswith(("{", "serving on"))] == []


@pytest.mark.posix
@pytest.mark.slow
def test_a_killed_watcher_is_logged_and_restarted(colour_bundle, paint, tmp_path):
    paint(tmp_path / "images" / "red.png", "red")
    library = ("--library", tmp_path / "library")
    made = command("index", tmp_path / "images", "--bundle", colour_bundle.path, *library)
    subprocess.run(**made, capture_output=True, timeout=60, check=True)

    def until(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "".join(served.lines)
            time.sleep(0.05)

    def is_(status):
        return served.fetch("/health/ready")[1]["status"] == status

    with serving("--keep-fresh", *library) as served:
        until(lambda: any("watching 1 folder;" in lines for lines in served.lines))
        os.kill(int(children_of(served.process.pid)[0]), signal.SIGKILL)
        until(lambda: is_("stale"))
        until(lambda: is_("ready"))
        paint(tmp_path / "images" / "blue.png", "blue")
        until(lambda: served.fetch("/health/ready")[1]["images"] == 2)
        assert served.stop() == 0
    logged = [json.loads(line) for line in served.lines if line.startswith("{")]
    (error_line,) = [line["message"] for line in logged if line["level"] == "ERROR"]
    assert error_line.startswith("folders are not watched: the watcher exited with -9 (watching 1 folder;")
    assert error_line.endswith("; restarting in 1 s")


def children_of(process):
    """Ids of the child processes of a process."""
    return [
        child for task in Path(f"/proc/{process}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def watcher_of(program, directory, monkeypatch, settle_s=0.0, rescan_s=600.0):
    """A Watcher of a Python program; its variable `runs` counts its starts."""
    monkeypatch.setattr(watcher, "_SETTLE_S", settle_s)
    runs = directory / "runs"
    head = f"import json, sys, time\nopen({str(runs)!r}, 'a').write('.')\nruns = len(open({str(runs)!r}).read())\n"
    return watcher.Watcher([sys.executable, "-c", head + program], pause_s=0.01, rescan_s=rescan_s)


def messages_of(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelname == level]


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("not fulfilled within 20 s")


def test_a_failing_watcher_is_restarted_after_growing_pauses(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "image_finder.components.app.watcher")
    program = """
if runs < 4:
    sys.exit("Error: no room")
print(json.dumps({"added": 2, "images": 7, "failed": {"a.jpg": "empty"}}), flush=True)
time.sleep(60)
"""
    with watcher_of(program, tmp_path, monkeypatch) as watched:
        wait_for(lambda: watched.failure)
        assert watched.failure == "folders are not watched: the watcher exited with 1 (Error: no room)"
        wait_for(lambda: watched.failure is None)
        began = time.monotonic()
    assert time.monotonic() - began < 10, "it is ended, not waited for"
    pauses = [error_line.rpartition("restarting in ")[2] for error_line in messages_of(caplog, "ERROR")]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]
    assert messages_of(caplog, "INFO") == ["watcher: Error: no room"] * 3 + ["folders updated"]
    indexed = caplog.records[-1]
    assert (indexed.added, indexed.images, indexed.failed) == (2, 7, 1)


def test_a_watcher_that_polls_is_reported_and_one_that_hangs_is_a_failure(tmp_path, monkeypatch):
    program = """
for how in ("events", "polling"):
    print(json.dumps({"images": 7, "watching": how}), flush=True)
time.sleep(60)
"""
    with watcher_of(program, tmp_path, monkeypatch) as watched:
        assert watched.state() == watcher.Watching(None, "")
        wait_for(lambda: watched.state() == watcher.Watching(None, "polling"))
    with watcher_of(program, tmp_path, monkeypatch, rescan_s=0.05) as watched:
        wait_for(lambda: watched.failure)
        assert watched.state().failure == "no update has finished within 3 rescan intervals of 0.05 s"
        assert watched.state().how == ""


def test_a_watcher_that_ends_with_the_server_is_not_a_failure(tmp_path, monkeypatch, caplog):
    with watcher_of("print('stopped', flush=True)", tmp_path, monkeypatch, settle_s=20) as watched:
        wait_for((tmp_path / "runs").exists)
        time.sleep(0.2)
        assert watched.failure is None
    assert messages_of(caplog, "ERROR") == []
    assert (tmp_path / "runs").read_text() == "."


def test_a_watcher_that_cannot_start_is_a_failure(monkeypatch, caplog):
    monkeypatch.setattr(watcher, "_SETTLE_S", 0)
    with watcher.Watcher(["/no/such/program"], pause_s=20) as watched:
        wait_for(lambda: watched.failure)
        assert watched.failure.endswith("could not start the watcher: No such file or directory")
    assert len(messages_of(caplog, "ERROR")) == 1
