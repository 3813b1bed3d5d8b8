import io
import json

import pytest
from PIL import Image


def image(colour, size=(40, 30), kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def names(response):
    assert response.status_code == 200, response.text
    return [hit["name"] for hit in response.json()["hits"]]


def fault(response):
    error = response.json()
    assert error["request_id"] == response.headers["X-Request-ID"]
    return response.status_code, error["code"]


def post(api, query, **images):
    files = {name: (f"{name}.bin", content, "text/html") for name, content in images.items()}
    return api.post("/api/v1/search", data={"query": json.dumps(query)}, files=files or None)


def identity_of(api, colour):
    return api.get("/api/v1/search", params={"q": colour, "k": 1}).json()["hits"][0]["id"]


@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow"])
def test_a_text_finds_its_image_first(api, colour):
    answer = api.get("/api/v1/search", params={"q": colour, "k": 2})
    assert names(answer)[0] == f"{colour}.png"
    assert len(answer.json()["hits"]) == 2
    assert answer.json()["candidates"] == 5
    assert answer.json()["more"] is True
    assert answer.json()["matches_well"] is True
    assert answer.json()["unmet"] == []
    assert answer.json()["generation"].startswith("00000001-")
    assert set(answer.json()["took_ms"]) == {"wait", "encode", "rank", "total"}


def test_a_not_text_lowers_the_rank_of_its_images(api):
    for lowered, kept in (("red", "green"), ("green", "red")):
        answer = names(api.get("/api/v1/search", params={"q": "yellow", "not": lowered}))
        assert answer.index(f"{kept}.png") < answer.index(f"{lowered}.png")


def test_both_forms_of_a_search_give_a_not_text_the_same_weight(api):
    body = {"terms": [{"text": "white"}], "not": [{"text": "red"}]}
    posted, got = api.post("/api/v1/search", json=body), api.get("/api/v1/search", params={"q": "white", "not": "red"})
    assert [(hit["name"], hit["score"]) for hit in posted.json()["hits"]] == [
        (hit["name"], hit["score"]) for hit in got.json()["hits"]
    ]


def test_an_image_of_the_index_finds_itself_first_and_an_unknown_one_is_not_found(api):
    assert names(api.get("/api/v1/search", params={"like": identity_of(api, "blue"), "k": 1})) == ["blue.png"]
    assert fault(api.get("/api/v1/search", params={"like": "f" * 16})) == (404, "not_found")


def test_filters_exclude_images(api):
    assert sorted(names(api.get("/api/v1/search", params={"q": "red", "folder": "images/warm"}))) == [
        "red.png",
        "yellow.png",
    ]
    assert names(api.get("/api/v1/search", params={"q": "red", "min_px": 301})) == []
    assert names(api.get("/api/v1/search", params={"q": "red", "gps": "true"})) == []
    assert len(names(api.get("/api/v1/search", params={"q": "red", "orientation": "landscape"}))) == 5
    assert names(api.get("/api/v1/search", params={"q": "red", "until": "1990-01-01"})) == []


def test_folders_are_named_by_their_labels_and_never_by_paths_of_the_host(api, album):
    for folder in (album / "images" / "warm", album / "images", "/", "..", "/etc"):
        answer = api.get("/api/v1/search", params={"q": "red", "folder": str(folder)})
        assert fault(answer) == (400, "bad_query")
        assert answer.json()["detail"].endswith("; indexed folders: 'images', 'images/cold', 'images/warm'")
        body = {"terms": [{"text": "red"}], "folder": [str(folder)]}
        assert fault(api.post("/api/v1/search", json=body)) == (400, "bad_query")


def test_an_error_in_several_values_names_them_and_no_internals(api):
    days = {"since": "2024-02-01", "until": "2024-01-01"}
    answers = [
        api.get("/api/v1/search", params={"q": "red", **days}),
        api.post("/api/v1/search", json={"terms": [{"text": "red"}], **days}),
    ]
    for answer in answers:
        expected = "filters: since (2024-02-01) must not be after until (2024-01-01)"
        assert answer.json()["detail"].removeprefix("query: ") == expected


def test_repeated_texts_are_separate_terms(api):
    def scores(response):
        assert response.status_code == 200, response.text
        return {hit["name"]: hit["score"] for hit in response.json()["hits"]}

    apart = scores(api.get("/api/v1/search?q=red%20red%20red&q=blue"))
    terms = [{"text": "red red red"}, {"text": "blue"}]
    assert apart == scores(api.post("/api/v1/search", json={"terms": terms}))
    assert apart["red.png"] == pytest.approx(apart["blue.png"], abs=0.02)
    joined = scores(api.get("/api/v1/search?q=red%20red%20red%20blue"))
    assert joined["red.png"] > joined["blue.png"] + 0.3


def test_a_query_of_a_megabyte_is_refused(api):
    query = {"terms": [{"text": "x" * 1_000_000}]}
    assert fault(api.post("/api/v1/search", json=query)) == (413, "too_large")
    in_parts = post(api, query, mine=image((255, 0, 0)))
    assert fault(in_parts) == (413, "too_large")
    assert in_parts.json()["detail"].startswith("part 'query' is larger than 262,144 bytes")
    as_file = api.post("/api/v1/search", files={"query": ("query.json", json.dumps(query))})
    assert fault(as_file) == (400, "bad_query")
    assert fault(api.post("/api/v1/search", json={"terms": [{"text": "x" * 200_000}]})) == (400, "bad_query")


def test_pages_follow_each_other_without_gaps(api):
    whole = names(api.get("/api/v1/search", params={"q": "red"}))
    pages = [names(api.get("/api/v1/search", params={"q": "red", "k": 2, "offset": at})) for at in (0, 2, 4)]
    assert [name for page in pages for name in page] == whole


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_an_uploaded_image_finds_its_colour_whatever_type_it_claims(api, kind):
    answer = post(api, {"terms": [{"image": "mine"}], "k": 1}, mine=image((255, 0, 0), kind=kind))
    assert names(answer) == ["red.png"]
    assert answer.json()["hits"][0]["good"] is None


def test_texts_and_images_are_combined_by_weight(api):
    terms = [{"text": "red", "weight": 0.1}, {"image": "mine", "weight": 10}]
    assert names(post(api, {"terms": terms, "k": 1}, mine=image((0, 0, 255)))) == ["blue.png"]
    terms[0]["weight"], terms[1]["weight"] = 10, 0.1
    assert names(post(api, {"terms": terms, "k": 1}, mine=image((0, 0, 255)))) == ["red.png"]


def test_searches_without_uploads_accept_json(api):
    body = {"terms": [{"text": "red"}], "not": ["yellow"], "folder": ["images"], "k": 1}
    assert names(api.post("/api/v1/search", json=body)) == ["red.png"]


@pytest.mark.parametrize(
    "text",
    [
        "\N{DOG}\N{ZERO WIDTH JOINER}",
        "\u0643\u0644\u0628 \u0639\u0644\u0649 \u0627\u0644\u0634\u0627\u0637\u0626",
        "\u72ac",
        "\0",
        "a\u202eb",
        "x" * 1000,
        "%00",
        "'; drop table",
    ],
)
def test_any_text_is_answered(api, text):
    assert len(names(api.get("/api/v1/search", params={"q": text}))) == 5
    assert len(names(api.post("/api/v1/search", json={"terms": [{"text": text}]}))) == 5


def test_invalid_utf8_is_answered(api):
    assert api.get("/api/v1/search?q=%FF%FE%80").status_code == 200


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (400, "bad_query")),
        ({"q": ""}, (400, "bad_query")),
        ({"q": " \n"}, (400, "bad_query")),
        ({"q": "x" * 1001}, (400, "bad_query")),
        ({"q": ["red"] * 17}, (422, "bad_request")),
        ({"q": "red", "k": 0}, (422, "bad_request")),
        ({"q": "red", "k": -1}, (422, "bad_request")),
        ({"q": "red", "k": 10**9}, (422, "bad_request")),
        ({"q": "red", "k": "many"}, (422, "bad_request")),
        ({"q": "red", "k": 500, "offset": 4600}, (400, "bad_query")),
        ({"q": "red", "min_score": "nan"}, (422, "bad_request")),
        ({"q": "red", "since": "2024-13-01"}, (422, "bad_request")),
        ({"q": "red", "since": "2024-02-01", "until": "2024-01-01"}, (400, "bad_query")),
        ({"q": "red", "sort": "name"}, (422, "bad_request")),
        ({"not": "red"}, (400, "bad_query")),
        ({"q": "red", "folder": "elsewhere"}, (400, "bad_query")),
        ({"q": "red", "folder": ["images/warm", "images/war"]}, (400, "bad_query")),
        ({"q": "x" * 60_000}, (400, "bad_query")),
    ],
)
def test_an_invalid_query_gets_the_common_error_format(api, parameters, expected):
    assert fault(api.get("/api/v1/search", params=parameters)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (422, "bad_request")),
        ("{", (422, "bad_request")),
        ("[]", (422, "bad_request")),
        ("null", (422, "bad_request")),
        ("[" * 100_000, (422, "bad_request")),
        ('{"terms": [{"text": "red", "weight": NaN}]}', (422, "bad_request")),
        ('{"terms": [{"text": "red", "weight": 1e999}]}', (422, "bad_request")),
        ('{"terms": [{"text": "red", "weight": 0}]}', (422, "bad_request")),
        ('{"terms": [{"text": "red", "like": "0123456789abcdef"}]}', (400, "bad_query")),
        ('{"terms": [{}]}', (400, "bad_query")),
        ('{"terms": []}', (400, "bad_query")),
        ('{"terms": [{"image": "absent"}]}', (422, "bad_request")),
        ('{"terms": [{"image": "/etc/passwd"}]}', (422, "bad_request")),
        ('{"terms": [{"like": "../../etc/passwd"}]}', (404, "not_found")),
        ('{"like": ["../../etc/passwd"]}', (404, "not_found")),
        ('{"not": ["red"]}', (400, "bad_query")),
        ('{"q": ["red"], "not": [{"text": "blue", "like": "0123456789abcdef"}]}', (400, "bad_query")),
        ('{"q": ["red"], "not": [1]}', (422, "bad_request")),
        ('{"q": ["red"], "filters": {}}', (422, "bad_request")),
        ('{"terms": [{"text": "red"}], "k": 1e9}', (422, "bad_request")),
        ('{"terms": [{"text": "red"}], "path": "/etc"}', (422, "bad_request")),
    ],
)
def test_an_invalid_body_gets_the_common_error_format(api, query, expected):
    assert fault(api.post("/api/v1/search", content=query, headers={"Content-Type": "application/json"})) == expected
    assert fault(api.post("/api/v1/search", files={"query": (None, query)})) == expected


