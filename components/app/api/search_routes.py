"""Routes of search: by texts, indexed images, uploaded images and any combination of them."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from image_finder.components.app.api.error_responses import errors
from image_finder.components.app.api.limits import while_connected
from image_finder.components.app.api.request_bodies import body_document, require_decodable, term_values
from image_finder.components.app.api.request_models import BrowseParameters, SearchBody, SearchParameters
from image_finder.components.app.api.response_models import BrowseAnswer, ExamplesAnswer, ImageAnswer, SearchAnswer
from image_finder.components.app.api.search_queue import SearchJob, SearchReply
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.search.query import Query as SearchQuery

router = APIRouter(prefix=PREFIX, tags=["search"])
_JSON = "application/json"


@router.get("/search", response_model=SearchAnswer, responses=errors(400, 401, 404, 422, 429, 503))
async def search(parameters: Annotated[SearchParameters, Query()], request: Request, server: Server) -> Response:
    """Search by texts (`q`) and indexed images (`like`); `not` ranks images lower.

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
    """Search by texts, indexed images and uploaded images, each with a weight.

    Send JSON, or multipart/form-data with that JSON in the part `query` and each image in a separate part.
    """
    async with server.bodies.read(request) as body:
        given = body.parsed(SearchBody)
        values = given.model_dump(exclude={"terms", "not_terms"})
        values["terms"] = [term_values(term, body) for term in given.terms]
        values["not"] = [term_values(term, body) for term in given.not_terms]
        return await _answer(server, request, SearchQuery.parse(values))


@router.get("/images", response_model=BrowseAnswer, responses=errors(400, 401, 422, 429, 503))
async def browse(parameters: Annotated[BrowseParameters, Query()], server: Server) -> Response:
    """Browse images by time, without a query."""
    engine, given = server.live.engine, parameters
    found = await server.workers.run(
        lambda: engine.browse(given.filters(), given.k, order=given.order, cursor=given.cursor)
    )
    answer = BrowseAnswer(
        images=[ImageAnswer.of(image, show_path=server.settings.show_paths) for image in found.images],
        candidates=found.candidates,
        cursor=found.cursor,
        generation=engine.index.path.name,
    )
    return Response(answer.model_dump_json(exclude_unset=True), media_type=_JSON)


@router.get("/examples", responses=errors(401, 429, 503))
async def examples(server: Server) -> ExamplesAnswer:
    """Example queries for which the library has images."""
    return ExamplesAnswer(queries=await server.workers.run(server.examples.current))


async def _answer(server: State, request: Request, query: SearchQuery) -> Response:
    uploads = [term.image for term in (*query.terms, *query.not_terms) if term.image is not None]
    request.state.log = {}
    if server.settings.log_queries:
        texts = [term.text for term in query.terms if term.text is not None]
        request.state.log = {"query": texts, "uploads": len(uploads)}
    job = SearchJob(query, time.perf_counter())
    search = server.workers.run(lambda: _with_uploads(server, job, uploads)) if uploads else server.searches.submit(job)
    reply = await while_connected(request, search)
    # `image-finder drift` counts these; further pages are not separate searches.
    if reply.matches_well is not None and query.offset == 0:
        request.state.log["matches_well"] = reply.matches_well
    return Response(reply.body, media_type=_JSON)


def _with_uploads(server: State, job: SearchJob, uploads: list[bytes]) -> SearchReply:
    for image in uploads:
        require_decodable(image, server.settings.max_upload_pixels)
    (reply,) = server.searches.answer([job])
    if isinstance(reply, Exception):
        raise reply
    return reply
