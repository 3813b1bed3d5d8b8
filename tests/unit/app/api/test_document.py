"""The OpenAPI document, as client generators read it."""

import json
import re
from typing import Any

import click

from image_finder.components.app.api.request_models import NAMES
from image_finder.components.app.commands.options import QUERY_FIELDS
from image_finder.components.app.commands.search_command import search
from image_finder.components.search.query import FilterFields, ResultFields

LIMITS = ("minimum", "maximum", "maxItems", "enum", "anyOf", "type")


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_reference_in_the_document_resolves(api):
    text = api.get("/openapi.json").text
    held = json.loads(text)["components"]["schemas"]
    named = {reference.rpartition("/")[2] for reference in re.findall(r'"\$ref":\s*"([^"]+)"', text)}
    assert named <= set(held)
    assert "#/$defs" not in text


def test_every_error_is_documented_with_the_common_schema(api):
    document = api.get("/openapi.json").json()
    for label, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (label, status)
        if label.partition(" ")[2].startswith("/api"):
            assert {"401", "429"} <= set(operation["responses"]), label


def test_operations_have_unique_ids_and_descriptions(api):
    found = list(operations(api.get("/openapi.json").json()))
    assert len({operation["operationId"] for _, operation in found}) == len(found) == 23
    assert all(operation["description"] for _, operation in found)


def test_fields_may_be_added_to_answers_and_bodies_are_strict(api):
    document = api.get("/openapi.json").json()
    assert not [name for name, schema in document["components"]["schemas"].items() if "additionalProperties" in schema]
    body = document["paths"]["/api/v1/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["additionalProperties"] is False


def test_uploads_are_described(api):
    document = api.get("/openapi.json").json()
    for path in ("/api/v1/search", "/api/v1/labels", "/api/v1/embed", "/api/v1/images/{id}/explanation"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data", "image/*"}
        assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"


def test_get_search_documents_what_only_post_accepts(api):
    description = api.get("/openapi.json").json()["paths"]["/api/v1/search"]["get"]["description"]
    assert "POST also takes weights, uploaded images and images in `not`." in description


def test_command_line_and_http_offer_every_field_of_a_query_with_its_limits(api):
    document = api.get("/openapi.json").json()["paths"]["/api/v1/search"]
    body = document["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    got = {each["name"]: each["schema"] for each in document["get"]["parameters"]}
    options: dict[str | None, Any] = {option.name: option for option in search.get_params(click.Context(search))}
    assert set(QUERY_FIELDS) == {*FilterFields.model_fields, *ResultFields.model_fields} - {"offset"}  # --page instead
    for field in QUERY_FIELDS:
        name = NAMES.get(field, field)
        assert {key: got[name].get(key) for key in LIMITS} == {key: body[name].get(key) for key in LIMITS}, name
        assert options[field].help == body[name]["description"]
        assert f"-{name}".replace("_", "-") in {
            each.removeprefix("-") if len(each) > 2 else each for each in options[field].opts
        }
    assert {*got, "terms"} == set(body)
    assert {"--not", "--like"} <= {each for option in options.values() for each in option.opts}
    assert (options["k"].type.min, options["k"].type.max) == (got["k"]["minimum"], got["k"]["maximum"]) == (1, 500)
    assert list(options["orientation"].type.choices) == got["orientation"]["anyOf"][0]["enum"]


def test_the_document_states_the_request_limits(api):
    description = api.get("/openapi.json").json()["info"]["description"]
    for limit in ("within 30 s", "at 16,000 bytes/s", "20,000,000 bytes (413)", "within 10 s", "10 wrong tokens"):
        assert limit in description
