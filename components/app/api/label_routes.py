"""Route of labels: how well each of several labels fits an image."""

from fastapi import APIRouter, Request, Response

from image_finder.components.app.api.error_responses import Fault, errors
from image_finder.components.app.api.limits import while_connected
from image_finder.components.app.api.original_files import UNREADABLE, gone, open_original
from image_finder.components.app.api.request_bodies import body_document, require_decodable
from image_finder.components.app.api.request_models import LabelsBody
from image_finder.components.app.api.response_models import LabelsAnswer
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.errors import ImageError
from image_finder.components.search.engine import SearchEngine

router = APIRouter(prefix=PREFIX, tags=["labels"])


@router.post(
    "/labels",
    response_model=LabelsAnswer,
    responses=errors(400, 401, 404, 408, 410, 413, 415, 422, 429, 503),
    openapi_extra=body_document(LabelsBody),
)
async def labels(request: Request, server: Server) -> Response:
    """Compare labels for an indexed image (`id`) or an uploaded one (`image`: name of its part)."""
    async with server.bodies.read(request) as body:
        given = body.parsed(LabelsBody)
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
        with open_original(engine, str(given.id)) as original:
            try:
                pixels = engine.encoder.preprocess.load(original.stream.read(server.settings.max_original_bytes))
            except ImageError:  # the file has changed since it was indexed
                raise gone(UNREADABLE) from None
    (scores,) = classify(engine.encoder, pixels[None], given.labels)
    return LabelsAnswer(labels=scores)
