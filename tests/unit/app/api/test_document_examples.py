"""The examples of the OpenAPI document agree with the server; tests/e2e/test_api_examples.py validates them."""

import pytest

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.document import operations_of
from image_finder.components.app.api.document_examples import SCHEMAS
from image_finder.components.app.api.settings import Settings

DOCUMENT = create_app(lambda: None, Settings()).openapi()
OPERATIONS = {f"{each.method} {each.path}": each.content for each in operations_of(DOCUMENT)}


def test_there_is_no_example_of_a_schema_that_no_longer_exists():
    assert set(SCHEMAS) == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("label", [label for label, content in OPERATIONS.items() if "requestBody" in content])
def test_the_examples_of_bodies_are_accepted(api, label):
    content = OPERATIONS[label]["requestBody"]["content"]
    known = api.get("/api/v1/search?q=red&k=1").json()["hits"][0]["id"]
    path = label.partition(" ")[2].replace("{id}", known)
    # An unknown id is the worst that may be found; this server adds no folders.
    assert api.post(path, json=content["application/json"]["example"]).status_code in {200, 403, 404}


def test_the_example_of_an_error_is_what_the_server_answers(api):
    answer = api.get("/api/v1/search?q=red&k=0").json()
    example = SCHEMAS["Problem"]
    assert {**answer, "request_id": ""} == {**example, "request_id": ""}


def test_the_limits_of_the_example_are_those_of_a_server(api):
    assert api.get("/api/v1/info").json()["limits"] == SCHEMAS["InfoAnswer"]["limits"]
