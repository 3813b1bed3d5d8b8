import asyncio
import json
import threading
import time
from functools import partial
from typing import Any

import pytest

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.error_responses import Fault
from image_finder.components.app.api.limits import Batcher, Load, Workers
from image_finder.components.app.api.settings import Settings
from image_finder.components.cancellation import Cancelled
from image_finder.components.errors import StorageError
from image_finder.components.search.finder import Finder


class Held:
    """A call that blocks until it is released, and counts its starts."""

    def __init__(self):
        self.free = threading.Event()
        self.began = threading.Semaphore(0)

    def __call__(self, *_):
        self.began.release()
        assert self.free.wait(20)
        return "done"


async def begun(held, times=1):
    for _ in range(times):
        assert await asyncio.to_thread(held.began.acquire, timeout=20)


def test_calls_run_then_queue_then_are_refused():
    async def scene():
        held, load = Held(), Load("images", 2)
        workers = Workers(load, running=2, timeout_s=20)
        running = [asyncio.create_task(workers.run(held)) for _ in range(2)]
        await begun(held, 2)
        waiting = [asyncio.create_task(workers.run(held)) for _ in range(2)]
        await asyncio.sleep(0)
        assert load.n_waiting == 2
        started = time.perf_counter()
        with pytest.raises(Fault, match=r"server busy \(images queued: 2\)") as caught:
            await workers.run(held)
        assert time.perf_counter() - started < 5
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        held.free.set()
        assert await asyncio.gather(*running, *waiting) == ["done"] * 4
        assert (load.n_waiting, load.n_refused) == (0, 1)
        workers.close()

    asyncio.run(scene())


def test_queued_calls_time_out_and_a_slow_call_keeps_its_slot():
    async def scene():
        held, load = Held(), Load("images", 5)
        workers = Workers(load, running=1, timeout_s=0.1)
        first = asyncio.create_task(workers.run(held))
        await begun(held)
        for late in (first, asyncio.create_task(workers.run(held))):
            with pytest.raises(Fault, match=r"no answer within 0.1 s") as caught:
                await late
            assert caught.value.status == 503
        assert not held.began.acquire(blocking=False)  # the second never began: the first still has the thread
        held.free.set()
        workers.close()

    asyncio.run(scene())


def test_an_exception_reaches_the_caller_and_frees_the_slot():
    async def scene():
        workers = Workers(Load("images", 0), running=1, timeout_s=20)
        for _ in range(3):
            with pytest.raises(StorageError, match="broken"):
                await workers.run(lambda: (_ for _ in ()).throw(StorageError("broken")))
            await asyncio.sleep(0.01)
        assert await workers.run(lambda: 7) == 7
        workers.close()

    asyncio.run(scene())


def test_queued_items_are_processed_by_one_call():
    async def scene():
        held, calls = Held(), []

        def answer(questions):
            calls.append(questions)
            if len(calls) == 1:
                held()
            return [question * 10 for question in questions]

        batcher = Batcher(Load("searches", 100), answer, timeout_s=20, largest=4)
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(7)]
        await begun(held)
        held.free.set()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50, 60]
        assert calls == [[0], [1, 2, 3, 4], [5, 6]]
        batcher.close()

    asyncio.run(scene())


def test_an_item_that_fails_does_not_affect_its_batch():
    async def scene():
        def answer(questions):
            return [StorageError("odd") if question % 2 else question for question in questions]

        batcher = Batcher(Load("searches", 100), answer, timeout_s=20)
        got = await asyncio.gather(*(batcher.submit(number) for number in range(4)), return_exceptions=True)
        assert [got[0], got[2]] == [0, 2]
        assert [str(got[1]), str(got[3])] == ["odd", "odd"]
        batcher.close()

    asyncio.run(scene())


def test_the_queue_continues_after_a_failed_batch():
    async def scene():
        batcher = Batcher(
            Load("searches", 100), lambda questions: [1 / question for question in questions], timeout_s=20
        )
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(0)
        assert await batcher.submit(2) == 0.5
        batcher.close()

    asyncio.run(scene())


