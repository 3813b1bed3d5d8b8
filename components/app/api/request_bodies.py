"""Request bodies: JSON, multipart or one image, read within limits of size and time; decodes no image.

The connection of a refused body stays open unless it was too slow, as most clients read no answer while they send. The
server discards the rest of the body for a limited time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from image_finder.components.app.api.error_responses import Fault, invalid
from image_finder.components.app.api.limits import Load
from image_finder.components.app.api.settings import Settings
from image_finder.components.images.decoding import image_size
from image_finder.components.search.query import MAX_TERMS
from image_finder.components.text import one_line

QUERY_PART, IMAGE_PART = "query", "image"
_MAX_QUERY_BYTES = 256 * 1024
_MAX_FILES = 2 * MAX_TERMS + 1
_BYTES = {"type": "string", "format": "binary"}
_B = TypeVar("_B", bound=BaseModel)


class Body(NamedTuple):
    """query: JSON text. images: name -> content of the other parts."""

    query: bytes
    images: dict[str, bytes]

    def parsed(self, kind: type[_B], parameters: BaseModel | None = None) -> _B:
        """The query as a record of that kind. Raises Fault 422.

        parameters: of the query string, for fields that the body lacks.
        """
        try:
            given = kind.model_validate_json(self.query)
            if parameters is None or not parameters.model_fields_set:
                return given
            both = [record.model_dump(by_alias=True, exclude_unset=True) for record in (parameters, given)]
            return kind.model_validate(both[0] | both[1])
        except ValidationError as error:
            raise invalid(error) from None

    def image(self, name: str) -> bytes:
        if name not in self.images:
            raise Fault(422, "bad_request", f"part {name!r}, which the query names, was not sent")
        return self.images[name]


class BodyReader:
    """Reads bodies; refuses slow ones and more uploads than fit into memory."""

    def __init__(self, settings: Settings) -> None:
        self.load = Load("uploads", 0)
        self.n_bytes = 0  # of uploads in memory
        self._settings = settings

    @contextlib.asynccontextmanager
    async def read(self, request: Request, *, one_image: bytes) -> AsyncIterator[Body]:
        """The body while its request is processed: JSON, multipart with JSON in part `query`, or an image.

        one_image: JSON for a body that is an image, whose name is `image`. Raises Fault 408, 413, 415, 422, 503.
        """
        kind = _media_type(request)
        is_image = kind.startswith("image/")
        if kind == "application/json":
            yield await self.read_json(request)
            return
        if not is_image and kind != "multipart/form-data":
            raise Fault(415, "unsupported_media_type", "send application/json, multipart/form-data or an image")
        n_held = 0

        async def held() -> AsyncIterator[bytes]:
            nonlocal n_held
            async for chunk in self._chunks(request, self._settings.max_upload_bytes):
                self._require_memory(len(chunk))
                n_held += len(chunk)
                self.n_bytes += len(chunk)
                yield chunk

        try:
            yield Body(one_image, {IMAGE_PART: await _joined(held())}) if is_image else await _parts(request, held())
        finally:
            self.n_bytes -= n_held

    async def read_json(self, request: Request) -> Body:
        """A body of JSON alone. Raises Fault 408, 413, 415."""
        if _media_type(request) != "application/json":
            raise Fault(415, "unsupported_media_type", "send application/json")
        return Body(await _joined(self._chunks(request, _MAX_QUERY_BYTES)), {})

    async def _chunks(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """Chunks of the body as they arrive. Raises Fault 408, 413."""
        too_large = Fault(413, "too_large", f"the body is larger than {limit:,} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
            raise too_large
        n_bytes, stream, clock = 0, request.stream(), asyncio.get_running_loop().time
        started = clock()
        while True:
            try:
                async with asyncio.timeout_at(started + self._time_for(n_bytes)):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise self._too_slow(n_bytes, clock() - started) from None
            if chunk is None:
                return
            n_bytes += len(chunk)  # the declared length may be wrong or missing
            if n_bytes > limit:
                raise too_large
            yield chunk

    def _time_for(self, n_bytes: int) -> float:
        at_least = self._settings.upload_grace_s + n_bytes / self._settings.min_upload_bytes_per_s
        return min(self._settings.upload_timeout_s, at_least)

    def _too_slow(self, n_bytes: int, seconds: float) -> Fault:
        limits = self._settings
        message = (
            f"only {n_bytes:,} bytes of the body arrived within {seconds:.1f} s; send at least "
            f"{limits.min_upload_bytes_per_s:,} bytes/s, and everything within {limits.upload_timeout_s:g} s"
        )
        return Fault(408, "too_slow", message, headers={"Connection": "close"})

    def _require_memory(self, n_bytes: int) -> None:
        if self.n_bytes + n_bytes > self._settings.max_uploads_bytes:
            raise self.load.refusal("too many uploads at once; retry shortly")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _parts(request: Request, stream: AsyncIterator[bytes]) -> Body:
    parser = MultiPartParser(
        request.headers,
        stream,  # type: ignore[arg-type]  # declared as AsyncGenerator, used as an iterator
        max_files=_MAX_FILES,
        max_fields=4,
        max_part_size=_MAX_QUERY_BYTES,
    )
    parser.spool_max_size = 1 << 40  # in memory: the file system may be read-only
    try:
        form = await parser.parse()
        contents = {name: await _content(value) for name, value in form.multi_items()}
    except (MultiPartException, FormParserError, ValueError, LookupError) as error:
        reason = one_line(error)
        if reason.startswith("Part exceeded maximum size"):
            message = f"part {QUERY_PART!r} is larger than {_MAX_QUERY_BYTES:,} bytes"
            raise Fault(413, "too_large", message) from None
        raise Fault(422, "bad_request", f"the body is not multipart/form-data: {reason}") from None
    finally:
        for file in parser._files_to_close_on_error:  # noqa: SLF001 - parts that did not end are not in the form
            file.close()
    query = contents.pop(QUERY_PART, None)
    if query is None:
        raise Fault(422, "bad_request", f"part {QUERY_PART!r} with the query as JSON is missing")
    return Body(query, contents)


async def _content(value: UploadFile | str) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else await value.read()


def require_decodable(image: bytes, max_pixels: int) -> None:
    """Check an image without decoding it. Raises ImageError, Fault 413 for too many pixels."""
    width, height = image_size(image)
    if width * height > max_pixels:
        raise Fault(413, "too_large", f"the image has {width} x {height} pixels, the limit is {max_pixels:,}")


def body_document(body: type[BaseModel], *, uploads: bool = True) -> dict[str, Any]:
    """The part of an operation's document that describes its body: JSON and, with uploads, multipart or one image."""
    described = body.model_json_schema()
    schema = _without_references(described, described.pop("$defs", {}))
    parts = {
        "type": "object",
        "required": [QUERY_PART],
        "properties": {QUERY_PART: schema, IMAGE_PART: _BYTES},
    }
    encoding = {QUERY_PART: {"contentType": "application/json"}}
    content: dict[str, Any] = {
        "application/json": {"schema": schema},
        "multipart/form-data": {"schema": parts, "encoding": encoding},
        "image/*": {"schema": _BYTES},
    }
    accepted = content if uploads else {"application/json": content["application/json"]}
    return {"requestBody": {"required": True, "content": accepted}}


def _without_references(schema: object, definitions: dict[str, object]) -> object:
    """A JSON schema with its definitions inlined: FastAPI collects only those of the models that it knows."""
    if isinstance(schema, list):
        return [_without_references(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(definitions[str(schema["$ref"]).rpartition("/")[2]], definitions)
    return {name: _without_references(value, definitions) for name, value in schema.items()}
