"""Routes of search: by texts, indexed images, uploaded images and any combination of them."""

import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from image_finder.components.app.api.error_responses import Fault, errors, fault_of, problem_of
from image_finder.components.app.api.limits import while_connected
from image_finder.components.app.api.request_bodies import body_document, require_decodable
from image_finder.components.app.api.request_models import (
    BrowseParameters,
    EmbedBody,
    SearchBody,
    SearchesBody,
    SearchParameters,
)
from image_finder.components.app.api.response_models import (
    BrowseAnswer,
    EmbedAnswer,
    ExamplesAnswer,
    ImageAnswer,
    SearchAnswer,
    SearchesAnswer,
)
from image_finder.components.app.api.search_queue import SearchJob, SearchReply
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.errors import QueryError
from image_finder.components.search.engine import SearchEngine
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
async def search_with_uploads(
    parameters: Annotated[SearchParameters, Query()], request: Request, server: Server
) -> Response:
    """Search by texts, indexed images and uploaded images, each with a weight.

    Send the parameters of GET /search as JSON; multipart/form-data with that JSON in the part `query` and each image in a
    separate part, which `terms` name; or an image alone. Parameters of the query string apply too; a field of the JSON
    replaces the parameter of its name.
    """
    async with server.bodies.read(request, one_image=b'{"terms": [{"image": "image"}]}') as body:
        return await _answer(server, request, body.parsed(SearchBody, parameters).query(body.image))


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


@router.post(
    "/searches",
    response_model=SearchesAnswer,
    responses=errors(401, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_document(SearchesBody, uploads=False),
)
async def several_searches(request: Request, server: Server) -> Response:
    """Answer several queries with one pass over the index, in their order.

    Each is a query of POST /search without uploads. A query that cannot be answered, for example one with an unknown id or
    folder, has an `error` in its result; the others are answered. A body that does not match this description is refused
    as a whole.
    """
    given = (await server.bodies.read_json(request)).parsed(SearchesBody)
    queries = [_parsed(each) for each in given.queries]
    jobs = [SearchJob(query, time.perf_counter()) for query in queries if isinstance(query, SearchQuery)]
    if server.settings.log_queries:
        request.state.log = {"query": [text for job in jobs for text in job.query.texts]}
    replies = iter(await while_connected(request, server.searches.submit_all(jobs)))
    outcomes = [next(replies) if isinstance(query, SearchQuery) else query for query in queries]
    body = b",".join(_outcome(request, each) for each in outcomes)
    return Response(b'{"results":[' + body + b"]}", media_type=_JSON)


def _parsed(given: SearchBody) -> SearchQuery | QueryError:
    try:
        return given.query(_no_upload)
    except QueryError as error:
        return error


def _no_upload(name: str) -> bytes:
    raise Fault(422, "bad_request", f"image {name!r}: several searches take no uploads; use POST /search")


def _outcome(request: Request, reply: SearchReply | BaseException) -> bytes:
    if isinstance(reply, SearchReply):
        return b'{"answer":' + reply.body + b',"error":null}'
    if not isinstance(reply, Exception):
        raise reply
    fault = fault_of(reply)
    if fault.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise reply
    return json.dumps({"answer": None, "error": problem_of(request.scope, fault)}).encode()


@router.post(
    "/embed",
    response_model=EmbedAnswer,
    responses=errors(400, 401, 408, 413, 415, 422, 429, 503),
    openapi_extra=body_document(EmbedBody),
)
async def embed(request: Request, server: Server) -> Response:
    """Unit vectors of texts and uploaded images, as searches use them.

    `images` names the parts of multipart/form-data with images; an image alone is accepted, too.
    """
    async with server.bodies.read(request, one_image=b'{"images": ["image"]}') as body:
        given = body.parsed(EmbedBody)
        if not (given.texts or given.images):
            raise Fault(422, "bad_request", "give texts or images to embed")
        images = [body.image(name) for name in given.images]
        engine = server.live.engine
        embedding = server.workers.run(lambda: _embedded(server, engine, given.texts, images))
        answer = await while_connected(request, embedding)
    return Response(answer.model_dump_json(), media_type=_JSON)


def _embedded(server: State, engine: SearchEngine, texts: Sequence[str], images: Sequence[bytes]) -> EmbedAnswer:
    for image in images:
        require_decodable(image, server.settings.max_upload_pixels)
    encoded = engine.encode([SearchQuery.of_text(text) for text in texts])
    pixels = [engine.encoder.preprocess.load(image) for image in images]
    return EmbedAnswer(
        texts=[each.terms.tolist() for each in encoded],
        images=engine.encoder.encode_image(pixels).tolist(),
        bundle=engine.encoder.bundle.sha256[:16],
    )


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
