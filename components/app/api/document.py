"""OpenAPI document: that of FastAPI with the media type of errors."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from image_finder.components.app.api.error_responses import PROBLEM_JSON

_JSON = "application/json"
Json = dict[str, Any]


def document_of(app: FastAPI) -> Json:
    """The document, made once for each application."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for operation in operations_of(document):
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    answer["content"] = {PROBLEM_JSON: answer["content"].pop(_JSON)}
    return FastAPI.openapi(app)


def operations_of(document: Json) -> Iterator[Json]:
    for methods in document["paths"].values():
        yield from methods.values()
