"""Every schema and operation of the OpenAPI document has an example that is valid by its JSON schema."""

import jsonschema
import pytest

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.document import operations_of
from image_finder.components.app.api.settings import Settings

DOCUMENT = create_app(lambda: None, Settings()).openapi()
OPERATIONS = {f"{each.method} {each.path}": each.content for each in operations_of(DOCUMENT)}
BINARY = ("image/", "application/zip", "application/octet-stream")


def validate(example, schema):
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.validate(example, whole, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_has_a_valid_example(name):
    schema = DOCUMENT["components"]["schemas"][name]
    assert schema["examples"]
    for example in schema["examples"]:
        validate(example, schema)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_has_valid_examples(label):
    operation = OPERATIONS[label]
    for parameter in operation.get("parameters", []):
        validate(parameter["example"], parameter["schema"])
    contents = [operation.get("requestBody", {}), *operation["responses"].values()]
    described = [(kind, media) for each in contents for kind, media in each.get("content", {}).items()]
    for kind, media in described:
        if not kind.startswith(BINARY):
            validate(media["example"], media["schema"])
