"""Explanations over HTTP of an image with known halves, for queries by text, id and upload."""

import asyncio
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from image_finder.components.app.api import explainer
from image_finder.components.app.api.image_routes import PEAK

GREY, RED, BLUE = (128, 128, 128), (250, 20, 20), (20, 20, 250)


@pytest.fixture(scope="module")
def halves(album_tools, colour_bundle, tmp_path_factory):
    """A server with a grey image with red left and blue right edge, and two plain images."""
    root = tmp_path_factory.mktemp("halves")
    (root / "images").mkdir()
    image = Image.new("RGB", (400, 300), GREY)
    image.paste(RED, (0, 0, 100, 300))
    image.paste(BLUE, (300, 0, 400, 300))
    image.save(root / "images" / "both.png")
    for name, colour in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (40, 30), colour).save(root / "images" / f"{name}.png")
    index = album_tools.publish_album(root / "images", colour_bundle, root)
    with album_tools.serving(index) as client:
        hits = client.get("/api/v1/search?q=white").json()["hits"]
        client.ids = {hit["name"].removesuffix(".png"): hit["id"] for hit in hits}
        client.address = f"/api/v1/images/{client.ids['both']}/explanation"
        client.files = root / "images"
        yield client


def coloured(answer):
    """Whether the left and the right edge, and the middle, of an overlay are coloured."""
    assert answer.status_code == 200, answer.text
    overlay = Image.open(io.BytesIO(answer.content))
    assert (overlay.size, overlay.format) == ((400, 300), "JPEG")
    spread = np.ptp(np.asarray(overlay).astype(int), axis=2)[100:200]
    return bool(spread[:, :40].min() > 20), bool(spread[:, 180:220].max() > 20), bool(spread[:, -40:].min() > 20)


def test_each_query_colours_what_raises_its_score(halves):
    red, blue = (halves.get(halves.address, params={"q": text}) for text in ("red", "blue"))
    assert (coloured(red), coloured(blue)) == ((True, False, False), (False, False, True))
    assert float(red.headers[PEAK]) > 0.005
    assert coloured(halves.get(halves.address, params={"q": "blue", "like": halves.ids["blue"]})) == (
        False,
        False,
        True,
    )
    like = halves.get(halves.address, params={"like": halves.ids["blue"]})
    assert coloured(like) == (False, False, True)


def test_terms_have_weights_and_uploads_are_terms(halves):
    def post(*terms):
        files = {"image": (halves.files / "blue.png").read_bytes()}
        return halves.post(halves.address, data={"query": json.dumps({"terms": terms})}, files=files)

    assert coloured(post({"image": "image"})) == (False, False, True)
    assert coloured(post({"image": "image"}, {"text": "red", "weight": 10})) == (True, False, False)
    assert coloured(halves.post(halves.address, json={"terms": [{"text": "red"}]})) == (True, False, False)
    assert post({"image": "absent"}).status_code == 422
    assert halves.post(halves.address, json={"terms": [], "k": 1}).status_code == 422


def test_an_image_without_contributing_regions_stays_grey(halves):
    answer = halves.get(halves.address, params={"q": "xyz"})
    assert coloured(answer) == (False, False, False)
    assert float(answer.headers[PEAK]) == 0


def test_attention_pooling_is_shown_without_a_query(halves):
    answer = halves.get(halves.address, params={"kind": "attention"})
    assert coloured(answer) == (False, False, False)  # this model's attention is 0
    assert PEAK not in answer.headers
    assert halves.get(halves.address, params={"kind": "attention", "q": "red"}).content == answer.content


@pytest.mark.parametrize(
    ("params", "status", "message"),
    [
        ({}, 400, "the query is empty"),
        ({"q": " "}, 400, "the query is empty"),
        ({"like": "0" * 16}, 404, "no image has the id"),
        ({"q": "red", "kind": "heat"}, 422, "kind"),
        ({"q": "red", "not": "blue"}, 422, "not"),
    ],
)
def test_invalid_explanation_requests_are_refused(halves, params, status, message):
    answer = halves.get(halves.address, params=params)
    assert answer.status_code == status
    assert message in answer.json()["detail"]
    unknown = halves.get(halves.address.replace(halves.ids["both"], "0" * 16), params={"q": "red"})
    assert unknown.status_code == 404


