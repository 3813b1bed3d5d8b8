"""Route of labels: which of some words fit an image best, without any training for them."""

from fastapi import APIRouter, Request, Response

from image_finder.components.app.api.disconnects import while_connected
from image_finder.components.app.api.error_responses import Fault, errors
from image_finder.components.app.api.original_files import gone, open_original
from image_finder.components.app.api.request_bodies import body_document
from image_finder.components.app.api.request_models import LabelsBody
from image_finder.components.app.api.response_models import LabelAnswer, LabelsAnswer
from image_finder.components.app.api.search_routes import require_decodable
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
    """Probabilities of labels for an image of the index (id) or an uploaded one (image: the name of its part)."""
    async with server.bodies.read(request) as body:
        wanted = body.parsed(LabelsBody)
        if (wanted.id is None) == (wanted.image is None):
            raise Fault(422, "bad_request", "name exactly one of id and image")
        upload = None if wanted.image is None else body.image(wanted.image)
        engine = server.live.engine
        labelling = server.workers.run(lambda: _labelled(server, engine, wanted, upload))
        answer = await while_connected(request, labelling)
    return Response(answer.model_dump_json(), media_type="application/json")


def _labelled(server: State, engine: SearchEngine, wanted: LabelsBody, upload: bytes | None) -> LabelsAnswer:
    from image_finder.components.search.labels import classify

    if upload is not None:
        require_decodable(upload, server.settings.max_upload_pixels)
        pixels = engine.encoder.preprocess.load(upload)
    else:
        with open_original(engine, str(wanted.id)) as stream:
            try:
                pixels = engine.encoder.preprocess.load(stream.read(server.settings.max_original_bytes))
            except ImageError:  # the image was one when it was indexed
                raise gone("the image's file cannot be read as an image any more") from None
    (scores,) = classify(engine.encoder, pixels[None], wanted.labels)
    told = [LabelAnswer(label=each.label, probability=each.probability, score=each.score) for each in scores]
    return LabelsAnswer(labels=told)