def test_a_body_that_does_not_match_its_type_is_refused(api):
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (b"", b"nothing", b"--x\r\n\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\n", b"\0" * 100):
        assert fault(api.post("/api/v1/search", content=content, headers=broken)) == (422, "bad_request")
    unbounded = {"Content-Type": "multipart/form-data"}
    assert fault(api.post("/api/v1/search", content=b"x", headers=unbounded)) == (422, "bad_request")
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = api.post("/api/v1/search", content=b"{}", headers={"Content-Type": kind})
        assert fault(response) == (415, "unsupported_media_type")
    assert fault(api.post("/api/v1/search", data={"other": "1"}, files={"x": b"x"})) == (422, "bad_request")


def test_uploads_that_are_not_images_are_refused(api):
    damaged = image((255, 0, 0), (400, 300), "JPEG")[:300]
    for content in (
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>",
        b"%PDF-1.4",
        b"MZ",
        damaged[:2],
        damaged,
    ):
        assert fault(post(api, {"terms": [{"image": "mine"}]}, mine=content)) == (415, "not_an_image")


def test_a_wide_image_and_one_of_one_pixel_are_answered(api):
    assert names(post(api, {"terms": [{"image": "m"}], "k": 1}, m=image((255, 0, 0), (20_000, 3)))) == ["red.png"]
    assert names(post(api, {"terms": [{"image": "m"}], "k": 1}, m=image((0, 0, 255), (1, 1)))) == ["blue.png"]


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(api):
    bomb = image((0, 0, 0), (10_000, 5_001))  # 150 MB of pixels in 150 kB
    assert len(bomb) < 1_000_000
    answer = post(api, {"terms": [{"image": "mine"}]}, mine=bomb)
    assert fault(answer) == (413, "too_large")
    assert "10000 x 5001 pixels" in answer.json()["detail"]


