"""Routes of searches: by text, by images of the index, by uploaded images, and by all of them together."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from image_finder.components.app.api.batches import Answered, Asked
from image_finder.components.app.api.disconnects import while_connected
from image_finder.components.app.api.error_responses import Fault, errors
from image_finder.components.app.api.request_bodies import Body, body_document
from image_finder.components.app.api.request_models import QueryTerm, SearchBody, SearchParameters
from image_finder.components.app.api.response_models import SearchAnswer
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.images.decoding import image_size
from image_finder.components.search.query import Query as Question

router = APIRouter(prefix=PREFIX, tags=["search"])
_JSON = "application/json"


@router.get("/search", response_model=SearchAnswer, responses=errors(400, 401, 404, 422, 429, 503))
async def search(parameters: Annotated[SearchParameters, Query()], request: Request, server: Server) -> Response:
    """Search by texts (q), without others (not), by images of the index (like), under filters.

    All terms have equal weight. POST also takes weights, uploaded images and images in `not`.
    """
    return await _answer(server, request, parameters.query())


@router.post(
    "/search",
    response_model=SearchAnswer,
    responses=errors(400, 401, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_document(SearchBody),
)
async def search_with_uploads(request: Request, server: Server) -> Response:
    """Search by texts, images of the index and uploaded images, each with a weight.

    JSON alone, or multipart/form-data with that JSON in the part `query` and the images in parts of their own.
    """
    async with server.bodies.read(request) as body:
        given = body.parsed(SearchBody)
        values = given.model_dump(exclude={"terms", "not_terms"})
        values["terms"] = [term_values(term, body) for term in given.terms]
        values["not"] = [term_values(term, body) for term in given.not_terms]
        return await _answer(server, request, Question.parse(values))


def require_decodable(image: bytes, max_pixels: int) -> None:
    """Raises ImageError for what is no image, Fault 413 for too many pixels; decodes none."""
    width, height = image_size(image)
    if width * height > max_pixels:
        raise Fault(413, "too_large", f"the image has {width} x {height} pixels, the limit is {max_pixels:,} pixels")


def term_values(term: QueryTerm, body: Body) -> dict[str, object]:
    """A term as Query.parse takes it. Raises Fault 422 if its part was not sent."""
    values = term.model_dump(exclude_none=True)
    if term.image is not None:
        values["image"] = body.image(term.image)
    return values


async def _answer(server: State, request: Request, query: Question) -> Response:
    uploads = [term.image for term in (*query.terms, *query.not_terms) if term.image is not None]
    request.state.log = {}
    if server.settings.log_queries:
        texts = [term.text for term in query.terms if term.text is not None]
        request.state.log = {"query": texts, "uploads": len(uploads)}
    if uploads:
        at_s = time.perf_counter()
        asking = server.workers.run(lambda: _by_images(server, Asked(query, at_s), uploads))
    else:
        asking = server.searches.ask(query)
    answered = await while_connected(request, asking)
    # `image-finder drift` counts these; the pages after a first one are no searches of their own.
    if answered.matches_well is not None and query.offset == 0:
        request.state.log["matches_well"] = answered.matches_well
    return Response(answered.body, media_type=_JSON)


def _by_images(server: State, asked: Asked, uploads: list[bytes]) -> Answered:
    for image in uploads:
        require_decodable(image, server.settings.max_upload_pixels)
    (answer,) = server.searches.answer([asked])
    if isinstance(answer, Exception):
        raise answer
    return answer
