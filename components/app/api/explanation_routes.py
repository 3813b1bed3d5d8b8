"""Routes of explanations: which regions of an indexed image raise its score for a query, as an overlay."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from image_finder.components.app.api.batches import require_known, row_of
from image_finder.components.app.api.error_responses import errors
from image_finder.components.app.api.image_routes import PRIVATE
from image_finder.components.app.api.request_bodies import body_document
from image_finder.components.app.api.request_models import ExplanationBody, ExplanationParameters
from image_finder.components.app.api.search_routes import require_decodable, term_values
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.search.query import Query as Question

router = APIRouter(prefix=f"{PREFIX}/images", tags=["images"])
PEAK = "X-Peak-Contribution"
_Identity = Annotated[str, Path(max_length=64, description="id of an image of the index")]
_PEAK = {
    "description": "largest contribution of a region, cosine; 0 if none raises the score",
    "schema": {"type": "number"},
}
_OVERLAY: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        "description": "the image in grey, in colour where a region raises the score",
        "headers": {PEAK: _PEAK},
    },
    304: {"description": "the asker has it already"},
}


@router.get(
    "/{identity}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 410, 422, 429, 503), **_OVERLAY},
)
async def explanation(
    identity: _Identity, parameters: Annotated[ExplanationParameters, Query()], request: Request, server: Server
) -> Response:
    """Which regions raise the image's score for texts (q) and images of the index (like); all count alike.

    `kind=attention` shows the weights of the attention pooling instead, which are equal for every query.
    """
    return await _explained(server, request, identity, parameters.query())


@router.post(
    "/{identity}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 408, 410, 413, 415, 422, 429, 503), **_OVERLAY},
    openapi_extra=body_document(ExplanationBody),
)
async def explanation_with_uploads(identity: _Identity, request: Request, server: Server) -> Response:
    """Which regions raise the image's score for texts, images of the index and uploads, each with a weight.

    The body is that of POST /search with `terms` alone: terms under "not" are no part of the explanation.
    """
    async with server.bodies.read(request) as body:
        terms = [term_values(term, body) for term in body.parsed(ExplanationBody).terms]
        return await _explained(server, request, identity, Question.parse({"terms": terms}))


async def _explained(server: State, request: Request, identity: str, query: Question | None) -> Response:
    engine = server.live.engine
    row_of(engine, identity)
    if query is not None:
        require_known(engine, [query])
        for term in query.terms:
            if term.image is not None:
                require_decodable(term.image, server.settings.max_upload_pixels)
    made = await server.explainer.explain(engine, identity, query, request)
    headers = {"ETag": f'"{made.key}"', "Cache-Control": PRIVATE}
    if made.content is None:
        return Response(status_code=304, headers=headers)
    if made.peak is not None:
        headers[PEAK] = f"{made.peak:.4f}"
    return Response(made.content, media_type="image/jpeg", headers=headers)