def test_labels_are_ranked_for_an_image(api):
    answer = api.post("/api/v1/labels", json={"id": identity_of(api, "blue"), "labels": ["red", "blue", "green"]})
    assert answer.status_code == 200
    best = answer.json()["labels"][0]
    assert best["label"] == "blue"
    assert best["probability"] > 0.9
    assert sum(each["probability"] for each in answer.json()["labels"]) == pytest.approx(1)
    query = {"query": json.dumps({"image": "mine", "labels": ["red", "blue"]})}
    uploaded = api.post("/api/v1/labels", data=query, files={"mine": image((255, 0, 0))})
    assert uploaded.json()["labels"][0]["label"] == "red"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "f" * 16, "labels": ["red", "blue"]}, (404, "not_found")),
        ({"id": "../../etc/passwd", "labels": ["red", "blue"]}, (404, "not_found")),
        ({"labels": ["red", "blue"]}, (422, "bad_request")),
        ({"id": "f" * 16, "image": "mine", "labels": ["red", "blue"]}, (422, "bad_request")),
        ({"id": "f" * 16, "labels": []}, (422, "bad_request")),
        ({"id": "f" * 16, "labels": ["x"] * 101}, (422, "bad_request")),
        ({"image": "absent", "labels": ["red", "blue"]}, (422, "bad_request")),
    ],
)
def test_invalid_label_requests_are_refused(api, body, expected):
    assert fault(api.post("/api/v1/labels", json=body)) == expected


