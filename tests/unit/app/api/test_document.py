"""The OpenAPI document, as a client's generator reads it."""

import json
import re


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_refers_to_nothing_it_does_not_hold(api):
    text = api.get("/openapi.json").text
    held = json.loads(text)["components"]["schemas"]
    named = {reference.rpartition("/")[2] for reference in re.findall(r'"\$ref":\s*"([^"]+)"', text)}
    assert named <= set(held)
    assert "#/$defs" not in text


def test_every_failure_is_documented_in_the_one_form(api):
    document = api.get("/openapi.json").json()
    for label, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (label, status)
        if label.partition(" ")[2].startswith("/api"):
            assert {"401", "429"} <= set(operation["responses"]), label


def test_names_of_operations_are_unique_and_every_one_says_what_it_does(api):
    found = list(operations(api.get("/openapi.json").json()))
    assert len({operation["operationId"] for _, operation in found}) == len(found) == 15
    assert all(operation["description"] for _, operation in found)


def test_uploads_are_described(api):
    document = api.get("/openapi.json").json()
    for path in ("/api/v1/search", "/api/v1/labels", "/api/v1/images/{identity}/explanation"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"


def test_what_only_a_post_can_ask_is_told_where_one_would_look_for_it(api):
    told = api.get("/openapi.json").json()["paths"]["/api/v1/search"]["get"]["description"]
    assert "Weights, uploaded images, and images that are not wanted go by POST." in told


def test_the_limits_of_requests_are_told_with_their_numbers(api):
    told = api.get("/openapi.json").json()["info"]["description"]
    for limit in ("within 30 s", "at 16,000 bytes/s", "20,000,000 bytes (413)", "within 10 s", "10 wrong tokens"):
        assert limit in told
