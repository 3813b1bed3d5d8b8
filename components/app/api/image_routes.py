"""Routes of images, by id: metadata, thumbnail, larger view and original file."""

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from image_finder.components.app.api.error_responses import errors
from image_finder.components.app.api.head_requests import is_head
from image_finder.components.app.api.limits import while_connected
from image_finder.components.app.api.original_files import media_type, open_original
from image_finder.components.app.api.response_models import ImageAnswer
from image_finder.components.app.api.search_queue import require_indexed
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.app.api.thumbnails import SIZES_PX, VIEW_PX, at_least

router = APIRouter(prefix=f"{PREFIX}/images", tags=["images"])
Identity = Annotated[str, Path(max_length=64, description="id of an indexed image")]
Size = Annotated[int, Query(ge=1, le=SIZES_PX[-1], description="longer side; rounded up to one of a few sizes")]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_JPEG: dict[int | str, dict[str, Any]] = {
    **errors(401, 404, 410, 422, 429, 503),
    200: {"content": {"image/jpeg": _BYTES}, "description": "the image"},
    304: {"description": "not modified"},
}
_FILE: dict[int | str, dict[str, Any]] = {
    **errors(401, 404, 410, 422, 429, 503),
    200: {"content": {"image/*": _BYTES, "application/octet-stream": _BYTES}, "description": "the unchanged file"},
}
PRIVATE = "private, max-age=300"  # not stored in shared caches
_CHUNK_BYTES = 256 * 1024


@router.get("/{identity}", response_model=ImageAnswer, responses=errors(401, 404, 422, 429, 503))
async def image(identity: Identity, server: Server) -> Response:
    """Metadata of an image."""
    engine = server.live.engine
    require_indexed(engine, identity)
    answer = ImageAnswer.of(engine.image(identity), show_path=server.settings.show_paths)
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")


@router.get("/{identity}/thumbnail", response_class=Response, responses=_JPEG)
async def thumbnail(identity: Identity, request: Request, server: Server, px: Size = 320) -> Response:
    """A small JPEG, upright, without metadata."""
    return await _view(server, request, identity, at_least(px))


@router.get("/{identity}/view", response_class=Response, responses=_JPEG)
async def view(identity: Identity, request: Request, server: Server) -> Response:
    """A JPEG for a screen, at most 1600 px, upright, without metadata."""
    return await _view(server, request, identity, VIEW_PX)


@router.get("/{identity}/original", response_class=Response, responses=_FILE)
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


def attachment(name: str) -> str:
    """Content-Disposition for any file name (RFC 6266)."""
    name = "".join(character if character.isprintable() and character not in "/\\" else "_" for character in name)
    plain = "".join(character if character.isascii() and character not in '"%' else "_" for character in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _view(server: State, request: Request, identity: str, px: int) -> Response:
    engine = server.live.engine
    known = request.headers.get("if-none-match", "")
    rendering = server.workers.run(lambda: server.views.get(engine, identity, px, known=known))
    result = await while_connected(request, rendering)
    headers = {"ETag": f'"{result.key}"', "Cache-Control": PRIVATE}
    if result.content is None:
        return Response(status_code=304, headers=headers)
    return Response(result.content, media_type="image/jpeg", headers=headers)


def _chunks(stream: BinaryIO, length: int) -> Iterator[bytes]:
    """The first `length` bytes of the file, as announced; starlette reads them in a thread."""
    with stream:
        while length > 0 and (chunk := stream.read(min(_CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk
