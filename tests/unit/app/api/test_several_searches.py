"""POST /searches and POST /embed."""

import asyncio
import json
import threading

import numpy as np
import pytest

from image_finder.components.app.api.limits import Batcher, Load
from image_finder.components.search.finder import Finder
from tests.unit.app.api.test_search_routes import fault, identity_of, image, names


def results(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_several_queries_are_answered_in_their_order_as_single_ones(api):
    queries = [
        {"q": ["red"], "k": 2},
        {"q": ["blue"], "not": ["green"], "k": 5},
        {"terms": [{"text": "yellow", "weight": 2}], "folder": ["images/warm"]},
        {"like": [identity_of(api, "green")], "k": 1},
    ]
    together = results(api.post("/api/v1/searches", json={"queries": queries}))
    assert [each["error"] for each in together] == [None] * 4
    alone = [api.post("/api/v1/search", json=query).json() for query in queries]
    assert [each["answer"]["hits"] for each in together] == [each["hits"] for each in alone]


def test_a_query_that_cannot_be_answered_does_not_affect_the_others(api):
    queries = [
        {"q": ["red"]},
        {"q": [" "]},
        {"like": ["0" * 16]},
        {"q": ["red"], "folder": ["elsewhere"]},
        {"q": ["blue"]},
    ]
    found = results(api.post("/api/v1/searches", json={"queries": queries}))
    assert [each["error"] and each["error"]["code"] for each in found] == [
        None,
        "bad_query",
        "not_found",
        "bad_query",
        None,
    ]
    assert [each["answer"] and each["answer"]["hits"][0]["name"] for each in found] == [
        "red.png",
        None,
        None,
        None,
        "blue.png",
    ]


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"queries": []}, "/queries"),
        ({"queries": [{"q": ["red"]}] * 33}, "/queries"),
        ({"queries": [{"q": ["red"]}, {"q": ["red"], "k": 0}]}, "/queries/1/k"),
        ({}, "/queries"),
    ],
)
def test_a_body_that_does_not_match_is_refused_as_a_whole(api, body, location):
    answer = api.post("/api/v1/searches", json=body)
    assert fault(answer) == (422, "bad_request")
    assert answer.json()["errors"][0]["location"] == location


def test_several_searches_take_no_uploads(api):
    answer = api.post("/api/v1/searches", json={"queries": [{"terms": [{"image": "mine"}]}]})
    assert fault(answer) == (422, "bad_request")
    query = {"query": json.dumps({"queries": [{"q": ["red"]}]})}
    assert fault(api.post("/api/v1/searches", data=query, files={"mine": image((255, 0, 0))})) == (
        415,
        "unsupported_media_type",
    )


def test_items_that_are_submitted_together_are_processed_by_one_call():
    async def scene():
        calls = []

        def answer(questions):
            calls.append(list(questions))
            return [ValueError("odd") if question % 2 else question for question in questions]

        batcher = Batcher(Load("searches", 4), answer, timeout_s=20, largest=8)
        got = await batcher.submit_all([0, 1, 2])
        assert (calls, got[0], str(got[1]), got[2]) == ([[0, 1, 2]], 0, "odd", 2)
        assert await batcher.submit_all([]) == []
        batcher.close()

    asyncio.run(scene())


def test_items_of_a_cancelled_request_leave_the_queue():
    async def scene():
        free = threading.Event()
        load = Load("searches", 4)
        batcher = Batcher(load, lambda items: [free.wait(20) for _ in items], timeout_s=20, largest=8)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0)
        rest = asyncio.create_task(batcher.submit_all([1, 2, 3]))
        await asyncio.sleep(0)
        assert load.n_waiting == 3
        rest.cancel()
        await asyncio.wait([rest])
        assert load.n_waiting == 0
        free.set()
        assert await first is True
        batcher.close()

    asyncio.run(scene())


def test_texts_and_images_are_embedded_as_a_search_uses_them(api, album):
    finder = Finder.open(album / "index", threads=1)
    body = {"query": json.dumps({"texts": ["red", "a blue sea"], "images": ["one"]})}
    answer = api.post("/api/v1/embed", data=body, files={"one": image((255, 0, 0))}).json()
    assert answer["bundle"] == finder.bundle_manifest.sha256[:16] == api.get("/api/v1/search?q=red").json()["bundle"]
    assert np.shape(answer["texts"]) == (2, api.get("/api/v1/info").json()["bundle"]["embedding_dim"])
    assert np.allclose(answer["texts"], finder.encode_texts(["red", "a blue sea"]), atol=1e-6)
    assert np.allclose(answer["images"], finder.encode_images([image((255, 0, 0))]), atol=1e-6)
    assert np.allclose(np.linalg.norm(answer["texts"] + answer["images"], axis=1), 1, atol=1e-5)
    assert api.post("/api/v1/embed", json={"texts": ["red"]}).json()["texts"] == answer["texts"][:1]


def test_an_image_alone_is_embedded(api):
    png = image((0, 0, 255))
    answer = api.post("/api/v1/embed", content=png, headers={"Content-Type": "image/png"}).json()
    assert (len(answer["texts"]), len(answer["images"])) == (0, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "bad_request")),
        ({"texts": []}, (422, "bad_request")),
        ({"texts": ["red"] * 65}, (422, "bad_request")),
        ({"images": ["absent"]}, (422, "bad_request")),
        ({"texts": ["red", ""]}, (400, "bad_query")),
        ({"texts": ["x" * 1001]}, (400, "bad_query")),
    ],
)
def test_an_invalid_request_to_embed_is_refused(api, body, expected):
    assert fault(api.post("/api/v1/embed", json=body)) == expected


def test_embed_refuses_what_is_not_an_image_or_too_large(api):
    headers = {"Content-Type": "image/png"}
    assert fault(api.post("/api/v1/embed", content=b"<svg/>", headers=headers)) == (415, "not_an_image")
    bomb = image((0, 0, 0), (10_000, 5_001))
    assert fault(api.post("/api/v1/embed", content=bomb, headers=headers)) == (413, "too_large")


def test_an_image_alone_is_searched_with_the_parameters_of_the_query_string(api):
    headers = {"Content-Type": "image/jpeg"}
    blue = image((0, 0, 255), kind="JPEG")
    assert names(api.post("/api/v1/search?k=1", content=blue, headers=headers)) == ["blue.png"]
    warm = {"k": 5, "folder": "images/warm", "not": "yellow"}
    assert names(api.post("/api/v1/search", params=warm, content=blue, headers=headers))[0] == "red.png"
    assert names(api.post("/api/v1/search?q=red&q=red&q=red&q=red&k=1", content=blue, headers=headers)) == ["red.png"]
    assert fault(api.post("/api/v1/search?k=0", content=blue, headers=headers)) == (422, "bad_request")
    assert fault(api.post("/api/v1/search", content=b"", headers=headers)) == (415, "not_an_image")


def test_a_field_of_the_body_replaces_the_parameter_of_its_name(api):
    answer = api.post("/api/v1/search?k=3&q=blue&folder=images/cold", json={"q": ["red"], "k": 1})
    assert names(answer) != ["red.png"]  # the folder applies
    assert names(api.post("/api/v1/search?k=3&q=blue", json={"q": ["red"], "k": 1})) == ["red.png"]


def test_labels_and_an_explanation_take_an_image_alone(api):
    red, headers = image((255, 0, 0)), {"Content-Type": "image/png"}
    answer = api.post("/api/v1/labels?labels=red&labels=blue", content=red, headers=headers)
    assert answer.json()["labels"][0]["label"] == "red"
    assert fault(api.post("/api/v1/labels", content=red, headers=headers)) == (422, "bad_request")
    path = f"/api/v1/images/{identity_of(api, 'red')}/explanation"
    assert api.post(path, content=red, headers=headers).headers["Content-Type"] == "image/jpeg"


def test_an_image_alone_is_limited_and_counted_like_other_uploads(album_tools, album):
    with album_tools.serving(album / "index", max_upload_bytes=1000) as client:
        headers = {"Content-Type": "image/png"}
        assert fault(client.post("/api/v1/search", content=b"x" * 1001, headers=headers)) == (413, "too_large")
        assert fault(client.post("/api/v1/search", content=iter([b"x" * 600] * 2), headers=headers)) == (
            413,
            "too_large",
        )
        assert client.app.state.server.bodies.n_bytes == 0


def test_the_parameters_of_get_search_are_a_body_of_post_search(api):
    query = {
        "q": ["red"],
        "not": ["yellow"],
        "folder": ["images"],
        "min_px": 10,
        "gps": False,
        "k": 2,
        "duplicates": "show",
    }
    got, posted = api.get("/api/v1/search", params=query), api.post("/api/v1/search", json=query)
    assert got.json()["hits"] == posted.json()["hits"]
    assert len(names(got)) == 2
