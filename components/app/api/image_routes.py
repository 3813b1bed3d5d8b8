"""Routes of images, by id: metadata, thumbnail, larger view, original file, explanations and labels."""

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from image_finder.components.app.api.archive import MOST_FILES, archive, file_name
from image_finder.components.app.api.error_responses import Fault, errors
from image_finder.components.app.api.head_requests import is_head
from image_finder.components.app.api.limits import while_connected
from image_finder.components.app.api.original_files import as_gone, media_type, open_original
from image_finder.components.app.api.request_bodies import body_document, require_decodable
from image_finder.components.app.api.request_models import (
    ExplanationBody,
    ExplanationParameters,
    LabelsBody,
    LabelsParameters,
    TermParameters,
)
from image_finder.components.app.api.response_models import ImageAnswer, LabelsAnswer
from image_finder.components.app.api.search_queue import require_indexed, require_terms_indexed
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.app.api.thumbnails import SIZES_PX, THUMBNAIL_PX, VIEW_PX, View, at_least
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query as SearchQuery

router = APIRouter(prefix=f"{PREFIX}/images", tags=["images"])
labels_router = APIRouter(prefix=PREFIX, tags=["labels"])
archive_router = APIRouter(prefix=PREFIX, tags=["images"])
Identity = Annotated[str, Path(alias="id", max_length=64, description="id of an indexed image")]
Size = Annotated[int, Query(ge=1, le=SIZES_PX[-1], description="longer side; rounded up to one of a few sizes")]
Version = Annotated[str, Query(max_length=64, description="version of the content, see `thumbnail` of an image")]
PEAK = "X-Peak-Contribution"
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": _BYTES}, "description": "the image"},
    304: {"description": "not modified"},
}
_OVERLAY: dict[int | str, dict[str, Any]] = {
    **_JPEG,
    200: {
        "content": {"image/jpeg": _BYTES},
        "description": "the image in grey; regions that raise the score are coloured",
        "headers": {
            PEAK: {
                "description": "largest contribution of a region to the score, cosine; 0 if none raises it",
                "schema": {"type": "number"},
            }
        },
    },
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": _BYTES, "application/octet-stream": _BYTES}, "description": "the unchanged file"},
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": _BYTES}, "description": "a ZIP file"},
}
_ERRORS = errors(401, 404, 410, 422, 429, 503)
PRIVATE = "private, max-age=300"  # not stored in shared caches
UNCHANGING = "private, max-age=31536000, immutable"
_CHUNK_BYTES = 256 * 1024


@router.get("/{id}", response_model=ImageAnswer, responses=errors(401, 404, 422, 429, 503))
async def image(identity: Identity, server: Server) -> Response:
    """Metadata of an image."""
    engine = server.live.engine
    require_indexed(engine, identity)
    answer = ImageAnswer.of(engine.image(identity), show_path=server.settings.show_paths)
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")


@router.get("/{id}/thumbnail", response_class=Response, responses={**_ERRORS, **_JPEG})
async def thumbnail(
    identity: Identity, request: Request, server: Server, px: Size = THUMBNAIL_PX, v: Version = ""
) -> Response:
    """A small JPEG, upright, without metadata.

    Under the address that answers give as `thumbnail`, it may be kept for a year; otherwise for 5 minutes.
    """
    return await _view(server, request, identity, at_least(px), v)


@router.get("/{id}/view", response_class=Response, responses={**_ERRORS, **_JPEG})
async def view(identity: Identity, request: Request, server: Server) -> Response:
    """A JPEG for a screen, at most 1600 px, upright, without metadata."""
    return await _view(server, request, identity, VIEW_PX)


@router.get("/{id}/original", response_class=Response, responses={**_ERRORS, **_FILE})
async def original(identity: Identity, request: Request, server: Server) -> Response:
    """The unchanged file, as a download."""
    engine = server.live.engine
    original = await server.workers.run(lambda: open_original(engine, identity))
    headers = {
        "Content-Length": str(original.n_bytes),
        "Content-Disposition": attachment(engine.image(identity).name),
        "Cache-Control": PRIVATE,
    }
    try:
        head = await server.workers.run(lambda: original.stream.read(16))
        original.stream.seek(0)
    except BaseException:
        original.stream.close()
        raise
    kind = media_type(head)
    if is_head(request):
        original.stream.close()
        return Response(headers=headers, media_type=kind)
    return StreamingResponse(_chunks(original.stream, original.n_bytes), headers=headers, media_type=kind)


