"""API reference: a page made from the OpenAPI document; without scripts, and it loads one style sheet of this server."""

import json
import shlex
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode

from markupsafe import Markup, escape

from image_finder.components.app.api.document import JSON, MULTIPART, Json, Operation, operations_of, schema_name
from image_finder.components.app.api.document_examples import BODIES, CALLS, IDENTITY, UPLOADS
from image_finder.components.app.api.error_responses import PROBLEM_JSON, TITLES
from image_finder.components.html_report import render_report

_IMAGE = "-H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


class Field(NamedTuple):
    """A parameter, or a property of an object."""

    name: str
    kind: Markup
    limits: str
    required: bool
    description: str


class Answer(NamedTuple):
    """What an operation answers with a status. example: JSON or text, "" for files."""

    status: str
    description: str
    kinds: list[str]
    schema: str
    example: str


def reference_page(document: Json) -> str:
    groups = [
        {**tag, "operations": [_described(each) for each in _tagged(document, tag["name"])]} for tag in document["tags"]
    ]
    schemas = document["components"]["schemas"]
    return render_report(
        "api_reference.html",
        title=f"{document['info']['title']}: API reference",
        words=_words,
        paragraphs=_paragraphs,
        info=document["info"],
        groups=groups,
        schemas={name: {"fields": fields_of(schema), **schema} for name, schema in schemas.items()},
        errors=sorted(TITLES.items()),
    )


def fields_of(schema: Json) -> list[Field]:
    required = schema.get("required", [])
    return [
        Field(name, _kind(each), _limits(each), name in required, each.get("description", ""))
        for name, each in schema.get("properties", {}).items()
    ]


def calls_of(operation: Operation) -> list[str]:
    """Command lines with curl, one for each type of body. SERVER and TOKEN are variables of the shell."""
    name, content = operation.content["operationId"], operation.content
    address = f"$SERVER{operation.path.replace('{id}', IDENTITY)}"
    query = urlencode(CALLS.get(name, {}), doseq=True)
    called = f'"{address}?{query}"' if query else f'"{address}"'
    bodies = content.get("requestBody", {}).get("content", {})
    is_file = not {JSON, "text/plain"} & {kind for each in content["responses"].values() for kind in _kinds(each)}
    curl = "curl -o FILE" if is_file and "200" in content["responses"] else "curl"
    named = [each["name"] for each in content.get("parameters", []) if each["in"] == "header"]
    curl += "".join(f' -H "{name}: $KEY"' for name in named)
    if operation.method == "GET":
        return [f"{curl} {called}"]
    if not bodies:
        return [f'curl -X POST -H "Authorization: Bearer $TOKEN" "{address}"']
    lines = [f'{curl} --json {shlex.quote(json.dumps(BODIES[name]))} "{address}"']
    if MULTIPART in bodies:
        part = shlex.quote(f"query={json.dumps(UPLOADS[name])}")
        lines += [f'{curl} -F {part} -F image=@photo.jpg "{address}"', f"{curl} {_IMAGE} {called}"]
    return lines


def _tagged(document: Json, tag: str) -> Iterator[Operation]:
    return (each for each in operations_of(document) if tag in each.content["tags"])


def _described(operation: Operation) -> Json:
    content = operation.content
    body = content.get("requestBody", {}).get("content", {})
    parameters = [
        Field(
            each["name"],
            _kind(each["schema"]),
            _limits(each["schema"]),
            each["required"],
            each.get("description", ""),
        )
        for each in content.get("parameters", [])
    ]
    answers = [_answer(status, answer) for status, answer in content["responses"].items()]
    return {
        "method": operation.method,
        "path": operation.path,
        "id": content["operationId"],
        "description": content["description"],
        "parameters": parameters,
        "body": fields_of(body[JSON]["schema"]) if JSON in body else [],
        "kinds": list(body),
        "calls": calls_of(operation),
        "answers": [each for each in answers if each.status < "400"],
        "refusals": [each.status for each in answers if each.status >= "400"],
    }


def _answer(status: str, answer: Json) -> Answer:
    content = answer.get("content", {})
    media = content.get(JSON) or content.get("text/plain") or {}
    example = media.get("example", "")
    text = example if isinstance(example, str) else json.dumps(example, indent=2)
    schema = media.get("schema", {})
    return Answer(status, answer["description"], _kinds(answer), schema_name(schema) if "$ref" in schema else "", text)


def _kinds(answer: Json) -> list[str]:
    return [kind for kind in answer.get("content", {}) if kind != PROBLEM_JSON]


def _kind(schema: Json, *, plural: str = "") -> Markup:
    """The type of a value in words; names of schemas are links. plural: "s" for a list of such values."""
    if "$ref" in schema:
        return Markup('<a href="#schema-{0}">{0}</a>').format(schema_name(schema))
    if "anyOf" in schema:
        return Markup(" or ").join(dict.fromkeys(_kind(each, plural=plural) for each in schema["anyOf"]))
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return Markup("list{} of {}").format(plural, _kind(schema["items"], plural="s"))
    if "properties" in schema:
        named = Markup(", ").join(Markup("<code>{}</code>").format(name) for name in schema["properties"])
        return Markup("object{} ({})").format(plural, named)
    return escape(f"{schema.get('format') or schema['type']}{plural}")


def _limits(schema: Json) -> str:
    """Limits and default of a value in words."""
    both = {**next((each for each in schema.get("anyOf", []) if each.get("type") != "null"), {}), **schema}
    limits = [words.format(f"{both[name]:,}") for name, words in _LIMITS.items() if name in both]
    if both.get("default") not in (None, "", []):
        limits.append(f"default {json.dumps(both['default'])}")
    return "; ".join(limits)


def _paragraphs(text: str) -> Markup:
    """Paragraphs of a description; words between backticks as code."""
    blocks = [" ".join(block.split()) for block in text.split("\n\n")]
    return Markup("").join(Markup("<p>{}</p>").format(_words(block)) for block in blocks)


def _words(text: str) -> Markup:
    pieces = text.split("`")
    marked = [Markup("<code>{}</code>").format(piece) if odd % 2 else escape(piece) for odd, piece in enumerate(pieces)]
    return Markup("").join(marked)
