"""Routes of explanations: overlays of the regions that raise the score of an indexed image."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from image_finder.components.app.api.error_responses import errors
from image_finder.components.app.api.image_routes import PRIVATE
from image_finder.components.app.api.request_bodies import body_document, require_decodable, term_values
from image_finder.components.app.api.request_models import ExplanationBody, ExplanationParameters
from image_finder.components.app.api.search_queue import require_indexed, require_terms_indexed
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.search.query import Query as SearchQuery

router = APIRouter(prefix=f"{PREFIX}/images", tags=["images"])
PEAK = "X-Peak-Contribution"
_Identity = Annotated[str, Path(max_length=64, description="id of an indexed image")]
_PEAK = {
    "description": "largest contribution of a region to the score, cosine; 0 if none raises it",
    "schema": {"type": "number"},
}
_OVERLAY: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        "description": "the image in grey; regions that raise the score are coloured",
        "headers": {PEAK: _PEAK},
    },
    304: {"description": "not modified"},
}


@router.get(
    "/{identity}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 410, 422, 429, 503), **_OVERLAY},
)
async def explanation(
    identity: _Identity, parameters: Annotated[ExplanationParameters, Query()], request: Request, server: Server
) -> Response:
    """Show which regions raise the score for texts (`q`) and indexed images (`like`).

    `kind=attention` shows the weights of the attention pooling instead, which do not depend on the query.
    """
    return await _explained(server, request, identity, parameters.query())


@router.post(
    "/{identity}/explanation",
    response_class=Response,
    responses={**errors(400, 401, 404, 408, 410, 413, 415, 422, 429, 503), **_OVERLAY},
    openapi_extra=body_document(ExplanationBody),
)
async def explanation_with_uploads(identity: _Identity, request: Request, server: Server) -> Response:
    """Show which regions raise the score for weighted texts, indexed images and uploads.

    The body is that of POST /search with `terms` only: terms in `not` are not explained.
    """
    async with server.bodies.read(request) as body:
        terms = [term_values(term, body) for term in body.parsed(ExplanationBody).terms]
        return await _explained(server, request, identity, SearchQuery.parse({"terms": terms}))


async def _explained(server: State, request: Request, identity: str, query: SearchQuery | None) -> Response:
    engine = server.live.engine
    require_indexed(engine, identity)
    if query is not None:
        require_terms_indexed(engine, [query])
        for term in query.terms:
            if term.image is not None:
                require_decodable(term.image, server.settings.max_upload_pixels)
    result = await server.explainer.explain(engine, identity, query, request)
    headers = {"ETag": f'"{result.key}"', "Cache-Control": PRIVATE}
    if result.content is None:
        return Response(status_code=304, headers=headers)
    if result.peak is not None:
        headers[PEAK] = f"{result.peak:.4f}"
    return Response(result.content, media_type="image/jpeg", headers=headers)