@archive_router.get("/archive", response_class=Response, responses={**errors(401, 404, 422, 429, 503), **_ZIP})
async def archive_of_images(
    server: Server,
    identities: Annotated[
        list[str], Query(alias="id", min_length=1, max_length=MOST_FILES, description="ids of indexed images")
    ],
) -> Response:
    """The unchanged files of several images as a ZIP file; those that no longer exist are listed in `missing.txt` in it."""
    engine = server.live.engine
    parts = await server.workers.run(lambda: archive(engine, identities))
    headers = {"Content-Disposition": attachment("images.zip"), "Cache-Control": "no-store"}
    return StreamingResponse(parts, headers=headers, media_type="application/zip")


def attachment(name: str) -> str:
    """Content-Disposition for any file name (RFC 6266)."""
    name = file_name(name)
    plain = "".join(character if character.isascii() and character not in '"%' else "_" for character in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _view(server: State, request: Request, identity: str, px: int, version: str = "") -> Response:
    engine = server.live.engine
    known = request.headers.get("if-none-match", "")
    rendering = server.workers.run(lambda: server.views.get(engine, identity, px, known=known))
    return _jpeg(await while_connected(request, rendering), version)


def _jpeg(view: View, version: str = "") -> Response:
    """version: of the content that the client named; if it is that of the view, the view never changes."""
    lifetime = UNCHANGING if version and version == view.version else PRIVATE
    headers = {"ETag": f'"{view.key}"', "Cache-Control": lifetime}
    if view.content is None:
        return Response(status_code=304, headers=headers)
    if view.peak is not None:
        headers[PEAK] = f"{view.peak:.4f}"
    return Response(view.content, media_type="image/jpeg", headers=headers)


def _chunks(stream: BinaryIO, length: int) -> Iterator[bytes]:
    """The first `length` bytes of the file, as announced; starlette reads them in a thread."""
    with stream:
        while length > 0 and (chunk := stream.read(min(_CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk


@router.get(
    "/{id}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 410, 422, 429, 503), **_OVERLAY},
)
async def explanation(
    identity: Identity, parameters: Annotated[ExplanationParameters, Query()], request: Request, server: Server
) -> Response:
    """Show which regions raise the score for texts (`q`) and indexed images (`like`).

    `kind=attention` shows the weights of the attention pooling instead, which do not depend on the query.
    """
    return await _explained(server, request, identity, parameters.query())


@router.post(
    "/{id}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 408, 410, 413, 415, 422, 429, 503), **_OVERLAY},
    openapi_extra=body_document(ExplanationBody),
)
async def explanation_with_uploads(
    identity: Identity, parameters: Annotated[TermParameters, Query()], request: Request, server: Server
) -> Response:
    """Show which regions raise the score for weighted texts, indexed images and uploads.

    The body is that of POST /search with `q`, `like` and `terms` only: terms in `not` are not explained.
    """
    async with server.bodies.read(request, one_image=b'{"terms": [{"image": "image"}]}') as body:
        query = body.parsed(ExplanationBody, parameters).query(body.image)
        return await _explained(server, request, identity, query)


async def _explained(server: State, request: Request, identity: str, query: SearchQuery | None) -> Response:
    engine = server.live.engine
    require_indexed(engine, identity)
    if query is not None:
        require_terms_indexed(engine, [query])
        for term in query.terms:
            if term.image is not None:
                require_decodable(term.image, server.settings.max_upload_pixels)
    return _jpeg(await server.explainer.explain(engine, identity, query, request))


@labels_router.post(
    "/labels",
    response_model=LabelsAnswer,
    responses=errors(400, 401, 404, 408, 410, 413, 415, 422, 429, 503),
    openapi_extra=body_document(LabelsBody),
)
async def labels(parameters: Annotated[LabelsParameters, Query()], request: Request, server: Server) -> Response:
    """Compare labels for an indexed image (`id`) or an uploaded one (`image`: name of its part).

    With an image alone as body, the labels are parameters.
    """
    async with server.bodies.read(request, one_image=b'{"image": "image"}') as body:
        given = body.parsed(LabelsBody, parameters)
        if (given.id is None) == (given.image is None):
            raise Fault(422, "bad_request", "give exactly one of id and image")
        upload = None if given.image is None else body.image(given.image)
        engine = server.live.engine
        labelling = server.workers.run(lambda: _labelled(server, engine, given, upload))
        answer = await while_connected(request, labelling)
    return Response(answer.model_dump_json(), media_type="application/json")


def _labelled(server: State, engine: SearchEngine, given: LabelsBody, upload: bytes | None) -> LabelsAnswer:
    from image_finder.components.search.labels import classify

    if upload is not None:
        require_decodable(upload, server.settings.max_upload_pixels)
        pixels = engine.encoder.preprocess.load(upload)
    else:
        with open_original(engine, str(given.id)) as original, as_gone():
            pixels = engine.encoder.preprocess.load(original.stream.read(server.settings.max_original_bytes))
    (scores,) = classify(engine.encoder, pixels[None], given.labels)
    return LabelsAnswer(labels=scores)