def test_cancelled_items_leave_the_queue():
    async def scene():
        held, calls = Held(), []

        def answer(questions):
            calls.append(questions)
            held()
            return questions

        load = Load("searches", 1)
        batcher = Batcher(load, answer, timeout_s=20)
        first = asyncio.create_task(batcher.submit("first"))
        await begun(held)
        second = asyncio.create_task(batcher.submit("second"))
        await asyncio.sleep(0)
        with pytest.raises(Fault, match=r"server busy \(searches queued: 1\)"):
            await batcher.submit("third")
        second.cancel()
        await asyncio.wait([second])
        held.free.set()
        assert await first == "first"
        assert await batcher.submit("fourth") == "fourth"
        assert calls == [["first"], ["fourth"]]
        batcher.close()

    asyncio.run(scene())


# Over HTTP


def call(app, messages, headers=()):
    """Status, headers and error code of an ASGI application. messages: sent by the client."""
    return asyncio.run(answer_of(app, messages, headers))


async def answer_of(app, messages, headers=()):
    """See call. messages: a list or an asynchronous generator; None: the client sends no more."""
    sent, left = [], messages if hasattr(messages, "__anext__") else in_turn(messages)

    async def receive():
        message = await anext(left)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message):
        sent.append(message)

    path = "/api/v1/search"
    given = [(b"host", b"127.0.0.1"), *headers, (b"content-type", b"application/json")]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
    }
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": given}
    await asyncio.wait_for(app(scope | {"server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9)}, receive, send), 20)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])["code"]


async def in_turn(messages):
    for message in messages:
        yield message


def absent():
    raise StorageError("nothing there")


def chunk(data, *, more=True):
    return {"type": "http.request", "body": data, "more_body": more}


def test_a_slow_body_is_refused_at_the_timeout():
    app = create_app(absent, Settings.parse({"upload_timeout_s": 0.1}))
    status, headers, code = call(app, [chunk(b'{"terms"'), None])
    assert (status, code, headers[b"connection"]) == (408, "too_slow", b"close")


def test_the_size_limit_holds_whatever_length_is_declared():
    app = create_app(absent, Settings.parse({"max_upload_bytes": 1000}))
    multipart = [(b"content-type", b"multipart/form-data; boundary=x")]
    head = b'--x\r\nContent-Disposition: form-data; name="p"; filename="p"\r\n\r\n'
    for lie in ([], [(b"content-length", b"10")], [(b"content-length", b"-1")], [(b"content-length", b"9" * 5000)]):
        status, _, code = call(app, [chunk(head), *[chunk(b"0" * 200)] * 5, None], [*multipart, *lie])
        assert (status, code) == (413, "too_large")


def test_a_body_with_a_large_declared_length_is_refused_unread():
    app = create_app(absent, Settings.parse({}))
    declared = [(b"content-length", b"300000")]
    assert call(app, [None], declared)[::2] == (413, "too_large")


def test_a_json_body_has_a_smaller_limit():
    app = create_app(absent, Settings.parse({}))
    assert call(app, [chunk(b" " * 100_000)] * 3)[::2] == (413, "too_large")


def test_a_disconnect_during_upload_is_not_an_error():
    app = create_app(absent, Settings.parse({}))
    assert call(app, [chunk(b"{"), {"type": "http.disconnect"}])[::2] == (499, "client_gone")


def test_a_body_below_the_minimum_rate_is_refused_after_the_grace_period():
    async def drip():
        while True:
            await asyncio.sleep(0.01)
            yield chunk(b"-")

    limits = {"upload_grace_s": 0.1, "min_upload_bytes_per_s": 10_000, "upload_timeout_s": 600}
    app = create_app(absent, Settings.parse(limits))
    for kind in (b"application/json", b"multipart/form-data; boundary=" + b"-" * 70):
        status, headers, code = call(app, drip(), [(b"content-type", kind)])
        assert (status, code, headers[b"connection"]) == (408, "too_slow", b"close")


def test_a_slow_body_that_keeps_the_minimum_rate_is_read():
    async def steady():
        for _ in range(20):
            yield chunk(b" " * 1000)
            await asyncio.sleep(0.01)
        yield chunk(b'{"terms": 1}', more=False)

    app = create_app(absent, Settings.parse({"upload_grace_s": 0.1, "min_upload_bytes_per_s": 100}))
    assert call(app, steady())[::2] == (422, "bad_request")  # it was read as a whole, and is no query


def test_uploads_beyond_the_memory_limit_are_refused_and_bodies_of_json_are_not(album_tools, album):
    limits = {"max_upload_bytes": 1000, "max_uploads_bytes": 1000}
    query = {"query": (None, '{"terms": [{"text": "red"}]}')}
    with album_tools.serving(album / "index", **limits) as client:
        bodies = client.app.state.server.bodies
        bodies.n_bytes = 900  # of other requests
        refused = client.post("/api/v1/search", files=query)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert client.post("/api/v1/search", json={"terms": [{"text": "red"}]}).status_code == 200
        metrics = client.get("/metrics").text
        assert 'image_finder_refused_total{kind="uploads"} 1.0' in metrics
        assert "image_finder_upload_bytes 900.0" in metrics
        bodies.n_bytes = 0
        assert client.post("/api/v1/search", files=query).status_code == 200
        assert bodies.n_bytes == 0


def test_searches_that_timed_out_in_the_queue_are_never_run(album_tools, album):
    with album_tools.serving(album / "index", timeout_s=0.2) as client:
        server, held = client.app.state.server, Held()
        occupied = server.searches._pool.submit(held)
        for number in range(3):
            assert client.get("/api/v1/search", params={"q": f"red {number}"}).status_code == 503
        held.free.set()
        assert occupied.result(20) == "done"
        server.searches._timeout_s = 20
        assert client.get("/api/v1/search?q=red").status_code == 200
        assert "image_finder_batch_searches_sum 1.0" in client.get("/metrics").text


def test_running_work_is_cancelled_after_a_timeout(album):
    async def scene():
        finder = Finder.open(album / "index", threads=1)
        held, begun_by = Held(), []
        ended: list[object] = []

        def work():
            begun_by.append("a call")
            held()
            try:
                ended.append(finder.search("red"))
            except BaseException as error:
                ended.append(type(error))
                raise

        workers = Workers(Load("images", 1), running=1, timeout_s=0.5)
        batcher = Batcher(Load("searches", 1), lambda _: work(), timeout_s=0.5)
        for answer in (workers.run(work), batcher.submit("red")):
            with pytest.raises(Fault, match="no answer within"):
                await answer
        held.free.set()
        await asyncio.to_thread(workers.close)
        await asyncio.to_thread(batcher.close)
        assert ended == [Cancelled] * len(begun_by)
        assert ended

    asyncio.run(scene())


def test_a_queued_search_is_dropped_when_its_client_disconnects(album_tools, album):
    with album_tools.serving(album / "index") as client:
        server, held = client.app.state.server, Held()
        occupied = server.searches._pool.submit(held)
        body = [chunk(b'{"terms": [{"text": "red"}]}', more=False), {"type": "http.disconnect"}]
        answered = client.portal.call(partial(answer_of, client.app, body))
        assert answered[::2] == (499, "client_gone")
        assert server.searches._queue == []
        held.free.set()
        assert occupied.result(20) == "done"
        assert client.get("/api/v1/search?q=red").status_code == 200
        assert "image_finder_batch_searches_sum 1.0" in client.get("/metrics").text


def test_a_server_busy_with_images_still_answers_texts(album_tools, album):
    with album_tools.serving(album / "index", images=1, waiting=0) as client:
        identity = client.get("/api/v1/search?q=red&k=1").json()["hits"][0]["id"]
        held = Held()
        occupied = client.portal.start_task_soon(client.app.state.server.workers.run, held)
        assert held.began.acquire(timeout=20)
        for view in ("thumbnail", "view", "original"):
            answer = client.get(f"/api/v1/images/{identity}/{view}")
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/api/v1/search?q=red").status_code == 200
        assert 'image_finder_refused_total{kind="images"} 3.0' in client.get("/metrics").text
        held.free.set()
        assert occupied.result(20) == "done"


def test_many_searches_at_once_are_all_answered(api):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(api.get("/api/v1/search?q=red&k=1").status_code))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 40
