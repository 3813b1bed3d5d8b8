"""Bodies: reads what a request brings, within its limits of size and time; decodes no picture."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from components.app.api.faults import Fault, shape_fault
from components.app.api.limits import Gate, Load
from components.app.api.settings import Settings
from components.search.query import MAX_TERMS

QUERY_PART = "query"
_MAX_QUERY_BYTES = 256 * 1024
_MAX_FILES = 2 * MAX_TERMS + 1
_CLOSE = {"Connection": "close"}  # the rest of the body will not be read
_B = TypeVar("_B", bound=BaseModel)


class Body(NamedTuple):
    """query: JSON text. pictures: content of the other parts by name."""

    query: bytes
    pictures: dict[str, bytes]

    def parsed(self, kind: type[_B]) -> _B:
        """The query as a record. Raises Fault 422."""
        try:
            return kind.model_validate_json(self.query)
        except ValidationError as error:
            raise shape_fault(error) from None

    def picture(self, name: str) -> bytes:
        """Content of a part. Raises Fault 422 if there is no such part."""
        if name not in self.pictures:
            raise Fault(422, "bad_request", f"the query names a part {name!r} that was not sent")
        return self.pictures[name]


class BodyReader:
    """Reads bodies, a few at a time; memory stays within uploads x max_upload_bytes."""

    def __init__(self, settings: Settings) -> None:
        """settings: limits."""
        self.load = Load("uploads", settings.waiting)
        self._gate = Gate(self.load, running=settings.uploads)
        self._settings = settings

    async def read(self, request: Request) -> Body:
        """The body: JSON, or multipart/form-data with JSON in the part `query`.

        Raises Fault 408 when it takes too long, 413 when it is too large, 415 and 422 when it is of another form.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {"application/json", "multipart/form-data"}:
            raise Fault(415, "unsupported_media_type", "send application/json or multipart/form-data", headers=_CLOSE)
        async with self.load.deadline(self._settings.timeout_s):
            await self._gate.enter()
        try:
            async with asyncio.timeout(self._settings.upload_timeout_s):
                if kind == "application/json":
                    return Body(b"".join([chunk async for chunk in self._counted(request, _MAX_QUERY_BYTES)]), {})
                return await _parts(request, self._counted(request, self._settings.max_upload_bytes))
        except TimeoutError:
            seconds = f"{self._settings.upload_timeout_s:g} s"
            raise Fault(408, "too_slow", f"the body did not arrive within {seconds}", headers=_CLOSE) from None
        finally:
            self._gate.leave()

    async def _counted(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        too_large = Fault(413, "too_large", f"the body has more than {limit:,} bytes", headers=_CLOSE)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
            raise too_large
        n_bytes = 0
        async for chunk in request.stream():  # what is declared may be a lie, and chunked bodies declare nothing
            n_bytes += len(chunk)
            if n_bytes > limit:
                raise too_large
            yield chunk


async def _parts(request: Request, stream: AsyncIterator[bytes]) -> Body:
    parser = MultiPartParser(
        request.headers,
        stream,  # type: ignore[arg-type]  # an AsyncGenerator is asked for, an iterator is used
        max_files=_MAX_FILES,
        max_fields=4,
        max_part_size=_MAX_QUERY_BYTES,
    )
    parser.spool_max_size = 1 << 40  # in memory, which is bounded: the file system may be read-only
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if reason.startswith("Part exceeded maximum size"):
            what = f"the part {QUERY_PART!r} has more than {_MAX_QUERY_BYTES:,} bytes"
            raise Fault(413, "too_large", what, headers=_CLOSE) from None
        raise Fault(422, "bad_request", f"the body is not multipart/form-data: {reason}", headers=_CLOSE) from None
    contents = {name: await _content(value) for name, value in form.multi_items()}
    await form.close()
    query = contents.pop(QUERY_PART, None)
    if query is None:
        raise Fault(422, "bad_request", f"the part {QUERY_PART!r} is missing; it holds the query as JSON")
    return Body(query, contents)


async def _content(value: UploadFile | str) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else await value.read()


def body_document(body: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI of such a body, for a route that reads it itself."""
    described = body.model_json_schema()
    schema = _without_references(described, described.pop("$defs", {}))
    parts = {
        "type": "object",
        "required": [QUERY_PART],
        "properties": {QUERY_PART: schema, "picture": {"type": "string", "format": "binary"}},
    }
    encoding = {QUERY_PART: {"contentType": "application/json"}}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": parts, "encoding": encoding}}
    return {"requestBody": {"required": True, "content": content}}


def _without_references(schema: object, definitions: dict[str, object]) -> object:
    """A JSON schema with its definitions put in where they are named: FastAPI gathers those of its own models alone."""
    if isinstance(schema, list):
        return [_without_references(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(definitions[str(schema["$ref"]).rpartition("/")[2]], definitions)
    return {name: _without_references(value, definitions) for name, value in schema.items()}