def test_unusable_labels_are_refused(api):
    for labels in (["", "red"], [" ", "red"], ["x" * 5000, "red"]):
        answer = api.post("/api/v1/labels", json={"id": identity_of(api, "blue"), "labels": labels})
        assert fault(answer) == (400, "bad_query")


def test_images_are_browsed_page_by_page_without_a_query(api):
    first = api.get("/api/v1/images?k=3").json()
    second = api.get("/api/v1/images", params={"k": 3, "cursor": first["cursor"]}).json()
    assert (len(first["images"]), len(second["images"]), second["cursor"]) == (3, 2, None)
    assert first["candidates"] == second["candidates"] == 5
    assert len({image["id"] for image in (*first["images"], *second["images"])}) == 5
    assert "path" not in first["images"][0]
    oldest = api.get("/api/v1/images?k=5&order=oldest").json()["images"]
    assert oldest[::-1] == [*first["images"], *second["images"]]
    assert len(api.get("/api/v1/images?folder=images/warm").json()["images"]) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("cursor=x", 400),
        ("folder=elsewhere", 400),
        ("since=2024-02-01&until=2024-01-01", 400),
        ("k=0", 422),
        ("order=up", 422),
    ],
)
def test_a_faulty_request_to_browse_is_refused(api, query, status):
    assert api.get(f"/api/v1/images?{query}").status_code == status


def test_example_queries_find_different_images(api):
    queries = api.get("/api/v1/examples").json()["queries"]
    assert 1 <= len(queries) <= 4
    best = [api.get("/api/v1/search", params={"q": query, "k": 1}).json()["hits"][0]["id"] for query in queries]
    assert len(set(best)) == len(queries)