def test_a_cached_overlay_is_answered_with_304(halves):
    red = halves.get(halves.address, params={"q": "red"})
    known = {"If-None-Match": red.headers["ETag"]}
    again = halves.get(halves.address, params={"q": "red"}, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert halves.get(halves.address, params={"q": "blue"}, headers=known).status_code == 200


class Watched:
    """Encodes images like the encoder; counts batches and blocks each until released."""

    def __init__(self, encoder, monkeypatch):
        self.calls = 0
        self.began, self.free = threading.Semaphore(0), threading.Semaphore(0)
        self.held = False
        encode = encoder._encode_batch

        def encode_batch(pixels):
            self.calls += 1
            self.began.release()
            if self.held:
                assert self.free.acquire(timeout=20)
            return encode(pixels)

        monkeypatch.setattr(encoder, "_encode_batch", encode_batch)


@pytest.fixture
def watched(halves, monkeypatch):
    running = halves.app.state.server.explainer
    running._cache.clear()
    return Watched(halves.app.state.server.live.engine.encoder, monkeypatch)


def test_contributions_are_computed_once_per_image_and_query(halves, watched, monkeypatch):
    first = halves.get(halves.address, params={"q": "red"})
    calls = watched.calls
    assert calls > 0
    again = halves.get(halves.address, params={"q": " red "})
    assert (again.content, again.headers[PEAK], watched.calls) == (first.content, first.headers[PEAK], calls)
    halves.get(halves.address, params={"q": "blue"})
    assert watched.calls == 2 * calls
    monkeypatch.setattr(explainer, "_CACHED", 2)
    halves.get(halves.address, params={"q": "white"})
    assert len(halves.app.state.server.explainer._cache) == 2
    halves.get(halves.address, params={"q": "red"})
    assert watched.calls == 4 * calls


def test_an_explanation_is_cancelled_at_its_timeout(halves, watched, monkeypatch):
    monkeypatch.setattr(halves.app.state.server.explainer.workers, "_timeout_s", 0.3)
    watched.held = True
    answer = halves.get(halves.address, params={"q": "red"})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    watched.free.release(100)
    watched.held = False
    monkeypatch.setattr(halves.app.state.server.explainer.workers, "_timeout_s", 20)
    calls = watched.calls
    assert calls == 1
    assert halves.get(halves.address, params={"kind": "attention"}).status_code == 200  # after what ran before it
    assert watched.calls == calls


def test_an_explanation_is_cancelled_when_its_client_disconnects(halves, watched):
    watched.held = True
    path = halves.address
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"q=red",
        "headers": [(b"host", b"127.0.0.1:8080")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
        "scheme": "http", "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0"}, "state": {},
    }  # fmt: skip
    arriving = iter([{"type": "http.request", "body": b"", "more_body": False}])
    answered = []

    async def receive():
        for message in arriving:
            return message
        await asyncio.to_thread(watched.began.acquire, timeout=20)
        return {"type": "http.disconnect"}

    async def send(message):
        answered.append(message)

    async def scene():
        await halves.app(scope, receive, send)
        watched.free.release(100)  # the batch that runs ends when the work is already abandoned

    halves.portal.call(scene)
    assert (answered[0]["status"], watched.calls) == (499, 1)


def test_explanations_run_one_at_a_time_and_do_not_delay_images(halves, watched):
    watched.held = True
    load = halves.app.state.server.explainer.workers.load
    answers = []
    threads = [
        threading.Thread(target=lambda text=text: answers.append(halves.get(halves.address, params={"q": text})))
        for text in ("red", "blue")
    ]
    for thread in threads:
        thread.start()
    assert watched.began.acquire(timeout=20)
    thumbnail = halves.get(halves.address.replace("explanation", "thumbnail"))
    assert thumbnail.status_code == 200
    assert 'image_finder_waiting{kind="explanations"}' in halves.get("/metrics").text
    load.limit, limit = 0, load.limit
    try:
        refused = halves.get(halves.address, params={"q": "green"})
    finally:
        load.limit = limit
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert watched.calls == 1
    watched.free.release(100)
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [200, 200]
