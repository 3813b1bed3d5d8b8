"""OpenAPI document: that of FastAPI with the media type of errors and with examples."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import FastAPI

from image_finder.components.app.api.document_examples import (
    BODIES,
    METRICS,
    PARAMETERS,
    SCHEMAS,
    UPLOADS,
    problem,
)
from image_finder.components.app.api.error_responses import PROBLEM_JSON
from image_finder.components.app.api.request_bodies import IMAGE_PART, QUERY_PART

JSON, MULTIPART = "application/json", "multipart/form-data"
Json = dict[str, Any]


class Operation(NamedTuple):
    """A method of a path. content: its object in the document."""

    method: str
    path: str
    content: Json


def document_of(app: FastAPI) -> Json:
    """The document, made once for each application."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for name, schema in document["components"]["schemas"].items():
            schema["examples"] = [SCHEMAS[name]]
            schema.pop("additionalProperties", None)  # of answers, to which later versions may add fields
        for operation in operations_of(document):
            _complete(operation.content)
    return FastAPI.openapi(app)


def operations_of(document: Json) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, content in methods.items():
            yield Operation(method.upper(), path, content)


def schema_name(schema: Json) -> str:
    """Name of the schema that a reference names."""
    return str(schema["$ref"]).rpartition("/")[2]


def _complete(operation: Json) -> None:
    for parameter in operation.get("parameters", []):
        example = PARAMETERS[parameter["name"]]
        parameter["example"] = [example] if parameter["schema"].get("type") == "array" else example
    bodies = operation.get("requestBody", {}).get("content", {})
    if JSON in bodies:
        bodies[JSON]["example"] = BODIES[operation["operationId"]]
    if MULTIPART in bodies:
        parts = {QUERY_PART: UPLOADS[operation["operationId"]], IMAGE_PART: "(content of an image file)"}
        bodies[MULTIPART]["example"] = parts
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if int(status) >= 400:
            content[PROBLEM_JSON] = {**content.pop(JSON), "example": problem(int(status))}
        elif JSON in content:
            content[JSON]["example"] = SCHEMAS[schema_name(content[JSON]["schema"])]
        elif "text/plain" in content:
            content["text/plain"]["example"] = METRICS
