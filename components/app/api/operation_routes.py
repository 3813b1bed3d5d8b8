"""Routes of operation: filter values, server information, sessions, health and metrics."""

import time
from importlib import metadata

from fastapi import APIRouter, Request, Response

from image_finder.components.app.api.error_responses import errors
from image_finder.components.app.api.request_models import MAX_IMAGES, MAX_LABELS, MAX_QUERIES, MAX_TEXTS
from image_finder.components.app.api.response_models import (
    BundleInfo,
    HealthAnswer,
    IndexingAnswer,
    InfoAnswer,
    ProgressAnswer,
)
from image_finder.components.app.api.security import COOKIE, session_value
from image_finder.components.app.api.server_state import Server, State
from image_finder.components.app.api.settings import PREFIX
from image_finder.components.records.search import Facets
from image_finder.components.search import filters
from image_finder.components.search.query import MAX_HITS, MAX_QUERY_CHARACTERS, MAX_REACH, MAX_TERMS

router = APIRouter(prefix=PREFIX, tags=["operation"])
root = APIRouter(tags=["operation"])  # outside /api, where load balancers and Prometheus expect them
protected_root = APIRouter(tags=["operation"])  # the part that requires the token
_VERSION = metadata.version("text-guided-image-finder")


@router.get("/facets", response_model=Facets, responses=errors(401, 422, 429, 503))
async def facets(server: Server) -> Response:
    """Values that the filters accept, with counts."""
    items = server.live.engine.index.items
    answer = await server.workers.run(lambda: filters.facets(items))
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get("/info", responses=errors(401, 429, 503))
async def info(server: Server) -> InfoAnswer:
    """Index, model and limits of this server."""
    engine = server.live.engine
    manifest = engine.encoder.bundle.manifest
    facts = manifest.model_dump(
        include={"dataset", "data_version", "image_trunk", "text_trunk", "embedding_dim", "starter"},
    )
    return InfoAnswer(
        version=_VERSION,
        gallery=engine.index.manifest.gallery,
        generation=engine.index.path.name,
        images=engine.index.manifest.count,
        failed=len(engine.index.manifest.failed),
        bundle=BundleInfo(sha256=manifest.sha256, **facts),
        good_match=engine.scores.good_match,
        up_to_date=server.live.failure is None,
        limits={
            "query_characters": MAX_QUERY_CHARACTERS,
            "terms": MAX_TERMS,
            "hits": MAX_HITS,
            "reach": MAX_REACH,
            "queries": MAX_QUERIES,
            "labels": MAX_LABELS,
            "embedded_texts": MAX_TEXTS,
            "embedded_images": MAX_IMAGES,
            "upload_bytes": server.settings.max_upload_bytes,
            "upload_pixels": server.settings.max_upload_pixels,
        },
    )


@router.get("/progress", responses=errors(401, 429))
async def progress(server: Server) -> ProgressAnswer:
    """What can be searched now, and what is being indexed; answers before the first index, too."""
    return ProgressAnswer(images=server.live.images, generation=server.live.generation, indexing=_indexing(server))


def _indexing(server: State) -> IndexingAnswer | None:
    found = server.progress
    if found is None:
        return None
    return IndexingAnswer(done=found.done, total=found.total, remaining_s=found.remaining_s)


@router.post("/session", status_code=204, responses=errors(401, 429))
async def session(request: Request, server: Server) -> Response:
    """Exchange the bearer token for a session cookie, with which a page can load images."""
    response = Response(status_code=204)
    token = server.settings.token
    if token is not None:
        expires = int(time.time()) + server.settings.session_s
        response.set_cookie(
            COOKIE,
            session_value(token.get_secret_value(), expires=expires),
            max_age=server.settings.session_s,
            path=f"{server.settings.root_path}/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return response


@root.get("/health/live")
async def live() -> HealthAnswer:
    """Whether the process responds."""
    return HealthAnswer(status="live")


@root.get("/health/ready", response_model_exclude_none=True, responses=errors(503))
async def ready(server: Server) -> HealthAnswer:
    """Whether searches are possible (503 until there is an index) and the index is current."""
    index = server.live.engine.index
    status = "ready" if server.live.failure is None else "stale"
    return HealthAnswer(
        status=status,
        generation=index.path.name,
        images=index.manifest.count,
        watching=server.live.watching,
        indexing=_indexing(server),
        pending=server.live.pending,
    )


@protected_root.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401, 429)},
)
async def metrics(server: Server) -> Response:
    """Metrics in the Prometheus text format."""
    return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
